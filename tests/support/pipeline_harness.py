"""Run the real pipeline with a recording publisher, and check its forecasts by the reference."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, cast

import numpy as np
import pytest

from daemon.forecast.accounting import Sinks
from daemon.forecast.batcher import Batcher
from daemon.forecast.issuer import Issuer
from daemon.forecast.pipeline import Pipeline
from daemon.forecast.scheduler import InferenceScheduler
from daemon.forecast.symbol_table import SymbolTable
from daemon.metrics.metrics import Metrics
from daemon.mqtt.outbox import Outgoing
from daemon.mqtt.publisher import Publisher
from daemon.persistence.recorder import Recorder
from daemon.scoring.accuracy import Accuracy
from model.core.candle import Candle, Ohlcv, Timeframe
from model.core.market import MarketKey
from model.features.streaming import FeatureBank
from model.forecasts.forecast import Market
from model.history.store import History
from model.inference.engine import Engine, OnnxPair
from model.registry.bundle import Bundle
from model.serving import ServedModel
from tests.support.manual_clock import FixedWallClock, ManualClock
from tests.support.tiny_models import SHORT, Floats

MINUTE = Timeframe.parse("1m")
SYMBOLS = ("A/U", "B/U", "C/U")
LOOKBACK = 8
CAPACITY = SHORT.warmup + LOOKBACK
T0 = 1_776_859_560_000
ROWS = CAPACITY + 90


class RecordingPublisher:
    """Replaces the publisher and keeps every message, decoded."""

    retains = True

    def __init__(self) -> None:
        self.forecasts: list[dict[str, Any]] = []
        self.raw: list[Outgoing] = []
        self.batches: list[dict[str, Any]] = []

    def offer(self, message: Outgoing) -> None:
        if message.is_forecast:
            self.raw.append(message)
            self.forecasts.append(json.loads(message.payload))
        else:
            self.batches.append(json.loads(message.payload))


class SampleMarket:
    """The exchange's candles; `revise` changes one of them."""

    def __init__(self, candles: dict[str, Floats]) -> None:
        self.values = {symbol: ohlcv.copy() for symbol, ohlcv in candles.items()}
        self._features: dict[str, Floats] = {}

    def features(self, symbol: str, bundle: Bundle) -> Floats:
        """Of every candle, from all candles before it."""
        if symbol not in self._features:
            bank = FeatureBank(bundle.manifest.features, bundle.manifest.indicators, 1)
            self._features[symbol] = bank.prime(np.array([0]), self.values[symbol][None])[0]
        return self._features[symbol]

    def candle(self, symbol: str, at: int, now_s: float = 0.0) -> Candle:
        open_ms = T0 + at * MINUTE.ms
        close_ms = open_ms + MINUTE.ms
        ohlcv = Ohlcv(*self.values[symbol][at].tolist())
        return Candle(symbol, open_ms, close_ms, ohlcv, close_ms + 5, now_s, "exchange_flag")

    def span(self, symbol: str, start: int, end: int) -> list[Candle]:
        return [
            self.candle(symbol, at)._replace(final_by="rest") for at in range(max(0, start), end)
        ]

    def revise(self, symbol: str, at: int, factor: float) -> None:
        self._features.pop(symbol, None)
        self.values[symbol][at, 1:4] *= factor
        self.values[symbol][at, 1] = self.values[symbol][at].max()
        self.values[symbol][at, 2] = self.values[symbol][at, :4].min()


class PipelineHarness:
    """A whole path with everything real but the broker."""

    def __init__(
        self,
        bundle: Bundle,
        history: History,
        *,
        max_batch: int = 4,
        clock: FixedWallClock | ManualClock | None = None,
        served: ServedModel | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        self.bundle = bundle
        self.clock = clock or FixedWallClock(T0)
        self.metrics = Metrics(10)
        self.published = RecordingPublisher()
        self.wanted: list[str] = []
        self.accuracy = Accuracy(1440, 1)
        self.recorder = Recorder(
            history, MarketKey.parse("binance", "1m"), 36_500, self.clock, self.metrics
        )
        self.market = market = Market("tester", "binance", SYMBOLS, MINUTE)
        engine = Engine(bundle.onnx, len(SYMBOLS), LOOKBACK, len(bundle.manifest.features))
        publisher = cast("Publisher", self.published)
        self.issuer = Issuer(
            market=market,
            publisher=publisher,
            accuracy=self.accuracy,
            clock=self.clock,
            budget_s=60.0,
        )
        self.table = SymbolTable(
            served=served or ServedModel(bundle, SYMBOLS, engine),
            symbols=SYMBOLS,
            timeframe=MINUTE,
            capacity=capacity,
        )
        self.scheduler = InferenceScheduler(batcher=Batcher(max_batch), clock=self.clock)
        self.pipeline = Pipeline(
            table=self.table,
            scheduler=self.scheduler,
            issuer=self.issuer,
            sinks=Sinks(self.accuracy, self.recorder, self.metrics),
            clock=self.clock,
            request_repair=self.wanted.append,
        )

    def at(self, end: int) -> None:
        """Set the wall clock to shortly after the close of candle ``end - 1``."""
        self.clock.now_ms = T0 + end * MINUTE.ms + 20

    def warm(self, market: SampleMarket, end: int) -> None:
        self.at(end)
        for symbol in SYMBOLS:
            self.pipeline.on_history(symbol, market.span(symbol, 0, end))

    def close(self, market: SampleMarket, symbol: str, at: int) -> None:
        self.pipeline.on_candle_closed(market.candle(symbol, at, self.clock.monotonic()))

    def scored(self) -> float:
        """Forecasts held against what happened since this process started."""
        return sum(
            self.sample("candlecast_direction_total", result=result) for result in ("hit", "miss")
        )

    def count(self, outcome: str) -> float:
        return self.sample("candlecast_predictions_total", outcome=outcome)

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def running(path: PipelineHarness) -> AsyncIterator[PipelineHarness]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(path.pipeline.run()), group.create_task(path.recorder.run())]
        async with asyncio.timeout(150):
            yield path
        for task in tasks:
            task.cancel()


@cache
def network(pair: OnnxPair, n_features: int) -> Engine:
    return Engine(pair, 1, LOOKBACK, n_features)


def check(bundle: Bundle, market: SampleMarket, forecast: dict[str, Any]) -> None:
    """Compare with what the candles alone give, by none of the path's own state."""
    symbol, end = forecast["symbol"], (forecast["candle_close_ms"] - T0) // MINUTE.ms
    rows = market.features(symbol, bundle)[end - LOOKBACK : end]
    scaler = bundle.scalers.by_symbol[symbol]
    scaled = (rows - scaler.feature_min) / (scaler.feature_max - scaler.feature_min)
    raw = float(network(bundle.onnx, rows.shape[1]).full(scaled[None].astype(np.float32))[0])
    last = float(market.values[symbol][end - 1, 3])
    price = last * float(np.exp(raw * scaler.target_scale + scaler.target_offset))
    assert forecast["predicted_normalized"] == pytest.approx(raw, abs=1e-6)
    assert forecast["predicted_close"] == pytest.approx(price, rel=1e-6)
    assert forecast["last_close"] == last
    assert forecast["predicted_return"] == pytest.approx(price / last - 1, abs=1e-6)
    assert forecast["target_close_ms"] == forecast["candle_close_ms"] + MINUTE.ms
    assert forecast["seq"] == forecast["candle_close_ms"] // MINUTE.ms
