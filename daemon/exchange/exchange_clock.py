"""Estimate the exchange's time from its answers and this machine's monotonic clock. No I/O.

Whether a candle has closed and a forecast has expired is decided by the exchange's time. This
machine's wall clock may be wrong and may jump: it is the first estimate, before the exchange has
answered, and is read later only to report how far it is off.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from daemon.runtime.clock import Clock

MAX_ERROR_MS: Final = 1_000.0
"""With a larger error, the exchange's time closes no candle."""

_MAX_READINGS: Final = 16
_MIN_READINGS: Final = 2
"""Readings that must agree before the clock is trusted."""

_MAX_DRIFT: Final = 1e-4
"""Relative difference between the rates of two clocks; quartz clocks differ by less."""

_MIN_JUMP_MS: Final = 250.0
"""Smaller differences between wall and monotonic clock are slewing, not jumps."""


class Reading(NamedTuple):
    """One answer to a request for the time.

    Attributes:
        sent_s: monotonic clock when the request was sent.
        received_s: monotonic clock when the answer arrived.
        exchange_ms: the answer, Unix milliseconds.
    """

    sent_s: float
    received_s: float
    exchange_ms: int


class ExchangeClock:
    """A `Clock` whose wall time is the exchange's and never jumps with the machine's.

    Each reading bounds the exchange's time: the answer was written after the request was sent and
    before the answer arrived. The estimate is the middle of the interval in which all recent
    readings overlap; the quickest answers narrow it most.
    """

    def __init__(self, machine: Clock) -> None:
        """Start with the machine's wall time, unmeasured."""
        self._machine = machine
        self._readings: deque[Reading] = deque(maxlen=_MAX_READINGS)
        # The exchange's time minus the monotonic clock, and half the width of its interval.
        self._ahead_ms = self._machine_ahead_ms()
        self._half_ms = float("inf")
        # Monotonic time of the newest reading.
        self._measured_s = machine.monotonic()
        # The machine's wall clock minus its monotonic clock at the newest reading.
        self._machine_ahead_then_ms = self._ahead_ms

    def wall_ms(self) -> int:
        """The estimate of the exchange's time, Unix milliseconds."""
        return round(self._ahead_ms + self._machine.monotonic() * 1e3)

    def monotonic(self) -> float:
        """Seconds of the machine's monotonic clock."""
        return self._machine.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Suspend for ``seconds`` of the monotonic clock."""
        await self._machine.sleep(seconds)

    def add_reading(self, reading: Reading) -> None:
        """Add an answer; one that contradicts the earlier ones replaces them."""
        self._readings.append(reading)
        low_ms, high_ms = self._bounds(reading.received_s)
        if low_ms > high_ms:
            self._readings.clear()
            self._readings.append(reading)
            low_ms, high_ms = self._bounds(reading.received_s)
        self._ahead_ms = (low_ms + high_ms) / 2
        self._half_ms = (high_ms - low_ms) / 2
        self._measured_s = reading.received_s
        self._machine_ahead_then_ms = self._machine_ahead_ms()

    @property
    def measured(self) -> bool:
        """Whether there is a reading."""
        return bool(self._readings)

    @property
    def error_ms(self) -> float:
        """How far `wall_ms` may be off now; infinite before the first reading."""
        return self._half_ms + _MAX_DRIFT * 1e3 * (self._machine.monotonic() - self._measured_s)

    @property
    def trusted(self) -> bool:
        """Whether the time is known well enough to close candles by it."""
        return len(self._readings) >= _MIN_READINGS and self.error_ms <= MAX_ERROR_MS

    def earliest_ms(self) -> int | None:
        """The least that the exchange's clock can show, Unix ms; None while it is not trusted."""
        return round(self.wall_ms() - self.error_ms) if self.trusted else None

    @property
    def offset_s(self) -> float:
        """How far the exchange's clock is ahead of this machine's wall clock, seconds."""
        return (self._ahead_ms - self._machine_ahead_ms()) / 1e3

    @property
    def wall_clock_jumped(self) -> bool:
        """Whether the wall clock was set, or the machine slept, since the newest reading."""
        return abs(self._machine_ahead_ms() - self._machine_ahead_then_ms) > _MIN_JUMP_MS

    def _machine_ahead_ms(self) -> float:
        return self._machine.wall_ms() - self._machine.monotonic() * 1e3

    def _bounds(self, now_s: float) -> tuple[float, float]:
        """Return the bounds of the exchange's time minus the monotonic clock, milliseconds."""
        # Some exchanges answer in whole seconds, rounded down.
        whole_seconds = all(r.exchange_ms % 1_000 == 0 for r in self._readings)
        step_ms = 1_000 if whole_seconds else 1
        lows, highs = [], []
        for reading in self._readings:
            drift_ms = _MAX_DRIFT * 1e3 * (now_s - reading.received_s)
            lows.append(reading.exchange_ms - reading.received_s * 1e3 - drift_ms)
            highs.append(reading.exchange_ms + step_ms - reading.sent_s * 1e3 + drift_ms)
        return max(lows), min(highs)
