"""Provide a fast clock, small playbacks and a ccxt client with other addresses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from heapq import heappop, heappush
from itertools import count
from typing import Any

import ccxt.pro

from daemon.exchange.ccxt_client import override_hosts
from daemon.sandbox.exchange import Behaviour, SandboxExchange
from daemon.sandbox.recording import RECORDING_15M, Playback, build_playback, load_recording
from model.core.candle import Timeframe

SECOND = Timeframe.parse("1s")
MINUTE = Timeframe.parse("1m")
RECORDING = load_recording(RECORDING_15M)


_TICK_S = 0.005
_LARGEST_STEP_S = 0.008


class ScaledClock:
    """Time that runs ``factor`` times as fast as the machine's, from the machine's now on.

    It passes while the event loop gets its turns, from the first sleep on. Where the process had to
    wait for a processor, at most `_LARGEST_STEP_S` of the machine's time have passed: everything
    that goes by this clock stands still together, and no deadline is missed.
    """

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._wall_ms = time.time() * 1_000
        self._start = self._ticked = time.monotonic()
        self._passed_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()
        self._loop: asyncio.AbstractEventLoop | None = None

    def _elapsed_s(self) -> float:
        step_s = min(time.monotonic() - self._ticked, _LARGEST_STEP_S)
        return self._passed_s + step_s * self._factor

    def wall_ms(self) -> int:
        return int(self._wall_ms + self._elapsed_s() * 1_000)

    def monotonic(self) -> float:
        return self._start + self._elapsed_s()

    async def sleep(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop = loop
            self._keep_ticking()
        woken = loop.create_future()
        heappush(self._sleepers, (self._elapsed_s() + seconds, next(self._order), woken))
        self._tick_in_time()
        await woken

    def _keep_ticking(self) -> None:
        assert self._loop is not None
        self._tick()
        self._loop.call_later(_TICK_S, self._keep_ticking)

    def _tick(self) -> None:
        self._passed_s, self._ticked = self._elapsed_s(), time.monotonic()
        while self._sleepers and self._sleepers[0][0] <= self._passed_s:
            woken = heappop(self._sleepers)[2]
            # Skip cancelled sleepers and those of loops that have ended.
            if not woken.done() and woken.get_loop() is self._loop:
                woken.set_result(None)
        self._tick_in_time()

    def _tick_in_time(self) -> None:
        """Schedule an extra tick for the next sleeper if it is due before the next tick."""
        assert self._loop is not None
        if self._sleepers:
            left_s = (self._sleepers[0][0] - self._elapsed_s()) / self._factor
            if left_s < _TICK_S:
                self._loop.call_later(max(left_s, 0.0), self._tick)


@asynccontextmanager
async def stopwatch() -> AsyncIterator[Callable[[], float]]:
    """Seconds since its beginning in which this process got its turns."""
    clock = ScaledClock(1.0)
    await clock.sleep(0.0)
    began_s = clock.monotonic()
    yield lambda: clock.monotonic() - began_s


def second_playback(symbols: int, history: int = 1_500) -> Playback:
    """``symbols`` symbols on a one-second grid, listed ``history`` candles ago."""
    origin_ms = SECOND.floor(time.time() * 1_000) - history * SECOND.ms
    return build_playback(symbols, SECOND, origin_ms, recording=RECORDING)


def minute_playback(symbols: int, now_ms: int, history: int = 1_500) -> Playback:
    """``symbols`` symbols on a one-minute grid, listed ``history`` candles before ``now_ms``."""
    origin_ms = MINUTE.floor(now_ms) - history * MINUTE.ms
    return build_playback(symbols, MINUTE, origin_ms, recording=RECORDING)


@asynccontextmanager
async def minutes(name: str, symbols: int, **more: Any) -> AsyncIterator[SandboxExchange]:
    """Exchange ``name`` with one-minute candles on a clock that is 60 times as fast."""
    clock = ScaledClock(60.0)
    playback = minute_playback(symbols, clock.wall_ms(), **more)
    behaviour = Behaviour(updates=2, close_delay_s=0.6)
    async with SandboxExchange(playback, name=name, clock=clock, behaviour=behaviour) as exchange:
        yield exchange


@asynccontextmanager
async def ccxt_client(name: str, rest_url: str, ws_url: str, **config: Any) -> AsyncIterator[Any]:
    """The unmodified ccxt class with other addresses."""
    client = getattr(ccxt.pro, name)(config)
    client.urls["api"] = override_hosts(client.urls["api"], rest_url, ws_url)
    try:
        yield client
    finally:
        await client.close()


def binance(
    rest_url: str, ws_url: str, **options: Any
) -> AbstractAsyncContextManager[ccxt.pro.binance]:
    """A ccxt client of Binance."""
    return ccxt_client("binance", rest_url, ws_url, options=options)
