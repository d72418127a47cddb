"""A clock that a test moves by hand."""

from __future__ import annotations

import asyncio


class HandClock:
    """Stands still until told to move; whoever sleeps wakes when their time has come.

    Attributes:
        slept: how long each sleep was asked to be, seconds, in order.
    """

    def __init__(self, wall_ms: int) -> None:
        self.slept: list[float] = []
        self._start_ms = wall_ms
        self._elapsed_ms = 0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def wall_ms(self) -> int:
        return self._start_ms + self._elapsed_ms

    def monotonic(self) -> float:
        return self._elapsed_ms / 1_000

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        woken = asyncio.Event()
        self._sleepers.append((self.monotonic() + seconds, woken))
        await woken.wait()

    def set_wall_ms(self, at_ms: int) -> None:
        """Go forward to ``at_ms``; going back is not on offer."""
        self._elapsed_ms = max(self._elapsed_ms, at_ms - self._start_ms)
        due = [sleeper for sleeper in self._sleepers if sleeper[0] <= self.monotonic()]
        for sleeper in due:
            self._sleepers.remove(sleeper)
            sleeper[1].set()

    async def advance(self, seconds: float) -> None:
        """Go forward, and let whoever wakes come to their next wait."""
        self.set_wall_ms(self.wall_ms() + round(seconds * 1_000))
        await settle()


async def settle() -> None:
    """Let every task that can run do so; none of them may wait for a socket."""
    for _ in range(50):
        await asyncio.sleep(0)


class RecordedClock(HandClock):
    """Moved by the times of a recording; pauses hardly take time, long waits do not end."""

    async def sleep(self, seconds: float) -> None:
        if seconds > 60:
            await super().sleep(seconds)
        await asyncio.sleep(min(seconds, 0.01))
