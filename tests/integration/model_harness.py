"""Run a daemon with a real exchange, a real broker and several models to choose from."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daemon.sandbox.recording import Playback
from model.features.definitions import Indicators
from model.features.streaming import FeatureBank
from model.inference.engine import Engine
from model.registry.bundle import Bundle
from model.registry.registry import Registry
from tests.integration.harness import (
    HISTORY,
    SECOND,
    Daemon,
    candles_without_forecast,
    counted_without_forecast,
    daemon,
    playback_of,
    predictions,
    sections,
    write_config,
)
from tests.support.servers import (
    MAX_WAIT_S,
    Subscriber,
    free_port,
    mosquitto,
    mosquitto_sub,
    sandbox_process,
)
from tests.support.tiny_models import write

SYMBOLS = 7
"""Traded; the exchange has one more, which no model was trained on."""

LOOKBACK = 60


@dataclass
class ModelHarness:
    """A running daemon and three models that it may serve, the first as champion."""

    config: Path
    playback: Playback
    registry: Registry
    subscriber: Subscriber
    running: Daemon
    first: Bundle
    second: Bundle
    third: Bundle
    forecasts: list[dict[str, Any]] = field(default_factory=list)

    def models(self, *arguments: str) -> str:
        """Run `candlecast models` as a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "daemon", "models", *arguments, "--config", str(self.config)],
            capture_output=True,
            text=True,
            timeout=MAX_WAIT_S,
            check=True,
        )
        return done.stdout

    def listen(self) -> list[dict[str, Any]]:
        self.forecasts += predictions(self.subscriber.received())
        return self.forecasts

    def until(self, condition: Callable[[], bool]) -> None:
        self.running.until(condition)

    def until_served(self, version: str, candles: int = 2) -> None:
        """Wait until every symbol had some more forecasts by this model."""
        start = len(self.listen())

        def enough() -> bool:
            fresh = [f for f in self.listen()[start:] if f["model"]["version"] == version]
            return len(fresh) >= candles * SYMBOLS

        self.until(enough)

    def metric(self, name: str) -> float:
        """One sample of the running daemon, by name and labels."""
        lines = self.running.get("/metrics")[1].splitlines()
        (line,) = [line for line in lines if line.startswith(name + " ")]
        return float(line.split()[-1])


@contextmanager
def model_harness(folder: Path, **more: Any) -> Iterator[ModelHarness]:
    """A harness in ``folder``; ``more`` are further sections of the configuration."""
    port = free_port()
    with (
        sandbox_process("--symbols", str(SYMBOLS + 1), "--history", str(HISTORY)) as exchange,
        mosquitto(folder) as broker,
        mosquitto_sub(broker.port, "candlecast/#") as subscriber,
    ):
        playback = playback_of(exchange)
        symbols = playback.symbols[:SYMBOLS]
        trading = {"symbols": list(symbols)}
        chosen = sections(exchange, broker.port, port, trading=trading, **more)
        config = write_config(folder, chosen)
        root = folder / "state" / "registry"
        until_ms = playback.origin_ms + HISTORY * SECOND.ms
        past = {s: playback.history(s, playback.origin_ms, until_ms)[1] for s in symbols}
        first, second, third = (
            write(
                root,
                past,
                timeframe=SECOND.text,
                indicators=Indicators(),
                lookback=LOOKBACK,
                seed=number,
                created_ms=playback.origin_ms + 1_000 * number,
            )
            for number in range(3)
        )
        registry = Registry(root)
        registry.promote(first.version)
        with daemon(config, port) as running:
            running.wait_ready()
            yield ModelHarness(
                config, playback, registry, subscriber, running, first, second, third
            )


def assert_whole(harness: ModelHarness) -> None:
    """One forecast for every candle of every symbol, but for those that are counted."""
    forecasts = list(harness.listen())
    assert {forecast["symbol"] for forecast in forecasts} == set(harness.playback.symbols[:SYMBOLS])
    assert_counted(harness, forecasts)


def assert_counted(harness: ModelHarness, forecasts: list[dict[str, Any]]) -> None:
    """A stalled machine misses forecasts; each of them is counted."""
    metrics = harness.running.get("/metrics")[1]
    assert candles_without_forecast(forecasts) <= counted_without_forecast(metrics)


def by_symbol_of(harness: ModelHarness) -> dict[str, list[dict[str, Any]]]:
    """Every forecast, ascending by candle; a forecast that arrives again is the same."""
    by_symbol: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for forecast in harness.listen():
        mine = by_symbol[forecast["symbol"]]
        assert mine.setdefault(forecast["seq"], forecast) == forecast
    return {s: [mine[seq] for seq in sorted(mine)] for s, mine in by_symbol.items()}


def assert_true(harness: ModelHarness, symbol: str, forecasts: list[dict[str, Any]]) -> None:
    """Each value is what the model it names makes of the playback, computed without the daemon."""
    playback = harness.playback
    last_ms = forecasts[-1]["candle_close_ms"]
    ohlcv = playback.history(symbol, playback.origin_ms, last_ms)[1]
    for bundle in (harness.first, harness.second):
        mine = [f for f in forecasts if f["model"]["sha256"] == bundle.sha256]
        if not mine:
            continue
        manifest = bundle.manifest
        bank = FeatureBank(manifest.features, manifest.indicators, 1)
        rows = bank.prime(np.array([0]), ohlcv[None])[0]
        scaler = bundle.scalers.by_symbol[symbol]
        scaled = (rows - scaler.feature_min) / (scaler.feature_max - scaler.feature_min)
        ends = [(f["candle_close_ms"] - playback.origin_ms) // SECOND.ms for f in mine]
        windows = np.stack([scaled[end - LOOKBACK : end] for end in ends]).astype(np.float32)
        raw = Engine(bundle.onnx, 1, LOOKBACK, len(manifest.features)).full(windows)
        value = raw * scaler.target_scale + scaler.target_offset
        for forecast, end, one_raw, one in zip(mine, ends, raw, value, strict=True):
            price = ohlcv[end - 1, 3] * np.exp(one)
            assert forecast["predicted_normalized"] == pytest.approx(one_raw, abs=2e-6)
            assert forecast["predicted_close"] == pytest.approx(price, rel=1e-6)
