"""Run the path of a candle in this process, from ccxt's messages to a real broker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from benchmarks.harness.processes import HOST
from benchmarks.harness.tiny_champion import HISTORY, INSTANCE, LOOKBACK, promote
from daemon.exchange.ccxt_client import make_exchange
from daemon.exchange.ccxt_tap import tapped_class
from daemon.exchange.exchange_clock import ExchangeClock
from daemon.exchange.rest import RestClient
from daemon.exchange.source import MarketSource
from daemon.feed.connection import Connection
from daemon.feed.feed import Feed
from daemon.forecast.accounting import Sinks
from daemon.forecast.batcher import Batcher
from daemon.forecast.issuer import Issuer
from daemon.forecast.pipeline import Pipeline
from daemon.forecast.scheduler import InferenceScheduler
from daemon.forecast.symbol_table import SymbolTable
from daemon.metrics.metrics import Metrics
from daemon.mqtt.broker import Broker
from daemon.mqtt.outbox import Outbox
from daemon.mqtt.publisher import Publisher
from daemon.persistence.recorder import Recorder
from daemon.sandbox.market import Faults
from daemon.sandbox.market import Market as Listing
from daemon.sandbox.protocols.binance import event_json
from daemon.sandbox.recording import build_playback
from daemon.scoring.accuracy import Accuracy
from model.core.candle import Candle, Ohlcv, Timeframe
from model.features.definitions import Indicators
from model.forecasts.forecast import Market
from model.history.store import History
from model.inference.engine import Engine
from model.registry.registry import Registry
from model.serving import ServedModel

FRAME: Final = Timeframe.parse("1m")
_ORIGIN_MS: Final = 1_776_859_560_000
_BUDGET_S: Final = 0.05


class FixedWallClock:
    """Wall time set by hand; monotonic time and sleeps run ``speed`` times as fast."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self.now_ms = _ORIGIN_MS

    def wall_ms(self) -> int:
        """The time that was set, Unix milliseconds."""
        return self.now_ms

    def monotonic(self) -> float:
        """Seconds that pass ``speed`` times as fast as the machine's."""
        return time.monotonic() * self._speed

    async def sleep(self, seconds: float) -> None:
        """Wait for seconds of this clock."""
        await asyncio.sleep(seconds / self._speed)


