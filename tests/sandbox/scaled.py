"""What several sandbox tests share: a faster clock, a small tape, a rerouted ccxt client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import ccxt.pro

from daemon.exchange import repoint
from daemon.sandbox.exchange import Behaviour, SandboxExchange
from daemon.sandbox.tape import RECORDING_15M, Tape, build_tape, load_recording
from model.candle import Timeframe

SECOND = Timeframe.parse("1s")
MINUTE = Timeframe.parse("1m")
RECORDING = load_recording(RECORDING_15M)


class ScaledClock:
    """Time that runs ``factor`` times as fast as the machine's, from the machine's now on."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._wall_ms = time.time() * 1_000
        self._start = time.monotonic()

    def _elapsed_s(self) -> float:
        return (time.monotonic() - self._start) * self._factor

    def wall_ms(self) -> int:
        return int(self._wall_ms + self._elapsed_s() * 1_000)

    def monotonic(self) -> float:
        return self._start + self._elapsed_s()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._factor)


def second_tape(symbols: int, history: int = 1_500) -> Tape:
    """``symbols`` symbols on a one-second grid, listed ``history`` candles ago."""
    origin_ms = SECOND.floor(time.time() * 1_000) - history * SECOND.ms
    return build_tape(symbols, SECOND, origin_ms, recording=RECORDING)


def minute_tape(symbols: int, now_ms: int, history: int = 1_500) -> Tape:
    """``symbols`` symbols on a one-minute grid, listed ``history`` candles before ``now_ms``."""
    origin_ms = MINUTE.floor(now_ms) - history * MINUTE.ms
    return build_tape(symbols, MINUTE, origin_ms, recording=RECORDING)


@asynccontextmanager
async def minutes(name: str, symbols: int, **more: Any) -> AsyncIterator[SandboxExchange]:
    """Exchange ``name`` with candles of a minute, of which one passes every second."""
    clock = ScaledClock(60.0)
    tape = minute_tape(symbols, clock.wall_ms(), **more)
    behaviour = Behaviour(updates=2, close_delay_s=0.6)
    async with SandboxExchange(tape, name=name, clock=clock, behaviour=behaviour) as exchange:
        yield exchange


@asynccontextmanager
async def ccxt_client(name: str, rest_url: str, ws_url: str, **config: Any) -> AsyncIterator[Any]:
    """The real, unmodified ccxt class with nothing but its addresses changed."""
    client = getattr(ccxt.pro, name)(config)
    client.urls["api"] = repoint(client.urls["api"], rest_url, ws_url)
    try:
        yield client
    finally:
        await client.close()


def binance(
    rest_url: str, ws_url: str, **options: Any
) -> AbstractAsyncContextManager[ccxt.pro.binance]:
    """That of Binance."""
    return ccxt_client("binance", rest_url, ws_url, options=options)
