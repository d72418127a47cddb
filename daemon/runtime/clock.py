"""Read the machine's clocks; all other code takes a `Clock` or a time as an argument."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for timestamps, monotonic time for durations and deadlines."""

    def wall_ms(self) -> int:
        """Unix time in milliseconds; jumps when the clock is set."""

    def monotonic(self) -> float:
        """Seconds that never jump, from an arbitrary origin."""

    async def sleep(self, seconds: float) -> None:
        """Suspend for ``seconds`` of this clock's monotonic time."""


class SystemClock:
    """The machine's own clocks."""

    def wall_ms(self) -> int:
        """Unix time in milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds of ``CLOCK_MONOTONIC``."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Suspend for ``seconds``."""
        await asyncio.sleep(seconds)
