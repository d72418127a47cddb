"""Test that a killed training run continues from its last whole epoch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.lstm_model import LSTMPricePredictor
from model.training.checkpoint import TrainingCheckpoint

Configure = Callable[..., Path]
EPOCHS = 30


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def data() -> tuple[NDArray[Any], ...]:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(64, 5, 2)).astype(np.float32)
    y = X[:, -1, 0] + 0.1 * rng.normal(size=64).astype(np.float32)
    return X[:48], y[:48], X[48:], y[48:]


def predictor(config: Path, folder: Path, key: str = "one") -> LSTMPricePredictor:
    made = LSTMPricePredictor(config)
    made.resume = TrainingCheckpoint(folder / "resume", key)
    return made


def test_an_interrupted_training_resumes(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Without dropout an early epoch is better than the one before, whatever ran in this process.
    config = configure(epochs=EPOCHS, lstm_units=[3], batch_size=16, dropout_rate=0.0)
    cut = predictor(config, tmp_path)
    assert cut.resume is not None
    save = cut.resume.save

    def die_while_saving(epochs: int, model: Any, losses: Mapping[str, float]) -> None:
        if epochs == 3:
            # Some of its files are there, and it does not count yet.
            model.save(tmp_path / "resume" / "epoch-0003.keras")
            raise KeyboardInterrupt
        save(epochs, model, losses)

    cut.resume.save = die_while_saving  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        cut.train(*data())
    standing = TrainingCheckpoint(tmp_path / "resume", "one").load()
    assert standing is not None
    assert standing.epoch == 2
    assert standing.best_weights is not None

    # Never reached again: every later epoch is worse, so this is what training must end with.
    path = tmp_path / "resume" / "standing.json"
    raw = json.loads(path.read_text())
    for remembered in raw["callbacks"]:
        remembered["best"] = 0.0
    path.write_text(json.dumps(raw))
    again = predictor(config, tmp_path)
    history = again.train(*data()).history
    out = capsys.readouterr().out.partition("going on after epoch 2")[2]
    assert f"Epoch 3/{EPOCHS}" in out
    assert f"Epoch 2/{EPOCHS}" not in out
    # Earlier training is not lost: the first loss afterwards continues from it.
    assert history["loss"][2] < history["loss"][0]
    # Ten epochs without a better one, counted from before the cut.
    epochs = len(history["val_loss"])
    assert epochs == len(history["loss"]) <= 2 + 10
    assert again.model is not None
    for ours, best in zip(again.model.get_weights(), standing.best_weights, strict=True):
        assert np.array_equal(ours, best)
    # The rate was halved on the way, and is part of what was saved.
    assert history["learning_rate"][-1] < history["learning_rate"][0]
    left = sorted(path.name for path in (tmp_path / "resume").iterdir())
    assert left == [f"epoch-{epochs:04}.keras", f"epoch-{epochs:04}.npz", "standing.json"]


def test_a_finished_training_is_not_repeated_and_a_damaged_one_restarts(
    configure: Configure, tmp_path: Path
) -> None:
    config = configure(epochs=1, lstm_units=[2], batch_size=16)
    first, again = predictor(config, tmp_path), predictor(config, tmp_path)
    losses = first.train(*data()).history["val_loss"]
    assert again.train(*data()).history["val_loss"] == losses
    folder = tmp_path / "resume"

    def taken_up(key: str = "one") -> bool:
        return TrainingCheckpoint(folder, key).load() is not None

    assert taken_up()
    assert not taken_up("another")
    for name in ("epoch-0001.npz", "epoch-0001.keras"):
        whole = (folder / name).read_bytes()
        for damaged in (b"", whole[:-10], b"else"):
            (folder / name).write_bytes(damaged)
            assert not taken_up()
        (folder / name).write_bytes(whole)
        assert taken_up()
    for text in ("", "[]", '{"key": "one"}', '{"key": "one", "epoch": []}'):
        (folder / "standing.json").write_text(text)
        assert not taken_up()
    (folder / "standing.json").unlink()
    assert not taken_up()


def test_an_interruption_does_not_change_the_trained_model(
    configure: Configure, tmp_path: Path
) -> None:
    config = configure(epochs=3, lstm_units=[3, 2], batch_size=16, dropout_rate=0.3)
    whole = predictor(config, tmp_path / "whole")
    losses = whole.train(*data()).history
    cut = predictor(config, tmp_path / "cut")
    cut.config["model"]["epochs"] = 1
    cut.train(*data())
    again = predictor(config, tmp_path / "cut")
    assert again.train(*data()).history == losses
    assert whole.model is not None
    assert again.model is not None
    for one, other in zip(whole.model.get_weights(), again.model.get_weights(), strict=True):
        assert np.array_equal(one, other)
