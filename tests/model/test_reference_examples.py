"""Test every example of the reference interface on real candles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from model.files.candle_csv import csv_name
from model.lstm_model import LSTMPricePredictor
from model.preprocess import DataPreprocessor
from model.train_lstm import main


def write_config(target: str) -> None:
    settings = {"model": {"target": target, "epochs": 1, "batch_size": 128}}
    Path("config/config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


@pytest.fixture(autouse=True)
def _project_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, candles: pd.DataFrame) -> None:
    """A folder as the examples expect it: `config/config.yaml` and candles in `data/`."""
    monkeypatch.chdir(tmp_path)
    for folder in ("config", "data"):
        (tmp_path / folder).mkdir()
    write_config("close")
    DataPreprocessor().add_technical_indicators(candles).to_csv(
        "data/processed_data.csv", index=False
    )
    candles.iloc[-200:].to_csv("data/new_data.csv", index=False)


def test_constructor() -> None:
    model = LSTMPricePredictor("config/config.yaml")
    assert model.config["model"]["lstm_units"] == [64, 32]


def test_build_model(capsys: pytest.CaptureFixture[str]) -> None:
    model_obj = LSTMPricePredictor()
    model = model_obj.build_model(input_shape=(60, 6))
    model.summary()
    summary = capsys.readouterr().out.replace(",", "")
    shown = [
        "lstm (LSTM)",
        "dropout_1 (Dropout)",
        "dense (Dense)",
        "18176",
        "12416",
        "Total params: 30625",
    ]
    for text in shown:
        assert summary.count(text) == 2, text


@pytest.mark.parametrize("target", ["close", "log_return"])
def test_complete_pipeline_and_loading(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_config(target)
    df = pd.read_csv("data/processed_data.csv")
    df["datetime"] = pd.to_datetime(df["datetime"])

    preprocessor = DataPreprocessor()
    X, y, indices = preprocessor.create_sequences(df, lookback=60)

    train_size = int(len(X) * 0.7)
    val_size = int(len(X) * 0.15)
    X_train, y_train = X[:train_size], y[:train_size]
    X_val = X[train_size : train_size + val_size]
    y_val = y[train_size : train_size + val_size]
    X_test, y_test = X[train_size + val_size :], y[train_size + val_size :]

    model = LSTMPricePredictor()
    history = model.train(X_train, y_train, X_val, y_val)
    assert len(history.history["loss"]) == len(history.history["val_loss"]) == 1
    assert Path("models/checkpoints/best_model.keras").is_file()

    metrics = model.evaluate(X_test, y_test)
    assert set(metrics) == {"mse", "mae", "rmse", "direction_accuracy"}
    assert metrics["rmse"] == pytest.approx(metrics["mse"] ** 0.5)
    assert 0.0 <= metrics["direction_accuracy"] <= 1.0

    model.save_model()
    model.plot_training_history()
    model.plot_training_history("results/training_history.png")
    model.save_model("models/lstm_model_20240125.keras")
    for left in ("models/lstm_model.keras", "models/training_history.png"):
        assert Path(left).is_file()
    assert Path("results/training_history.png").read_bytes().startswith(b"\x89PNG")

    test_predictions = model.predict(X_test)
    assert test_predictions.shape == (len(X_test), 1)
    results_df = pd.DataFrame(
        {
            "actual": y_test,
            "predicted": test_predictions.flatten(),
            "datetime": df["datetime"].iloc[indices[train_size + val_size :]],
        }
    )
    results_df.to_csv("data/predictions.csv", index=False)
    assert results_df["datetime"].iloc[-1] == df["datetime"].iloc[-1]
    if target == "close":
        low, high = (getattr(df["close"][33 : int(len(df) * 0.7)], f)() for f in ("min", "max"))
        np.testing.assert_allclose(y, (df["close"].iloc[indices] - low) / (high - low), atol=1e-6)

    preprocessor.save_scaler("models/scaler.pkl")
    _load_and_use(X_test, test_predictions)
    assert "Training model for up to 1 epochs..." in capsys.readouterr().out


def _load_and_use(X_test: np.ndarray, expected: np.ndarray) -> None:
    model = LSTMPricePredictor()
    model.load_model("models/lstm_model.keras")
    np.testing.assert_array_equal(model.predict(X_test), expected)

    new_df = pd.read_csv("data/new_data.csv")
    preprocessor = DataPreprocessor()
    preprocessor.load_scaler("models/scaler.pkl")
    X_new, _y_new, indices = preprocessor.create_sequences(new_df, lookback=60)

    predictions = model.predict(X_new)
    assert predictions.shape == (len(X_new), 1)
    assert np.isfinite(predictions).all()
    assert indices[-1] == len(new_df) - 1


@pytest.mark.parametrize("target", ["close", "log_return"])
def test_loading_after_the_training_script(target: str, candles: pd.DataFrame) -> None:
    write_config(target)
    first, last = (int(candles["timestamp"].iloc[i]) for i in (0, -1))
    candles.to_csv(Path("data") / csv_name("BTC/USDT", "15m", first, last), index=False)
    assert main(["--data", *map(str, Path("data").glob("BTC*"))]) == 0

    model = LSTMPricePredictor()
    model.load_model("models/lstm_model.keras")

    new_df = pd.read_csv("data/new_data.csv")
    preprocessor = DataPreprocessor()
    preprocessor.load_scaler("models/scaler.pkl")

    X_new, _y_new, _indices = preprocessor.create_sequences(new_df, lookback=60)

    predictions = model.predict(X_new)
    assert predictions.shape == (len(X_new), 1)
    assert np.isfinite(predictions).all()
    # The scaler is the training's: fitted on these rows, it would be another one.
    fitted = DataPreprocessor()
    fitted.create_sequences(candles)
    train_rows = preprocessor.symbol_scaler()
    np.testing.assert_array_equal(train_rows.feature_max, fitted.symbol_scaler().feature_max)
    assert train_rows.target_scale == fitted.symbol_scaler().target_scale


def test_custom_architecture(candles: pd.DataFrame) -> None:
    X, y, _ = DataPreprocessor().create_sequences(candles, lookback=60)
    model = LSTMPricePredictor()
    model.config["model"]["lstm_units"] = [16, 8, 4]
    model.config["model"]["dropout_rate"] = 0.3
    model.config["model"]["learning_rate"] = 0.0005

    built = model.build_model(input_shape=(60, 6))
    history = model.train(X[:200], y[:200], X[200:300], y[200:300])
    assert history.history["learning_rate"] == pytest.approx([0.0005])
    rates = [layer.rate for layer in built.layers if type(layer).__name__ == "Dropout"]
    assert rates == [0.3] * 3
    assert model.model is built
