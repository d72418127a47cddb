"""Test that arguments of the model classes are used in order or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from model.features.sliding_windows import Windows
from model.lstm_model import LSTMPricePredictor
from model.training.arguments import check_targets

Predictors = Callable[[], LSTMPricePredictor]

RANDOM = np.random.default_rng(3)
X = RANDOM.random((80, 12, 3)).astype(np.float32)
Y = X[:, -1, 0].copy()


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def untrained(config_path: Path) -> Predictors:
    return lambda: LSTMPricePredictor(config_path)


@pytest.fixture(scope="module")
def config_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text("model: {target: close, lstm_units: [2], epochs: 1, batch_size: 64, seed: 1}")
    return path


@pytest.fixture(scope="module")
def shared(config_path: Path) -> LSTMPricePredictor:
    """A model that no test changes: it is compiled once."""
    predictor = LSTMPricePredictor(config_path)
    predictor.build_model((12, 3))
    return predictor


@pytest.fixture
def built(untrained: Predictors) -> LSTMPricePredictor:
    """A model of the test's own."""
    predictor = untrained()
    predictor.build_model((12, 3))
    return predictor


def with_value(array: Any, at: Any, value: float) -> Any:
    changed = array.astype(np.float64)
    changed[at] = value
    return changed


def spread(array: Any) -> Any:
    """The same values, not contiguous."""
    wide = np.zeros((2 * len(array), *array.shape[1:]), array.dtype)
    wide[::2] = array
    return wide[::2]


SAME_TARGETS: dict[str, Any] = {
    "a Series whose index falls": pd.Series(Y, index=range(79, -1, -1)),
    "a slice of a Series": pd.Series(np.concatenate([Y, Y])).iloc[80:],
    "a Series with times": pd.Series(Y, index=pd.date_range("2025-01-01", periods=80)[::-1]),
    "a nullable Series": pd.Series(Y, dtype="Float32"),
    "a frame of one column": pd.DataFrame({"y": Y}, index=range(79, -1, -1)),
    "a column": Y[:, None],
    "a list": Y.tolist(),
    "a tuple": tuple(Y.tolist()),
    "float64": Y.astype(np.float64),
    "not contiguous": spread(Y),
    "read-only": np.frombuffer(Y.tobytes(), np.float32),
    "a tensor": keras.ops.convert_to_tensor(Y),
}
SAME_WINDOWS: dict[str, Any] = {
    "a list": X.tolist(),
    "a list of arrays": list(X),
    "float64": X.astype(np.float64),
    "Fortran order": np.asfortranarray(X),
    "not contiguous": spread(X),
    "a tensor": keras.ops.convert_to_tensor(X),
}


@pytest.mark.parametrize("name", SAME_TARGETS)
def test_targets_keep_their_order(name: str) -> None:
    found = check_targets("y", SAME_TARGETS[name], len(Y))
    assert found.dtype.kind == "f"
    np.testing.assert_array_equal(found, Y)


@pytest.mark.parametrize("name", list(SAME_TARGETS)[:2])
def test_training_takes_targets_in_their_order(untrained: Predictors, name: str) -> None:
    ours, theirs = (untrained().train(X, y).history["loss"] for y in (SAME_TARGETS[name], Y))
    assert ours == theirs


@pytest.mark.parametrize("name", SAME_WINDOWS)
def test_windows_are_taken_in_their_order(shared: LSTMPricePredictor, name: str) -> None:
    np.testing.assert_array_equal(shared.predict(SAME_WINDOWS[name]), shared.predict(X))


def test_whole_numbers_are_numbers(shared: LSTMPricePredictor) -> None:
    ones = np.ones((2, 12, 3))
    for dtype in (np.int64, np.uint8, np.bool_, np.float16):
        np.testing.assert_array_equal(shared.predict(ones.astype(dtype)), shared.predict(ones))


def test_evaluation_takes_targets_in_their_order(shared: LSTMPricePredictor) -> None:
    metrics = shared.evaluate(X, Y)
    for name, same in SAME_TARGETS.items():
        assert shared.evaluate(X, same) == pytest.approx(metrics), name


