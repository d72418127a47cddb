"""Test provisional forecasts of forming candles beside the final ones, over real sockets."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from daemon.sandbox.recording import Playback
from model.features.streaming import FeatureBank
from model.inference.engine import Engine
from model.registry.bundle import Bundle
from model.registry.registry import Registry
from tests.integration.harness import (
    HISTORY,
    SECOND,
    candles_without_forecast,
    counted_without_forecast,
    daemon,
    longest_run,
    playback_of,
    predictions,
    promote_drawn,
    sections,
    until_offline,
    write_config,
)
from tests.support.servers import free_port, mosquitto, mosquitto_sub, sandbox_process

SYMBOLS = 5
IN_A_ROW = 6
"""Candles of each symbol that are forecast without a gap."""

UPDATED = 4
"""Candles of each symbol that are forecast before they close."""

OHLCV = ("open", "high", "low", "close", "volume")


def from_scratch(
    bundle: Bundle, engine: Engine, playback: Playback, document: dict[str, Any]
) -> float:
    """The network's output for a forming candle after the playback's own candles."""
    candle = document["candle"]
    _, closed = playback.history(document["symbol"], playback.origin_ms, candle["open_ms"])
    ohlcv = np.concatenate([closed, [[candle[key] for key in OHLCV]]])
    bank = FeatureBank(bundle.manifest.features, bundle.manifest.indicators, 1)
    rows = bank.prime(np.array([0]), ohlcv[None])[0, -60:]
    scaler = bundle.scalers.by_symbol[document["symbol"]]
    scaled = (rows - scaler.feature_min) / (scaler.feature_max - scaler.feature_min)
    return float(engine.full(scaled[None].astype(np.float32))[0])


def seen(messages: list[dict[str, Any]]) -> tuple[dict[str, set[int]], dict[str, set[int]]]:
    """By symbol, opening times of candles forecast while forming, and numbers of closed ones."""
    opens, closes = defaultdict(set), defaultdict(set)
    for message in messages:
        if message["topic"].endswith("/forming"):
            document = json.loads(message["payload"])
            opens[document["symbol"]].add(document["candle"]["open_ms"])
    for forecast in predictions(messages):
        closes[forecast["symbol"]].add(forecast["seq"])
    return opens, closes


def test_every_update_is_priced_and_every_close_still_forecast(
    tmp_path: Path, repository: Path
) -> None:
    http_port = free_port()
    market = ("--symbols", str(SYMBOLS), "--history", str(HISTORY), "--updates", "3")
    with (
        sandbox_process(*market) as exchange,
        mosquitto(tmp_path) as broker,
        mosquitto_sub(broker.port, "candlecast/#") as subscriber,
    ):
        playback = playback_of(exchange)
        inference = {"forming": True, "forming_interval_ms": 100}
        config = write_config(
            tmp_path, sections(exchange, broker.port, http_port, inference=inference)
        )
        promote_drawn(tmp_path, playback)
        with daemon(config, http_port) as running:
            running.wait_ready()
            messages: list[dict[str, Any]] = []

            def enough() -> bool:
                messages.extend(subscriber.received())
                opens, closes = seen(messages)
                runs = [longest_run(closes[symbol]) for symbol in playback.symbols]
                updated = [len(opens[symbol]) for symbol in playback.symbols]
                return min(runs) >= IN_A_ROW and min(updated) >= UPDATED

            running.until(enough)
            metrics = running.get("/metrics")[1]
            # A stalled machine misses forecasts; each of them is counted.
            missing = candles_without_forecast(predictions(messages))
            assert missing <= counted_without_forecast(metrics)
            assert running.stop() == 0, running.log
            assert "Traceback" not in running.log
        messages += until_offline(subscriber)

    forming = [m for m in messages if m["topic"].endswith("/forming")]
    assert not any(m["retain"] or m["qos"] for m in forming)
    schema = json.loads((repository / "docs" / "forming.schema.json").read_text())
    registry = Registry(tmp_path / "state" / "registry")
    bundle = registry.open(registry.champion())
    engine = Engine(bundle.onnx, 1, 60, len(bundle.manifest.features))
    for document in (json.loads(m["payload"]) for m in forming):
        jsonschema.Draft202012Validator(schema).validate(document)
        candle = document["candle"]
        assert candle["close_ms"] - candle["open_ms"] == SECOND.ms
        assert document["target_close_ms"] == candle["close_ms"] + SECOND.ms
        raw = from_scratch(bundle, engine, playback, document)
        assert document["predicted_normalized"] == pytest.approx(raw, abs=2e-6)
    opens, closes = seen(messages)
    assert set(opens) == set(closes) == set(playback.symbols)
    assert 'candlecast_forming_total{outcome="published"}' in metrics
