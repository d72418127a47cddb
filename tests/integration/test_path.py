"""Test the whole path over real sockets: one forecast per candle, equal to the model class."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
import talib

from daemon.sandbox.recording import Playback
from model.lstm_model import LSTMPricePredictor
from model.registry.registry import Registry
from tests.integration.harness import (
    HISTORY,
    SECOND,
    candles_without_forecast,
    counted_without_forecast,
    daemon,
    frame,
    longest_run,
    playback_of,
    predictions,
    promote_model,
    sections,
    until_offline,
    write_config,
)
from tests.support.servers import free_port, mosquitto, mosquitto_sub, sandbox_process

SYMBOLS = 20
IN_A_ROW = 8
"""Candles of each symbol that are forecast without a gap."""


def independent_features(candles: pd.DataFrame, names: list[str]) -> np.ndarray[Any, Any]:
    """Compute the features from TA-Lib and pandas alone."""
    close, volume = candles["close"], candles["volume"]
    upper, middle, lower = talib.BBANDS(close.to_numpy(), 20, 2.0, 2.0)
    macd, _, _ = talib.MACD(close.to_numpy(), 12, 26, 9)
    volume_sma = volume.rolling(20).mean()
    columns = {
        "close": close,
        "volume": volume,
        "rsi_14": talib.RSI(close.to_numpy(), 14),
        "macd": macd,
        "bb_upper": upper,
        "bb_lower": lower,
        "log_return": np.log(close / close.shift()),
        "hl_range": (candles["high"] - candles["low"]) / close,
        "bb_position": (close - middle) / (upper - lower),
        "macd_rel": macd / close,
        "log_volume_ratio": np.log1p(volume / volume_sma),
    }
    missing = set(names) - set(columns)
    assert not missing, f"write down independently what {missing} mean"
    return np.column_stack([np.asarray(columns[name], dtype=np.float64) for name in names])


def expected(
    predictor: LSTMPricePredictor,
    state: Path,
    playback: Playback,
    symbol: str,
    closes_ms: list[int],
) -> dict[int, tuple[float, float]]:
    """Raw output and price for each closing time, from windows rebuilt without the product."""
    registry = Registry(state / "registry")
    folder = registry.open(registry.champion()).path
    scaler_file = json.loads((folder / "scaler.json").read_text())
    scaler = scaler_file["symbols"][symbol]
    candles = frame(playback, symbol, max(closes_ms))
    features = independent_features(candles, scaler_file["features"])
    low, high = (np.array(scaler[key]) for key in ("feature_min", "feature_max"))
    scaled = ((features - low) / (high - low)).astype(np.float32)
    ends = [(close_ms - playback.origin_ms) // SECOND.ms for close_ms in closes_ms]
    windows = np.stack([scaled[end - 60 : end] for end in ends])
    raw = predictor.predict(windows)[:, 0]
    value = raw.astype(np.float64) * scaler["target_scale"] + scaler["target_offset"]
    last = candles["close"].to_numpy()[[end - 1 for end in ends]]
    price = value if scaler_file["target"] == "close" else last * np.exp(value)
    return dict(zip(closes_ms, zip(raw.tolist(), price.tolist(), strict=True), strict=True))


@pytest.mark.parametrize("target", ["log_return", "close"])
def test_every_published_forecast_is_what_the_model_class_predicts(
    target: str, tmp_path: Path, repository: Path
) -> None:
    http_port = free_port()
    with (
        sandbox_process("--symbols", str(SYMBOLS), "--history", str(HISTORY)) as exchange,
        mosquitto(tmp_path) as broker,
        mosquitto_sub(broker.port, "candlecast/#") as subscriber,
    ):
        playback = playback_of(exchange)
        config = write_config(
            tmp_path, sections(exchange, broker.port, http_port, model={"target": target})
        )
        predictor = promote_model(config, playback)
        with daemon(config, http_port) as running:
            running.wait_ready()
            messages: list[dict[str, Any]] = []

            def enough() -> bool:
                messages.extend(subscriber.received())
                numbers = defaultdict(set)
                for forecast in predictions(messages):
                    numbers[forecast["symbol"]].add(forecast["seq"])
                runs = [longest_run(numbers[symbol]) for symbol in playback.symbols]
                return min(runs) >= IN_A_ROW

            running.until(enough)
            assert running.get("/healthz")[0] == 200
            metrics = running.get("/metrics")[1]
            # A stalled machine misses forecasts; each of them is counted.
            missing = candles_without_forecast(predictions(messages))
            assert missing <= counted_without_forecast(metrics)
            assert running.stop() == 0, running.log
            assert "Traceback" not in running.log
        messages += until_offline(subscriber)

    prediction_schema, status_schema = (
        jsonschema.Draft202012Validator(
            json.loads((repository / "docs" / f"{name}.schema.json").read_text())
        )
        for name in ("prediction", "status")
    )
    seen: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for prediction in predictions(messages):
        prediction_schema.validate(prediction)
        closes = seen[prediction["symbol"]]
        # A retained message may arrive twice, but only unchanged.
        assert closes.setdefault(prediction["candle_close_ms"], prediction) == prediction
        assert prediction["published_ms"] >= prediction["candle_close_ms"]

    assert set(seen) == set(playback.symbols)
    for symbol, closes in seen.items():
        times = sorted(closes)
        truth = expected(predictor, tmp_path / "state", playback, symbol, times)
        for close_ms, prediction in closes.items():
            raw, price = truth[close_ms]
            assert prediction["last_close"] == playback.candle(symbol, close_ms - SECOND.ms).close
            assert prediction["predicted_normalized"] == pytest.approx(raw, abs=2e-6)
            assert prediction["predicted_close"] == pytest.approx(price, rel=1e-6)

    statuses = [json.loads(m["payload"]) for m in messages if "/status/" in m["topic"]]
    for status in statuses:
        status_schema.validate(status)
    states = [status["state"] for status in statuses]
    assert states[0] == "starting"
    assert "online" in states
    assert states[-2:] == ["stopping", "offline"]
    batches = [json.loads(m["payload"]) for m in messages if m["topic"].endswith("/batch")]
    assert sum(len(batch["predictions"]) for batch in batches) == len(
        {(p["symbol"], p["seq"]) for p in predictions(messages)}
    )
    assert 'candlecast_predictions_total{outcome="published"}' in metrics