NO_WINDOWS: dict[str, tuple[Any, str]] = {
    "one window": (X[0], r"must be \(n, timesteps, features\), not \(12, 3\)"),
    "a feature too many": (np.zeros((2, 12, 4)), r"takes windows of .* \(12, 3\)"),
    "a feature too few": (np.zeros((2, 12, 2)), r"takes windows of .* \(12, 3\)"),
    "a row too many": (np.zeros((2, 13, 3)), r"takes windows of .* \(12, 3\)"),
    "a row too few": (np.zeros((2, 11, 3)), r"takes windows of .* \(12, 3\)"),
    "an axis too many": (X[None], "must be"),
    "a frame": (pd.DataFrame(X[0]), "must be"),
    "a Series": (pd.Series(Y), "must be"),
    "no numbers": (np.full((2, 12, 3), "1.0"), "not numbers"),
    "objects": (X.astype(object), "not numbers"),
    "complex numbers": (X.astype(complex), "not numbers"),
    "times": (np.zeros((2, 12, 3), "datetime64[ms]"), "not numbers"),
    "nothing": (None, "not numbers"),
    "a generator": ((window for window in X), "not numbers"),
    "windows of two lengths": ([X[0], X[0, :5]], "cannot be read"),
    "an empty array of another shape": (np.zeros((0, 60, 6)), "takes windows"),
    "an empty list": ([], "must be"),
    "windows without a row": (np.zeros((3, 0, 3)), "must be"),
    "masked values": (np.ma.masked_greater(X, 0.9), "masked"),
    "NaN": (with_value(X, (7, 11, 2), np.nan), r"X\w*\[7, 11, 2\] is nan"),
    "infinity": (with_value(X, (0, 0, 0), np.inf), r"X\w*\[0, 0, 0\] is inf"),
    "more than float32 holds": (with_value(X, (79, 1, 1), -1e300), r"X\w*\[79, 1, 1\] is -1e\+300"),
    "views of another shape": (Windows(np.zeros((30, 4), np.float32), np.arange(5), 12), "takes"),
}
NO_TARGETS: dict[str, tuple[Any, str]] = {
    "one too few": (Y[:-1], r"must be \(80,\)"),
    "one too many": (np.append(Y, 1.0), r"must be \(80,\)"),
    "two columns": (np.stack([Y, Y], axis=1), r"must be \(80,\)"),
    "a row": (Y[None], r"must be \(80,\)"),
    "one number": (0.5, r"must be \(80,\)"),
    "none": (None, "missing"),
    "text": ([str(y) for y in Y], "not numbers"),
    "objects": (Y.astype(object), "not numbers"),
    "a missing number": (pd.Series([*Y[:-1], None], dtype="Float64"), "not numbers|is nan"),
    "NaN": (with_value(Y, 5, np.nan), r"y_\w+\[5\] is nan"),
    "infinity": (with_value(Y, 79, -np.inf), r"y_\w+\[79\] is -inf"),
    "more than float32 holds": (with_value(Y, 0, 1e39), r"y_\w+\[0\] is 1e\+39"),
}


@pytest.mark.parametrize("name", NO_WINDOWS)
def test_a_refused_call_leaves_a_model_as_it_was(shared: LSTMPricePredictor, name: str) -> None:
    windows, message = NO_WINDOWS[name]
    before, model = shared.predict(X), shared.model
    with pytest.raises(ValueError, match=message):
        shared.predict(windows)
    _check_unchanged(shared, model, before)
    for call in (
        lambda: shared.evaluate(windows, Y),
        lambda: shared.train(windows, Y),
        lambda: shared.train(X, Y, windows, Y),
    ):
        with pytest.raises(ValueError, match="missing|" + message):
            call()
        _check_unchanged(shared, model, before)


