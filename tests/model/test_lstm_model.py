from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from model.core.errors import ConfigError
from model.lstm_model import LSTMPricePredictor

Configure = Callable[..., Path]
Floats = NDArray[np.float32]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def waves(n: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Windows of a noisy sine and the value that follows each."""
    rng = np.random.default_rng(seed)
    series = 0.5 + 0.4 * np.sin(np.arange(n + 12) / 5) + rng.normal(0, 0.01, n + 12)
    windows = np.lib.stride_tricks.sliding_window_view(series, 12)[:n, :, None]
    return windows.astype(np.float32), series[12 : n + 12].astype(np.float32)


def weights_of(model: Any) -> list[Floats]:
    return [np.array(w) for w in model.get_weights()]


def test_default_network_has_the_reference_parameters(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = LSTMPricePredictor(str(repository / "config" / "config.yaml"))
    assert predictor.model is None
    assert predictor.history is None
    assert predictor.config["model"]["lstm_units"] == [64, 32]
    model = predictor.build_model(input_shape=(60, 6))
    assert predictor.model is model
    assert isinstance(model, keras.Sequential)
    kinds = ["LSTM", "Dropout", "LSTM", "Dropout", "Dense"]
    assert [type(layer).__name__ for layer in model.layers] == kinds
    counts = [layer.count_params() for layer in model.layers if layer.weights]
    assert counts == [18_176, 12_416, 33]
    assert model.count_params() == 30_625
    assert [layer.rate for layer in model.layers if hasattr(layer, "rate")] == [0.2, 0.2]
    assert model.input_shape == (None, 60, 6)
    assert model.output_shape == (None, 1)
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.001)
    assert "30,625" in capsys.readouterr().out


@pytest.mark.parametrize("units", [[5], [6, 5, 4]])
def test_any_number_of_layers(configure: Configure, units: list[int]) -> None:
    predictor = LSTMPricePredictor(configure())
    predictor.config["model"]["lstm_units"] = units
    model = predictor.build_model((12, 3))
    recurrent = [layer for layer in model.layers if isinstance(layer, keras.layers.LSTM)]
    assert [layer.units for layer in recurrent] == units
    returned = [layer.return_sequences for layer in recurrent]
    assert returned == [True] * (len(units) - 1) + [False]


def test_no_layers_is_refused(configure: Configure) -> None:
    with pytest.raises(ConfigError, match="lstm_units"):
        LSTMPricePredictor(configure(lstm_units=[])).build_model((12, 3))


@pytest.mark.parametrize(
    ("settings", "loss"),
    [
        ({"target": "close"}, "mse"),
        ({"target": "log_return"}, "mae"),
        ({"target": "log_return", "loss": "mse"}, "mse"),
    ],
)
def test_loss_follows_the_target(configure: Configure, settings: dict[str, str], loss: str) -> None:
    assert LSTMPricePredictor(configure(**settings)).build_model((12, 1)).loss == loss


@pytest.mark.parametrize(("validated", "monitor"), [(True, "val_loss"), (False, "loss")])
def test_training_callbacks(configure: Configure, monitor: str, *, validated: bool) -> None:
    predictor = LSTMPricePredictor(configure(epochs=1))
    X, y = waves(64)
    history: Any = predictor.train(X, y, X, y) if validated else predictor.train(X, y)
    assert ("val_loss" in history.history) == validated
    assert predictor.history is history
    used = {type(c).__name__: c for c in predictor.callbacks(monitor)}
    stopping = used["EarlyStopping"]
    assert (stopping.monitor, stopping.patience) == (monitor, 10)
    assert stopping.restore_best_weights
    plateau = used["ReduceLROnPlateau"]
    assert (plateau.monitor, plateau.factor, plateau.patience) == (monitor, 0.5, 5)
    assert plateau.min_lr == 1e-7
    checkpoint = used["ModelCheckpoint"]
    assert (checkpoint.monitor, checkpoint.save_best_only) == (monitor, True)
    assert checkpoint.filepath == "models/checkpoints/best_model.keras"


def test_training_keeps_the_best_weights(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = LSTMPricePredictor(configure(epochs=40, learning_rate=0.05, dropout_rate=0.0))
    X, y = waves(128)
    # Validation that contradicts the training: what is learned makes it worse from the start.
    X_val, y_val = waves(64, seed=1)
    history: dict[str, list[float]] = predictor.train(X, y, X_val, 1.0 - y_val).history
    best = int(np.argmin(history["val_loss"]))
    assert len(history["val_loss"]) == best + 1 + 10
    rates = history["learning_rate"]
    assert rates[best + 5] == pytest.approx(0.05)
    assert rates[best + 6] == pytest.approx(0.025)
    assert predictor.model is not None
    again = predictor.model.evaluate(X_val, 1.0 - y_val, verbose=0)[0]
    assert again == pytest.approx(history["val_loss"][best], rel=1e-4)
    checkpoint = keras.saving.load_model("models/checkpoints/best_model.keras")
    for ours, saved in zip(weights_of(predictor.model), weights_of(checkpoint), strict=True):
        np.testing.assert_array_equal(ours, saved)
    assert "Training model for up to 40 epochs..." in capsys.readouterr().out


def test_training_learns(configure: Configure) -> None:
    predictor = LSTMPricePredictor(configure(epochs=15, learning_rate=0.02, batch_size=32))
    X, y = waves(400)
    losses = predictor.train(X[:300], y[:300], X[300:], y[300:]).history["val_loss"]
    assert min(losses) < 0.25 * float(np.var(y[300:]))


def test_the_same_seed_gives_the_same_weights(configure: Configure) -> None:
    X, y = waves(128)
    networks = []
    for seed in (3, 3, 4):
        predictor = LSTMPricePredictor(configure(seed=seed))
        predictor.train(X, y, X[:32], y[:32])
        networks.append(weights_of(predictor.model))
    for first, second in zip(networks[0], networks[1], strict=True):
        np.testing.assert_array_equal(first, second)
    assert any((a != b).any() for a, b in zip(networks[0], networks[2], strict=True))


def test_nothing_works_before_training(configure: Configure) -> None:
    predictor = LSTMPricePredictor(configure())
    X, y = waves(8)
    for call in (
        lambda: predictor.predict(X),
        lambda: predictor.evaluate(X, y),
        lambda: predictor.save_model("model.keras"),
        predictor.lstm_weights,
    ):
        with pytest.raises(ValueError, match=r"train\(\) or load_model\(\)"):
            call()
    predictor.plot_training_history("plot.png")
    assert not Path("plot.png").exists()


@pytest.mark.parametrize(
    ("x_shape", "y_shape"), [((8, 12), (8,)), ((8, 12, 1), (7,)), ((0, 12, 1), (0,))]
)
def test_shapes_that_do_not_fit(
    configure: Configure, x_shape: tuple[int, ...], y_shape: tuple[int, ...]
) -> None:
    predictor = LSTMPricePredictor(configure())
    with pytest.raises(ValueError, match=r"X_train|y_train"):
        predictor.train(np.zeros(x_shape), np.zeros(y_shape))


def test_metrics_are_those_of_the_predictions(
    configure: Configure, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    predictor = LSTMPricePredictor(configure(features=["close"]))
    predictor.build_model((12, 1))
    X, y = waves(50)
    predictions = predictor.predict(X)
    assert predictions.shape == (50, 1)
    assert predictions.dtype == np.float32
    capsys.readouterr()
    metrics = predictor.evaluate(X, y)
    error = predictions[:, 0].astype(np.float64) - y
    same = np.sign(np.diff(y)) == np.sign(np.diff(predictions[:, 0]))
    assert metrics == pytest.approx(
        {
            "mse": np.mean(error**2),
            "mae": np.mean(np.abs(error)),
            "rmse": np.sqrt(np.mean(error**2)),
            "direction_accuracy": np.mean(same),
        }
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Evaluation Metrics:"
    assert lines[1:5] == [f"{name}: {value:.6f}" for name, value in metrics.items()]
    last = float(np.mean(np.abs(X[:, -1, 0] - y)))
    assert f"last-value forecast: {last:.6f}" in lines[5]
    assert f"{metrics['mae'] / last:.4f}" in lines[5]
    assert not caplog.records


def test_evaluation_of_returns_is_explained(
    configure: Configure, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    predictor = LSTMPricePredictor(configure(target="log_return"))
    predictor.build_model((12, 6))
    y = np.array([0.5, -0.5, 0.25], dtype=np.float32)
    assert "direction_accuracy" in predictor.evaluate(np.zeros((3, 12, 6)), y)
    shown = capsys.readouterr().out
    assert "last-value forecast: 0.416667" in shown
    assert "direction_accuracy" not in shown
    assert "worthless" in caplog.text


def test_history_plot(configure: Configure) -> None:
    predictor = LSTMPricePredictor(configure())
    X, y = waves(64)
    predictor.train(X, y, X, y)
    predictor.plot_training_history("results/training_history.png")
    plot = Path("results/training_history.png").read_bytes()
    assert plot[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(plot[i : i + 4], "big") for i in (16, 20))
    assert width > 2 * height


def test_saved_model_predicts_the_same_and_trains_on(configure: Configure) -> None:
    predictor = LSTMPricePredictor(configure())
    X, y = waves(64)
    predictor.train(X, y)
    predictor.save_model("new/folder/model.keras")
    loaded = LSTMPricePredictor(configure())
    loaded.load_model("new/folder/model.keras")
    np.testing.assert_array_equal(loaded.predict(X), predictor.predict(X))
    assert loaded.predict(X[:0]).shape == (0, 1)
    assert loaded.model is not None
    assert predictor.model is not None
    assert int(loaded.model.optimizer.iterations) == int(predictor.model.optimizer.iterations)
    loaded.train(X, y)
    assert (loaded.predict(X) != predictor.predict(X)).any()


def test_missing_model_file(configure: Configure) -> None:
    with pytest.raises(OSError, match=r"nowhere\.keras"):
        LSTMPricePredictor(configure()).load_model("nowhere.keras")


def saved(model: Any) -> bytes:
    model.save("plain.keras")
    return Path("plain.keras").read_bytes()


def rewritten(content: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The `.keras` file with another `config.json`."""
    source, target = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json":
                config = json.loads(data)
                change(config)
                data = json.dumps(config).encode()
            archive.writestr(name, data)
    return target.getvalue()


def plain_model() -> Any:
    return keras.Sequential([keras.Input((12, 1)), keras.layers.LSTM(3), keras.layers.Dense(1)])


def test_corrupt_model_files(configure: Configure) -> None:
    predictor = LSTMPricePredictor(configure())
    content = saved(plain_model())
    for damaged in (b"", b"PK", content[:-200], rewritten(content, dict.clear)):
        Path("model.keras").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model\.keras"):
            predictor.load_model("model.keras")
        assert predictor.model is None


@pytest.mark.parametrize("name", ["model.h5", "model.pkl", "model"])
def test_other_formats_are_not_opened(configure: Configure, name: str) -> None:
    Path(name).write_bytes(saved(plain_model()))
    with pytest.raises(ValueError, match=r"not a \.keras file"):
        LSTMPricePredictor(configure()).load_model(name)


def test_models_with_code_are_refused(configure: Configure) -> None:
    layers = keras.layers
    lambda_model = keras.Sequential([keras.Input((12, 1)), layers.Lambda(lambda x: x + 1)])
    Path("model.keras").write_bytes(saved(lambda_model))
    with pytest.raises(ValueError, match=r"keras\.layers\.Lambda"):
        LSTMPricePredictor(configure()).load_model("model.keras")


def test_models_that_name_functions_or_foreign_classes_are_refused(configure: Configure) -> None:
    content = saved(plain_model())

    def activation(config: dict[str, Any]) -> None:
        config["config"]["layers"][2]["config"]["activation"] = {
            "module": "os",
            "class_name": "function",
            "config": "system",
            "registered_name": "function",
        }

    def foreign(config: dict[str, Any]) -> None:
        config["config"]["layers"][2]["module"] = "subprocess"

    def registered(config: dict[str, Any]) -> None:
        config["config"]["layers"][2]["registered_name"] = "mine>Dense"

    def loss(config: dict[str, Any]) -> None:
        config["compile_config"] = {
            "loss": {"module": "builtins", "class_name": "function", "config": "eval"}
        }

    for change in (activation, foreign, registered, loss):
        Path("model.keras").write_bytes(rewritten(content, change))
        with pytest.raises(ValueError, match="it names"):
            LSTMPricePredictor(configure()).load_model("model.keras")


def test_a_model_with_more_in_the_file_is_refused(configure: Configure) -> None:
    Path("model.keras").write_bytes(saved(plain_model()))
    with zipfile.ZipFile("model.keras", "a") as archive:
        archive.writestr("assets/run.py", "print(1)")
    with pytest.raises(ValueError, match="nothing else"):
        LSTMPricePredictor(configure()).load_model("model.keras")


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-x))


