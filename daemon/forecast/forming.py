"""Forecasts from candles that are still forming: what would be said if they closed now.

They are provisional, replace no forecast and leave no trace: neither features nor calibration,
accuracy or history learn of them. Closing candles go first, always.
"""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING, Final

import numpy as np
import orjson

from daemon.mqtt.outbox import Outgoing
from daemon.mqtt.topics import forming_topic
from model.core.candle import LEAST_PRICE, MOST_PRICE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.forecast.pipeline import Pipeline
    from daemon.metrics.metrics import Metrics
    from daemon.mqtt.publisher import Publisher
    from daemon.runtime.clock import Clock
    from model.core.candle import Candle
    from model.forecasts.forecast import Market, ModelInfo

SCHEMA: Final = 1
"""Version of the published JSON, described by ``docs/forming.schema.json``."""

MIN_INTERVAL_S: Final = 0.25
"""Between two forecasts of one forming candle; exchanges send updates no faster."""

_TOGETHER: Final = 32
"""Less than a millisecond of work, which is as long as a closing candle may have to wait for it."""

_PAUSE_S: Final = 0.005
"""While closing candles are at work, this looks again so often."""


class LatestUpdates:
    """The newest update of each symbol, handed out at most once per interval and symbol.

    Bounded: one candle a symbol. A newer one takes the place of one that still waits, whose
    forecast nobody would look at any more.
    """

    def __init__(self, interval_s: float) -> None:
        """Begin with nothing.

        Args:
            interval_s: least time between two that are handed out of one symbol, seconds.
        """
        self._interval_s = interval_s
        self._waiting: dict[str, Candle] = {}
        self._free_s: dict[str, float] = {}
        # One entry for each symbol that waits.
        self._due: list[tuple[float, str]] = []

    def offer(self, candle: Candle) -> bool:
        """Take in an update; returns whether it took the place of an older one."""
        symbol = candle.symbol
        displaces = symbol in self._waiting
        self._waiting[symbol] = candle
        if not displaces:
            due_s = self._free_s.get(symbol, candle.received_s)
            heapq.heappush(self._due, (max(due_s, candle.received_s), symbol))
        return displaces

    @property
    def due_s(self) -> float | None:
        """When the next one may be handed out, monotonic seconds; None while nothing waits."""
        return self._due[0][0] if self._due else None

    def take(self, now_s: float, most: int) -> list[Candle]:
        """Hand out up to ``most`` of those that are due, longest due first."""
        taken: list[Candle] = []
        while self._due and self._due[0][0] <= now_s and len(taken) < most:
            _, symbol = heapq.heappop(self._due)
            self._free_s[symbol] = now_s + self._interval_s
            taken.append(self._waiting.pop(symbol))
        return taken


class Forming:
    """Publishes forecasts of forming candles whenever no closing candle is at work."""

    def __init__(
        self,
        market: Market,
        pipeline: Pipeline,
        publisher: Publisher,
        metrics: Metrics,
        clock: Clock,
        interval_s: float,
    ) -> None:
        """Wire; `run` publishes.

        Args:
            market: what is forecast.
            pipeline: its windows, features and states are read, never changed.
            publisher: takes the finished messages.
            metrics: counts what becomes of updates.
            clock: the injected clock.
            interval_s: least time between two forecasts of one symbol, seconds.
        """
        self._market = market
        self._pipeline = pipeline
        self._publisher = publisher
        self._metrics = metrics
        self._clock = clock
        self._newest = LatestUpdates(interval_s)
        self._wake = asyncio.Event()

    def on_forming(self, candle: Candle) -> None:
        """Take in an update of a candle that has not closed; called in the message handler."""
        if self._newest.offer(candle):
            self._metrics.forecasts.count_forming("conflated")
        self._wake.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (due_s := self._newest.due_s) is not None:
                now_s = self._clock.monotonic()
                if due_s > now_s or not self._pipeline.is_idle:
                    await self._clock.sleep(max(_PAUSE_S, due_s - now_s))
                    continue
                self._forecast(self._newest.take(now_s, _TOGETHER))
                # What has closed meanwhile goes first.
                await self._clock.sleep(0)

    def _forecast(self, candles: Sequence[Candle]) -> None:
        """Price some candles, at the cost of one step, and send what comes out."""
        ready = self._ready(candles)
        self._metrics.forecasts.count_forming("skipped", len(candles) - len(ready))
        if not ready:
            return
        served = self._pipeline.served
        idx = np.array([slot for slot, _ in ready], dtype=np.intp)
        ohlcv = np.array([candle.ohlcv for _, candle in ready], dtype=np.float64)
        raw = served.peek(idx, ohlcv)
        prices = served.price(idx, raw, ohlcv[:, 3]).tolist()
        for (slot, candle), value, price in zip(ready, raw.tolist(), prices, strict=True):
            self._publish(candle, value, price, served.infos[slot])

    def _ready(self, candles: Sequence[Candle]) -> list[tuple[int, Candle]]:
        """Those whose window ends where they begin and whose states are prepared, with slots."""
        if not self._publisher.connected.is_set():
            return []
        now_ms = self._clock.wall_ms()
        known = [
            (slot, candle)
            for candle in candles
            if now_ms < candle.close_ms and (slot := self._pipeline.awaits(candle)) is not None
        ]
        prepared = self._pipeline.served.prepared_ahead(np.array([s for s, _ in known], np.intp))
        return [pair for pair, is_prepared in zip(known, prepared, strict=True) if is_prepared]

    def _publish(self, candle: Candle, raw: float, price: float, model: ModelInfo) -> None:
        if not LEAST_PRICE <= price <= MOST_PRICE:
            self._metrics.forecasts.count_forming("skipped")
            return
        topic = forming_topic(self._market.exchange, candle.symbol, self._market.timeframe.text)
        self._publisher.offer(
            Outgoing(
                topic,
                topic,
                self._payload(candle, raw, price, model),
                qos=0,
                retain=False,
                valid_until_ms=candle.close_ms,
            )
        )
        self._metrics.forecasts.count_forming("published")

    def _payload(self, candle: Candle, raw: float, price: float, model: ModelInfo) -> bytes:
        """The JSON of ``docs/forming.schema.json``."""
        market = self._market
        ready_s = self._clock.monotonic() - candle.received_s
        return orjson.dumps(
            {
                "schema": SCHEMA,
                "final": False,
                "instance": market.instance,
                "exchange": market.exchange,
                "symbol": candle.symbol,
                "timeframe": market.timeframe.text,
                "candle": {
                    "open_ms": candle.open_ms,
                    "close_ms": candle.close_ms,
                    **candle.ohlcv._asdict(),
                },
                "target_close_ms": candle.close_ms + market.timeframe.ms,
                "valid_until_ms": candle.close_ms,
                "published_ms": self._clock.wall_ms(),
                "predicted_close": price,
                "predicted_normalized": raw,
                "predicted_return": price / candle.ohlcv.close - 1.0,
                "model": model.as_json(),
                "latency_ms": {"ready": round(ready_s * 1e3, 3)},
            }
        )