class Path1m:
    """Everything between ccxt's message handler and the broker, on one-minute candles.

    Args:
        symbols: how many.
        folder: for registry and history.
        port: of the broker; None where nothing needs to leave.
        speed: how many times as fast as the machine's the path's monotonic clock runs.

    Attributes:
        exchange: ccxt instance with our tap; it is never connected.
        plain: the same without the tap.
        pipeline: windows to messages.
        scheduler: tells when everything is done.
        served: the model.
        recorder: writes the history.
        metrics: of the whole path.
        clock: the time of the path.
    """

    def __init__(self, symbols: int, folder: Path, port: int | None, speed: float = 1.0) -> None:
        playback = build_playback(symbols, FRAME, _ORIGIN_MS)
        self._playback, self._port = playback, port
        self._listing = Listing(playback, Faults())
        self.clock = FixedWallClock(speed)
        self.metrics = Metrics()
        ohlcv = np.stack([self._history(s) for s in playback.symbols])
        promote(folder / "state", playback.symbols, ohlcv)
        registry = Registry(folder / "state" / "registry")
        bundle = registry.open(registry.champion())
        market = Market(INSTANCE, "binance", playback.symbols, FRAME)
        self._database = History(folder / "history.sqlite")
        self.recorder = Recorder(self._database, market.key, 90, self.clock, self.metrics)
        accuracy = Accuracy(1440, 200)
        broker = Broker(HOST, port or 0, "5", None, None, 30)
        self.publisher = Publisher(broker, INSTANCE, Outbox(4_096), self.clock, self.metrics)
        engine = Engine(bundle.onnx, symbols, LOOKBACK, len(bundle.manifest.features))
        engine.warm()
        capacity = Indicators().warmup + LOOKBACK
        self.served = ServedModel(bundle, playback.symbols, engine)
        self.scheduler = InferenceScheduler(batcher=Batcher(1_024), clock=self.clock)
        self.pipeline = Pipeline(
            table=SymbolTable(
                served=self.served, symbols=playback.symbols, timeframe=FRAME, capacity=capacity
            ),
            scheduler=self.scheduler,
            issuer=Issuer(
                market=market,
                publisher=self.publisher,
                accuracy=accuracy,
                clock=self.clock,
                budget_s=_BUDGET_S * speed,
            ),
            sinks=Sinks(accuracy, self.recorder, self.metrics),
            clock=self.clock,
            request_repair=lambda symbol: None,  # noqa: ARG005 - nothing is ever missing
        )
        source = MarketSource("binance", None, None, playback.symbols, FRAME)
        feed = Feed(
            source,
            ExchangeClock(self.clock),
            self.metrics,
            self.pipeline.on_candle_closed,
            lambda symbol, forming_ms: None,  # noqa: ARG005 - nothing is ever missing
        )
        rest = RestClient(source, ExchangeClock(self.clock), self.metrics, feed.on_unusable_message)
        link = Connection(source, playback.symbols, rest, self.clock, feed, FRAME.ms / 1e3)
        self.exchange = self._make(lambda base: tapped_class(base, link))
        self.exchange.watch_candles(playback.symbols, FRAME.text)
        self.plain = self._make(lambda base: base)
        self.next_open_ms = _ORIGIN_MS + HISTORY * FRAME.ms

    def _history(self, symbol: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        until_ms = _ORIGIN_MS + HISTORY * FRAME.ms
        return self._playback.history(symbol, _ORIGIN_MS, until_ms)[1]

    def _make(self, wrap: Any) -> Any:  # noqa: ANN401 - ccxt is untyped
        exchange = make_exchange("binance", wrap=wrap)
        names = {symbol: symbol.replace("/", "") for symbol in self._playback.symbols}
        exchange.set_markets(
            [
                exchange.safe_market_structure(
                    {"id": name, "symbol": symbol, "type": "spot", "spot": True}
                )
                for symbol, name in names.items()
            ]
        )
        return exchange

    def warm(self) -> None:
        """Give every symbol its history."""
        self.clock.now_ms = self.next_open_ms + 20
        for symbol in self._playback.symbols:
            rows = self._history(symbol).tolist()
            opens = range(_ORIGIN_MS, self.next_open_ms, FRAME.ms)
            self.pipeline.on_history(
                symbol,
                [
                    Candle(symbol, t, t + FRAME.ms, Ohlcv(*row), self.clock.now_ms, 0.0, "rest")
                    for t, row in zip(opens, rows, strict=True)
                ],
            )

    def closing_frames(self) -> list[bytes]:
        """The messages that close every symbol's next candle; the clock moves to that instant."""
        open_ms = self.next_open_ms
        self.next_open_ms += FRAME.ms
        self.clock.now_ms = self.next_open_ms + 20
        return self._frames(open_ms, 1.0)

    def forming_frames(self) -> list[bytes]:
        """A message for every symbol's next candle in its middle; the clock moves there."""
        self.clock.now_ms = self.next_open_ms + FRAME.ms // 2
        return self._frames(self.next_open_ms, 0.5)

    def _frames(self, open_ms: int, fraction: float) -> list[bytes]:
        return [
            event_json(
                self._listing.kline(symbol, open_ms, fraction, revised=False),
                symbol.replace("/", ""),
                FRAME.text,
                self.clock.now_ms,
                closed=fraction >= 1.0,
            )
            for symbol in self._playback.symbols
        ]

    def receive(self, messages: list[dict[str, Any]]) -> None:
        """Hand decoded messages to the tap, as ccxt does."""
        for message in messages:
            self.exchange.handle_message(None, message)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run everything, with filled windows."""
        log = logging.getLogger("candlecast")
        level = log.level
        # Late forecasts are counted; log lines about them add nothing.
        log.setLevel(logging.ERROR)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self.pipeline.run()),
                    group.create_task(self.recorder.run()),
                ]
                if self._port is not None:
                    tasks.append(group.create_task(self.publisher.run()))
                    await self.publisher.connected.wait()
                self.warm()
                await self.scheduler.wait_idle()
                yield
                for task in tasks:
                    task.cancel()
        finally:
            log.setLevel(level)
            self._database.close()
            await self.exchange.close()
            await self.plain.close()


def decode(frames: list[bytes]) -> list[dict[str, Any]]:
    """The messages as ccxt hands them over."""
    return [orjson.loads(frame) for frame in frames]