@pytest.mark.parametrize("name", NO_TARGETS)
def test_refused_targets_leave_a_model_as_it_was(shared: LSTMPricePredictor, name: str) -> None:
    odd, message = NO_TARGETS[name]
    before, model = shared.predict(X), shared.model
    calls: list[Callable[[], object]] = [
        lambda: shared.evaluate(X, odd),
        lambda: shared.train(X, odd),
    ]
    if odd is not None:
        calls.append(lambda: shared.train(X, Y, X, odd))
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()
        _check_unchanged(shared, model, before)


def _check_unchanged(predictor: LSTMPricePredictor, model: Any, before: Any) -> None:
    assert predictor.model is model
    assert predictor.history is None
    assert not Path("models").exists()
    np.testing.assert_array_equal(predictor.predict(X), before)
    predictor.save_model("still/saved.keras")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[:0], Y[:0]), "no window"),
        ((X, Y, X), "y_val is missing"),
        ((X, Y, None, Y), "X_val is missing"),
        ((X, Y, X[:0], Y[:0]), "no window"),
        ((X, Y, X[:, :, :2], Y), "X_val is"),
        ((X, Y, X[:, 1:], Y), "X_val is"),
        ((with_value(X, (1, 1, 1), np.nan), Y), "X_train"),
        ((X, Y, with_value(X, (1, 1, 1), np.nan), Y), "X_val"),
    ],
)
def test_refused_arguments_build_nothing(
    untrained: Predictors, arguments: tuple[Any, ...], message: str
) -> None:
    predictor = untrained()
    with pytest.raises(ValueError, match=message):
        predictor.train(*arguments)
    assert predictor.model is None
    assert not Path("models").exists()
    assert predictor.build_model((12, 3)) is predictor.model


@pytest.mark.parametrize(
    "shape", [(), (12,), (12, 3, 1), (0, 3), (12, 0), (-1, 3), (12, None), (12.5, 3), "12", 12]
)
def test_impossible_shapes_are_not_built(shared: LSTMPricePredictor, shape: Any) -> None:
    model = shared.model
    with pytest.raises(ValueError, match="input_shape must be"):
        shared.build_model(shape)
    assert shared.model is model


def test_shapes_may_be_lists_of_any_integers(untrained: Predictors) -> None:
    shape: Any = [np.int64(12), 3]
    assert untrained().build_model(shape).input_shape == (None, 12, 3)


def test_a_model_of_any_length_takes_windows_of_any_length(untrained: Predictors) -> None:
    predictor, shape = untrained(), (None, 3)
    predictor.build_model(shape)  # type: ignore[arg-type]
    assert predictor.predict(X[:, :5]).shape == predictor.predict(X).shape == (80, 1)
    with pytest.raises(ValueError, match="takes windows"):
        predictor.predict(X[:, :, :2])


class Interrupted(BaseException):
    """As a Ctrl-C is."""


@pytest.mark.parametrize("batches", [0, 1])
def test_an_interrupted_call_leaves_the_model_usable(
    built: LSTMPricePredictor, batches: int
) -> None:
    before, left = built.predict(X), [batches]

    def interrupt() -> None:
        if not left[0]:
            raise Interrupted
        left[0] -= 1

    many = np.concatenate([X] * 8)
    for call in (lambda: built.predict(many), lambda: built.evaluate(many, np.tile(Y, 8))):
        left[0], built.pause = batches, interrupt
        with pytest.raises(Interrupted):
            call()
        built.pause = lambda: None
        np.testing.assert_array_equal(built.predict(X), before)
    left[0], built.pause = batches, interrupt
    with pytest.raises(Interrupted):
        built.train(many, np.tile(Y, 8))
    built.pause = lambda: None
    assert np.isfinite(built.predict(X)).all()
    built.train(X, Y)


def test_a_batch_that_fails_leaves_the_model_usable(
    built: LSTMPricePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert built.model is not None
    before = built.predict(X)
    whole = built.model.predict_function

    def fail(*_: object) -> None:
        msg = "out of memory"
        raise RuntimeError(msg)

    monkeypatch.setattr(built.model, "predict_function", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        built.predict(X)
    built.model.predict_function = whole
    np.testing.assert_array_equal(built.predict(X), before)