def test_exported_weights_compute_what_keras_computes(configure: Configure) -> None:
    predictor = LSTMPricePredictor(configure(lstm_units=[5, 4]))
    predictor.build_model((12, 1))
    X, _ = waves(6)
    weights = predictor.lstm_weights()
    sequence = X.astype(np.float64)
    for layer in weights.layers:
        h = c = np.zeros((len(X), layer.recurrent.shape[0]))
        outputs = []
        for t in range(sequence.shape[1]):
            gates = sequence[:, t] @ layer.kernel + h @ layer.recurrent + layer.bias
            i, f, g, o = np.split(gates, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            outputs.append(h)
        sequence = np.stack(outputs, axis=1)
    by_hand = sequence[:, -1] @ weights.dense_kernel + weights.dense_bias
    np.testing.assert_allclose(predictor.predict(X), by_hand, atol=1e-6)


def test_only_plain_networks_are_exported(configure: Configure) -> None:
    predictor = LSTMPricePredictor(configure())
    layers, start = keras.layers, keras.Input((12, 1))
    for network in (
        [start, layers.LSTM(3), layers.Dense(2)],
        [start, layers.LSTM(3), layers.Dense(1, activation="relu")],
        [start, layers.LSTM(3, activation="relu"), layers.Dense(1)],
        [start, layers.LSTM(3, go_backwards=True), layers.Dense(1)],
        [start, layers.Flatten(), layers.Dense(1)],
        [start, layers.Dense(3), layers.LSTM(3), layers.Dense(1)],
    ):
        predictor.model = keras.Sequential(network)
        with pytest.raises(ValueError, match="can be exported"):
            predictor.lstm_weights()


def test_importing_the_model_module_does_not_import_keras(repository: Path) -> None:
    code = (
        "import sys, model.lstm_model, model.preprocess; "
        "print(sorted(sys.modules.keys() & {'keras', 'tensorflow', 'pandas', 'sklearn', 'talib'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_it_may_pause_after_every_batch(configure: Configure) -> None:
    predictor = LSTMPricePredictor(configure(epochs=2, batch_size=32, lstm_units=[2]))
    pauses: list[None] = []
    predictor.pause = lambda: pauses.append(None)
    x, y = waves(70)
    more, wanted = waves(300)
    predictor.train(x, y, more, wanted)
    # 70 windows in batches of 32, 300 in batches of 256, both of them twice.
    assert len(pauses) == 2 * (3 + 2)
    predictor.predict(more)
    assert len(pauses) == 12
