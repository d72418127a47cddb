"""What several sandbox tests share: a faster clock, a small tape, a rerouted ccxt client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import ccxt.pro

from daemon.exchange import repoint
from daemon.sandbox.tape import RECORDING_15M, Tape, build_tape, load_recording
from model.candle import Timeframe

SECOND = Timeframe.parse("1s")
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


@asynccontextmanager
async def binance(rest_url: str, ws_url: str, **options: Any) -> AsyncIterator[ccxt.pro.binance]:
    """The real, unmodified ccxt class with nothing but its addresses changed."""
    client = ccxt.pro.binance({"options": options})
    client.urls["api"] = repoint(client.urls["api"], rest_url, ws_url)
    try:
        yield client
    finally:
        await client.close()
