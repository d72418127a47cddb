"""Provide clocks that a test moves by hand.

`ManualClock` moves by hand alone. `FixedWallClock` is for tests with sockets and threads: its wall
time is set by hand, its sleeps end by themselves. `ScaledClock` in `tests/sandbox/scaled.py` runs
by itself.
"""

from __future__ import annotations

import asyncio

_MAX_POLL_S = 0.001


class ManualClock:
    """Time that changes only when a test moves it.

    Args:
        wall_ms: wall time at the start, Unix milliseconds.
        monotonic_s: monotonic time at the start, seconds.
        auto_advance: every sleep moves the clock and ends at once.

    Attributes:
        now_ms: wall time; setting it alone is a jump of the machine's clock.
        now_s: monotonic time.
        slept: how long each sleep was asked to be, seconds, in order.
    """

    def __init__(
        self, wall_ms: int, monotonic_s: float = 0.0, *, auto_advance: bool = False
    ) -> None:
        self.now_ms = wall_ms
        self.now_s = monotonic_s
        self.slept: list[float] = []
        self._auto_advance = auto_advance
        # When to wake, in microseconds: sums of seconds would miss it by a rounding error.
        self._sleepers: list[tuple[int, asyncio.Event]] = []

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self._auto_advance:
            self.move(seconds)
            return
        woken = asyncio.Event()
        self._sleepers.append((_microseconds(self.now_s + seconds), woken))
        await woken.wait()

    def move(self, seconds: float) -> None:
        """Go forward by ``seconds`` and wake the sleepers whose time has come."""
        self.now_ms += round(seconds * 1_000)
        self.now_s += seconds
        now = _microseconds(self.now_s)
        for sleeper in [sleeper for sleeper in self._sleepers if sleeper[0] <= now]:
            self._sleepers.remove(sleeper)
            sleeper[1].set()

    def move_to(self, wall_ms: int) -> None:
        """Go forward until the wall clock shows ``wall_ms``; never back."""
        self.move(max(0, wall_ms - self.now_ms) / 1_000)

    async def advance(self, seconds: float) -> None:
        """Go forward, then run every task that woke up to its next wait."""
        self.move(seconds)
        await settle()


class PollingClock(ManualClock):
    """A manual clock on which sleeps of up to ``longest_s`` last about a millisecond.

    For loops that poll. Longer sleeps wait until the clock is moved.
    """

    def __init__(
        self, wall_ms: int, monotonic_s: float = 0.0, *, longest_s: float = float("inf")
    ) -> None:
        super().__init__(wall_ms, monotonic_s)
        self._longest_s = longest_s

    async def sleep(self, seconds: float) -> None:
        if seconds > self._longest_s:
            await super().sleep(seconds)
        await asyncio.sleep(min(seconds, _MAX_POLL_S))


class FixedWallClock:
    """Wall time set by hand; monotonic time and sleeps are the event loop's.

    Args:
        wall_ms: wall time at the start, Unix milliseconds.
        speed: how many times as fast as the event loop's monotonic time and sleeps run.

    Attributes:
        now_ms: wall time.
        slept: how long each sleep was asked to be, seconds, in order.
    """

    def __init__(self, wall_ms: int, speed: float = 1.0) -> None:
        self.now_ms = wall_ms
        self.slept: list[float] = []
        self._speed = speed

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() * self._speed

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(seconds / self._speed)


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


async def settle() -> None:
    """Run every task that can run; none of them may wait for a socket."""
    for _ in range(50):
        await asyncio.sleep(0)
