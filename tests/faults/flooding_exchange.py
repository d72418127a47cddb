"""Run a sandbox exchange that sends forming updates as fast as its clients read them."""

from __future__ import annotations

import asyncio
import sys

from daemon.sandbox import __main__ as program
from daemon.sandbox.exchange import SandboxExchange

_AHEAD = 2
"""Bursts that may wait for the slowest client: it is never cut off for being slow."""


class Firehose(SandboxExchange):
    """A core's worth of messages; candles close on the grid as ever."""

    async def _stream_candles(self) -> None:
        step = self.playback.timeframe.ms
        open_ms = self.playback.timeframe.floor(self._clock.wall_ms())
        while True:
            await asyncio.sleep(0.001 if self.streams.backlog >= _AHEAD else 0.0)
            if self.streams.backlog >= _AHEAD:
                continue
            gone = (self._clock.wall_ms() - open_ms) / step
            self._send_burst(open_ms, min(gone, 1.0))
            if gone >= 1.0:
                open_ms += step


if __name__ == "__main__":
    program.SandboxExchange = Firehose  # type: ignore[attr-defined]
    sys.exit(program.main())
