"""Test training over stretches of candles: which windows they hold and what is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from model.core.errors import ConfigError
from model.features.sliding_windows import Windows
from model.lstm_model import LSTMPricePredictor
from model.training.checkpoint import TrainingCheckpoint
from model.training.network import stretch_network
from model.training.stretches import LABELS, Stretches

Configure = Callable[..., Path]
LOOKBACK = 10


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def two_symbols() -> tuple[Windows, NDArray[np.float32]]:
    """Windows of two symbols whose first rows are no numbers; targets count the windows."""
    rows = np.random.default_rng(0).normal(size=(900, 2)).astype(np.float32)
    rows[:3] = rows[400:410] = np.nan
    # In no order, with a run of a single window at the end.
    starts = np.concatenate([np.arange(410, 880), np.arange(3, 391), [890]])
    return Windows(rows, starts, LOOKBACK), np.arange(len(starts), dtype=np.float32)


def labelled(stretches: Stretches, windows: Windows) -> list[int]:
    """Numbers of the windows with a weight, after comparing each with the rows it stands for."""
    found = []
    for index in range(len(stretches)):
        rows, targets, weights = stretches[index]
        assert np.isfinite(rows).all()
        for stretch, label in np.argwhere(weights):
            number = int(targets[stretch, label, 0])
            seen = rows[stretch, label : label + LOOKBACK]
            assert np.array_equal(seen, windows[np.array([number])][0])
            found.append(number)
    return found


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_pass_has_every_window_once(size: int) -> None:
    windows, y = two_symbols()
    stretches = Stretches(windows, y, size)
    everything = list(range(len(y)))
    assert sorted(labelled(stretches, windows)) == everything
    orders = []
    for epoch in range(4):
        stretches.shuffle(7, epoch)
        orders.append(labelled(stretches, windows))
        assert sorted(orders[-1]) == everything
    assert orders[0] != orders[1]
    shapes = {tuple(array.shape for array in stretches[i]) for i in range(len(stretches))}
    assert shapes == {
        ((size, LOOKBACK - 1 + LABELS, 2), (size, LABELS, 1), (size, LABELS)),
    }


@pytest.mark.parametrize("batches", [3, 20])
def test_epochs_of_another_length_divide_the_same_passes(batches: int) -> None:
    windows, y = two_symbols()
    stretches, whole = Stretches(windows, y, 4), Stretches(windows, y, 4)
    stretches.set_epoch(batches)
    assert len(stretches) == batches
    seen = []
    for epoch in range(2 * len(whole)):
        stretches.shuffle(7, epoch)
        seen += labelled(stretches, windows)
    expected = []
    for number in range(2 * len(stretches)):
        whole.shuffle(7, number)
        expected += labelled(whole, windows)
    assert seen == expected


def test_an_epoch_depends_on_seed_and_number_alone() -> None:
    windows, y = two_symbols()

    def order(stretches: Stretches, seed: int | None, epoch: int) -> list[int]:
        stretches.shuffle(seed, epoch)
        return labelled(stretches, windows)

    one, other = Stretches(windows, y, 8), Stretches(windows, y, 8)
    first, second = order(one, 7, 0), order(one, 7, 1)
    assert order(other, 7, 1) == second != first
    assert order(other, 8, 1) != second
    assert order(other, None, 1) != order(one, None, 1)


def test_weights_make_the_mean_over_labels_the_mean_over_windows() -> None:
    windows, y = two_symbols()
    stretches = Stretches(windows, y, 7)
    total = sum((stretches[i][1][..., 0] * stretches[i][2]).mean() for i in range(len(stretches)))
    assert total / len(stretches) == pytest.approx(y.mean(), rel=1e-5)


def learnable(n: int = 600) -> tuple[Windows, NDArray[np.float32]]:
    """Windows whose target is a value of their last row."""
    rows = np.random.default_rng(3).normal(size=(n, 2)).astype(np.float32)
    starts = np.arange(n - LOOKBACK)
    return Windows(rows, starts, LOOKBACK), rows[starts + LOOKBACK - 1, 0]


def predictor(config: Path, folder: Path | None = None) -> LSTMPricePredictor:
    made = LSTMPricePredictor(config)
    if folder is not None:
        made.resume = TrainingCheckpoint(folder, "one")
    return made


def test_the_network_forecasts_windows_and_stretches_alike(configure: Configure) -> None:
    model = predictor(configure(lstm_units=[5, 4, 3])).build_model((LOOKBACK, 2))
    stretched = stretch_network(keras, model)
    windows, _ = learnable(60)
    rows = windows.rows[None, : LOOKBACK + 2]
    output = np.asarray(stretched(rows))
    assert output.shape == (1, 3, 1)
    # The later ones have seen one and two rows more than their windows.
    exact = np.asarray(model(windows[:1]))
    np.testing.assert_allclose(output[0, 0], exact[0], atol=1e-6)
    whole = np.asarray(stretched(rows[:, :-2]))
    np.testing.assert_allclose(whole[0], exact, atol=1e-6)
    ours, theirs = model.trainable_variables, stretched.trainable_variables
    assert [id(variable) for variable in ours] == [id(variable) for variable in theirs]


@pytest.mark.parametrize("validated", ["windows", "array", "nothing"])
def test_windows_train_the_model_that_is_served(
    configure: Configure, tmp_path: Path, validated: str
) -> None:
    config = configure(epochs=4, learning_rate=0.01, dropout_rate=0.0, batch_size=16)
    made = predictor(config)
    made.checkpoint_path = tmp_path / "best.keras"
    windows, y = learnable()
    train = Windows(windows.rows, windows.starts[:450], LOOKBACK)
    test = Windows(windows.rows, windows.starts[470:], LOOKBACK)
    samples: dict[str, tuple[Any, ...]] = {
        "windows": (test, y[470:]),
        "array": (test[:], y[470:]),
        "nothing": (),
    }
    history: dict[str, list[float]] = made.train(train, y[:450], *samples[validated]).history
    expected = {"loss", "mae", "learning_rate"} | (
        {"val_loss", "val_mae"} if samples[validated] else set()
    )
    assert set(history) == expected
    assert made.model is not None
    assert made.model.output_shape == (None, 1)
    error = np.square(made.predict(test)[:, 0] - y[470:]).mean()
    assert error < 0.5 * y.var()
    if validated == "array":
        # Arrays are whole windows, so this loss is that of the forecasts.
        assert min(history["val_loss"]) == pytest.approx(error, rel=1e-4)
    saved = predictor(config)
    saved.load_model(tmp_path / "best.keras")
    if validated != "nothing":
        np.testing.assert_allclose(saved.predict(test), made.predict(test), atol=1e-6)
        # And it can be trained further, with the state of its optimizer.
        assert saved.model is not None
        assert saved.model.optimizer.iterations > 0
    saved.config["model"]["epochs"] = 1
    saved.train(train, y[:450])


def test_the_setting_trains_over_windows(configure: Configure) -> None:
    windows, y = learnable(200)
    config = configure(training="windows")
    given, written = predictor(config), predictor(config)
    losses = given.train(windows, y, windows, y).history
    assert losses == written.train(windows[:], y, windows[:], y).history


def test_an_unknown_way_to_train_is_refused(configure: Configure) -> None:
    windows, y = learnable(100)
    with pytest.raises(ConfigError, match="'rows'; it must be one of"):
        predictor(configure(training="rows")).train(windows, y)


def test_an_interruption_does_not_change_the_trained_model(
    configure: Configure, tmp_path: Path
) -> None:
    config = configure(epochs=3, lstm_units=[3, 2], batch_size=16, dropout_rate=0.3)
    windows, y = learnable(200)
    data = (windows, y, windows, y)
    whole = predictor(config, tmp_path / "whole")
    losses = whole.train(*data).history
    cut = predictor(config, tmp_path / "cut")
    cut.config["model"]["epochs"] = 1
    cut.train(*data)
    again = predictor(config, tmp_path / "cut")
    assert again.train(*data).history == losses
    assert whole.model is not None
    assert again.model is not None
    for one, other in zip(whole.model.get_weights(), again.model.get_weights(), strict=True):
        assert np.array_equal(one, other)


def test_training_may_pause_after_every_stretch_batch(configure: Configure) -> None:
    made = predictor(configure(epochs=2, lstm_units=[2], batch_size=4))
    pauses: list[None] = []
    made.pause = lambda: pauses.append(None)
    windows, y = learnable(200)
    made.train(windows, y, windows, y)
    # Four passes over 190 windows, in seven stretches at most, one a step; one validation batch.
    assert len(pauses) == 2 * (4 * 7 + 1)
