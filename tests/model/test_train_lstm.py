from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from model.core.candle import Timeframe
from model.core.errors import CandlecastError, ConfigError
from model.files.candle_csv import csv_name
from model.inference.engine import Engine
from model.registry.registry import Registry
from model.retraining.bundle_export import bundle_parts
from model.stats.scores import evaluate
from model.train_lstm import Trained, main, train
from model.training.candle_sources import read_candles, read_sources
from model.training.dataset import build_dataset

Configure = Callable[..., Path]
QUARTER = Timeframe.parse("15m")
HOLD_MS = 60 * QUARTER.ms


def write_csv(folder: Path, frame: pd.DataFrame, symbol: str = "BTC/USDT") -> Path:
    folder.mkdir(exist_ok=True)
    first, last = (int(frame["timestamp"].iloc[i]) for i in (0, -1))
    path = folder / csv_name(symbol, "15m", first, last)
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def two(all_candles: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Two symbols over the same days; the second is another stretch of the recording."""
    first = all_candles.iloc[:900].reset_index(drop=True)
    second = all_candles.iloc[5000:5900].reset_index(drop=True)
    second[["timestamp", "datetime"]] = first[["timestamp", "datetime"]]
    return {"BTC/USDT": first, "ETH/USDT": second}


def test_candles_are_read_as_written(candles: pd.DataFrame, tmp_path: Path) -> None:
    frame = read_candles(write_csv(tmp_path, candles), QUARTER)
    names = ["timestamp", "open", "high", "low", "close", "volume", "datetime"]
    assert list(frame.columns) == names
    pd.testing.assert_frame_equal(frame, candles[names], check_dtype=False)


def test_missing_periods_are_filled_as_the_daemon_does(
    candles: pd.DataFrame, tmp_path: Path
) -> None:
    holed = pd.concat([candles.iloc[:10], candles.iloc[13:20], candles.iloc[19:100]])
    frame = read_candles(write_csv(tmp_path, holed), QUARTER)
    assert len(frame) == 100
    close = candles["close"].iloc[9]
    filled = frame.iloc[10:13][["open", "high", "low", "close", "volume"]].to_numpy()
    np.testing.assert_array_equal(filled, [[close] * 4 + [0.0]] * 3)
    np.testing.assert_array_equal(frame["timestamp"], candles["timestamp"].iloc[:100])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("high", 1.0, "line 5, column high: the high 1 is below"),
        ("close", np.nan, "line 5, column close: the value is missing"),
        ("volume", -1.0, "line 5, column volume: -1 is no volume"),
        ("timestamp", 1_735_689_600_001, "line 5, .*: 2025-01-01 00:00:00.001 lies 0.001 s after"),
        ("timestamp", 4_102_444_800_000, "line 5, column timestamp: .* is not within 2009"),
        ("timestamp", -900_000, "line 5, column timestamp: .* is not within 2009"),
        ("timestamp", 9e99, "line 5, column timestamp: .* is not within 2009"),
        ("open", "dear", "line 5, column open: 'dear' is not a number"),
    ],
)
def test_impossible_candles_are_named(
    candles: pd.DataFrame, tmp_path: Path, column: str, value: Any, message: str
) -> None:
    path = write_csv(tmp_path, candles)
    frame = pd.read_csv(path).astype({column: object})
    frame[column] = [value if row == 3 else old for row, old in enumerate(frame[column])]
    frame.to_csv(path, index=False)
    with pytest.raises(CandlecastError, match=message):
        read_candles(path, QUARTER)


def test_an_unreasonably_long_span_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    rows = (f"{ms},1,1,1,1,1" for ms in (1_300_000_000_000, 4_000_000_000_000))
    path.write_text("\n".join(["timestamp,open,high,low,close,volume", *rows]), encoding="utf-8")
    with pytest.raises(CandlecastError, match="spans 2,700,000,001 candles of 1s; check"):
        read_candles(path, Timeframe.parse("1s"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a CSV of candles"),
        ("timestamp,open\n1,2\n", "lacks the columns high"),
        ("timestamp,open,high,low,close,volume\n", "holds no candle"),
    ],
)
def test_files_without_candles_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CandlecastError, match=message):
        read_candles(path, QUARTER)
    with pytest.raises(CandlecastError, match="no such file"):
        read_candles(tmp_path / "nowhere.csv", QUARTER)


def test_no_window_straddles_a_cut(configure: Configure, two: dict[str, pd.DataFrame]) -> None:
    dataset = build_dataset(configure(), two)
    first = int(two["BTC/USDT"]["timestamp"].iloc[0])
    validation_from = first + 630 * QUARTER.ms
    test_from = first + 765 * QUARTER.ms
    assert dataset.test_from_ms == test_from
    assert dataset.train.open_ms.max() == validation_from - QUARTER.ms
    # A window of 60 candles before the first target lies wholly inside its own part.
    assert dataset.validation.open_ms.min() == validation_from + HOLD_MS
    assert dataset.validation.open_ms.max() == test_from - QUARTER.ms
    assert dataset.test.open_ms.min() == test_from + HOLD_MS
    assert dataset.test.open_ms.max() == int(two["BTC/USDT"]["timestamp"].iloc[-1])
    for part in (dataset.train, dataset.validation, dataset.test):
        assert len({len(array) for array in part}) == 1
        assert set(part.symbol.tolist()) == {0, 1}


def test_each_symbol_has_its_own_scaler(configure: Configure, two: dict[str, pd.DataFrame]) -> None:
    dataset = build_dataset(configure(), two)
    for symbol, frame in two.items():
        scaler = dataset.scalers.by_symbol[symbol]
        close = frame["close"].iloc[33 : int(900 * 0.7)]
        assert scaler.feature_max[0] == close.max()
        assert scaler.feature_min[0] == close.min()
        assert scaler.target_scale == pytest.approx(close.max() - close.min())


def test_samples_carry_their_prices(configure: Configure, two: dict[str, pd.DataFrame]) -> None:
    dataset = build_dataset(configure(target="log_return"), two)
    test, frame = dataset.test, two["ETH/USDT"].set_index("timestamp")
    ours = test.symbol == 1
    np.testing.assert_array_equal(test.close[ours], frame.loc[test.open_ms[ours], "close"])
    before = test.open_ms[ours] - QUARTER.ms
    np.testing.assert_array_equal(test.last_close[ours], frame.loc[before, "close"])
    scale = dataset.scalers.by_symbol["ETH/USDT"].target_scale
    returns = np.log(test.close[ours] / test.last_close[ours])
    np.testing.assert_allclose(test.y[ours] * scale, returns, rtol=1e-5, atol=1e-9)


def test_the_hash_is_of_the_candles(configure: Configure, two: dict[str, pd.DataFrame]) -> None:
    sha256 = build_dataset(configure(), two).sha256
    assert build_dataset(configure(epochs=9), dict(reversed(two.items()))).sha256 == sha256
    two["BTC/USDT"].loc[5, "volume"] = 1.0
    assert build_dataset(configure(), two).sha256 != sha256


def test_too_few_candles_are_refused(configure: Configure, two: dict[str, pd.DataFrame]) -> None:
    two["ETH/USDT"] = two["ETH/USDT"].iloc[:800]
    with pytest.raises(CandlecastError, match=r"ETH/USDT: too few candles for one test sample"):
        build_dataset(configure(), two)
    with pytest.raises(CandlecastError, match=r"BTC/USDT: .*few"):
        build_dataset(configure(), {"BTC/USDT": two["BTC/USDT"].iloc[:50]})
    with pytest.raises(ConfigError, match="no candles"):
        build_dataset(configure(), {})


@pytest.fixture(scope="module")
def trained_twice(
    all_candles: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[Path, Trained]]:
    frame = all_candles.iloc[:900].reset_index(drop=True)
    model = {"lstm_units": [8, 4], "epochs": 2, "batch_size": 64}
    runs = []
    for number in range(2):
        folder = tmp_path_factory.mktemp(f"run{number}")
        (folder / "config.yaml").write_text(yaml.safe_dump({"model": model}), encoding="utf-8")
        trained = train(
            folder / "config.yaml",
            {"BTC/USDT": frame},
            QUARTER,
            models=folder / "models",
            data=folder / "data",
        )
        runs.append((folder, trained))
    return runs


def test_training_is_reproducible(trained_twice: list[tuple[Path, Trained]]) -> None:
    (_, first), (_, second) = trained_twice
    for one, other in zip(first.weights.layers, second.weights.layers, strict=True):
        for ours, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(first.test.predicted, second.test.predicted)
    assert first.metrics == second.metrics
    assert first.data_sha256 == second.data_sha256


def test_training_writes_the_files_it_reports(trained_twice: list[tuple[Path, Trained]]) -> None:
    folder, trained = trained_twice[0]
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {
        "config.yaml",
        "data/predictions.csv",
        "models/checkpoints/best_model.keras",
        "models/lstm_model.keras",
        "models/scaler.json",
        "models/scaler.pkl",
        "models/training_history.png",
    }
    predictions = pd.read_csv(folder / "data" / "predictions.csv", parse_dates=["datetime"])
    assert list(predictions.columns) == ["actual", "predicted", "datetime"]
    times = pd.to_datetime(trained.test.open_ms, unit="ms")
    np.testing.assert_array_equal(predictions["datetime"], times)
    scaler = trained.scalers.by_symbol["BTC/USDT"]
    returns = np.log(trained.test.close / trained.test.last_close)
    np.testing.assert_allclose(
        predictions["actual"] * scaler.target_scale, returns, rtol=1e-4, atol=1e-9
    )
    forecast = trained.test.last_close * np.exp(predictions["predicted"] * scaler.target_scale)
    np.testing.assert_allclose(forecast, trained.test.predicted, rtol=1e-6)


def test_metrics_compare_with_the_last_value(trained_twice: list[tuple[Path, Trained]]) -> None:
    trained = trained_twice[0][1]
    overall = evaluate(trained.test)
    assert trained.metrics["mae_ratio"] == overall.mae_ratio.value
    validation = evaluate(trained.validation)
    assert trained.metrics["validation_mae_ratio"] == validation.mae_ratio.value
    assert {"mse", "mae", "rmse"} < trained.metrics.keys()
    assert "direction_accuracy" not in trained.metrics
    assert trained.trained_to_ms < trained.test.open_ms.min()
    assert trained.validation.open_ms.max() == trained.trained_to_ms


def test_a_trained_network_is_served_from_its_bundle(
    trained_twice: list[tuple[Path, Trained]], tmp_path: Path, all_candles: pd.DataFrame
) -> None:
    folder, trained = trained_twice[0]
    registry = Registry(tmp_path / "registry")
    registry.promote(registry.write(bundle_parts(trained, folder / "models", 1_764_000_000_000)))
    bundle = registry.open(registry.champion())
    assert bundle.manifest.target == "log_return"
    assert bundle.manifest.symbols == ("BTC/USDT",)
    assert bundle.residuals == trained.residuals
    assert len(bundle.residuals.season) == 4
    dataset = build_dataset(
        folder / "config.yaml", {"BTC/USDT": all_candles.iloc[:900].reset_index(drop=True)}
    )
    windows = dataset.test.X[:]
    engine = Engine(bundle.onnx, 1, trained.lookback, windows.shape[2])
    raw = engine.full(windows)
    value = bundle.scalers.bind(["BTC/USDT"]).unscale_target(dataset.test.symbol, raw)
    served = dataset.test.last_close * np.exp(value)
    np.testing.assert_allclose(served, trained.test.predicted, rtol=1e-7)


def test_a_training_that_diverges_is_no_model(
    configure: Configure, two: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    models = tmp_path / "models"
    config = configure(target="log_return", epochs=1, learning_rate=1e38, dropout_rate=0.0)
    with pytest.raises(CandlecastError, match="training has diverged"):
        train(config, {"BTC/USDT": two["BTC/USDT"]}, QUARTER, models=models, data=tmp_path / "data")
    assert not (models / "lstm_model.keras").exists()


def test_several_symbols_train_one_network(
    configure: Configure,
    two: dict[str, pd.DataFrame],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "scaler.pkl").write_bytes(b"of an earlier training")
    trained = train(
        configure(target="log_return", epochs=1),
        two,
        QUARTER,
        models=tmp_path / "models",
        data=tmp_path / "data",
    )
    assert trained.symbols == tuple(trained.scalers.by_symbol) == ("BTC/USDT", "ETH/USDT")
    predictions = pd.read_csv(tmp_path / "data" / "predictions.csv")
    assert list(predictions.columns) == ["actual", "predicted", "datetime", "symbol"]
    assert predictions["symbol"].value_counts().to_dict() == {"BTC/USDT": 75, "ETH/USDT": 75}
    # It holds one symbol, so that of an earlier training must not stay beside this network.
    assert not (tmp_path / "models" / "scaler.pkl").exists()
    shown = capsys.readouterr().out
    for start in ("Data split:", "Epoch 1/1 ... loss:", "BTC/USDT: mae", "all: mae"):
        assert any(line.startswith(start) for line in shown.splitlines()), start


def test_sources_are_known_by_their_names(candles: pd.DataFrame, tmp_path: Path) -> None:
    btc = write_csv(tmp_path, candles)
    swap = write_csv(tmp_path, candles, "BTC/USDT:USDT")
    read, timeframe = read_sources([btc, swap])
    assert list(read) == ["BTC/USDT", "BTC/USDT:USDT"]
    assert timeframe == QUARTER
    other = tmp_path / "candles.csv"
    other.write_bytes(btc.read_bytes())
    with pytest.raises(ConfigError, match="the name does not follow"):
        read_sources([other])
    with pytest.raises(ConfigError, match="second file of BTC/USDT"):
        read_sources([btc, btc])
    hourly = tmp_path / btc.name.replace("15m", "5m").replace("BTC", "ETH")
    hourly.write_bytes(btc.read_bytes())
    with pytest.raises(ConfigError, match="different timeframes: 15m, 5m"):
        read_sources([btc, hourly])


@pytest.mark.parametrize("module", ["model.train_lstm", "model.lstm_model"])
def test_scripts_train_on_the_newest_file(
    repository: Path, candles: pd.DataFrame, tmp_path: Path, module: str
) -> None:
    write_csv(tmp_path / "data", candles)
    (tmp_path / "config").mkdir()
    model = {"target": "close", "lookback_periods": 20, "lstm_units": [4], "epochs": 1}
    (tmp_path / "config" / "config.yaml").write_text(yaml.safe_dump({"model": model}))
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    expected = [
        "Loading and preprocessing data...",
        "Data split:",
        "Model Architecture:",
        "Training model for up to 1 epochs...",
        "=== Test Set Performance ===",
        "Evaluation Metrics:",
        "Training history plot saved to models/training_history.png",
        "Model saved to models/lstm_model.keras",
        "Predictions saved to data/predictions.csv",
        "=== Training Complete ===",
    ]
    assert [line for line in lines if line in expected] == expected
    assert (tmp_path / "data" / "predictions.csv").is_file()
    # Prediction files beside the candles are not read as candles.
    assert main(["--data", str(tmp_path / "data" / "predictions.csv")]) == 1


def test_scripts_report_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    candles: pd.DataFrame,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2
    assert "candlecast fetch" in capsys.readouterr().err
    assert main(["--data", str(write_csv(tmp_path / "data", candles))]) == 2
    assert "no configuration file at config/config.yaml" in capsys.readouterr().err
