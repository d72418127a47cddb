"""The exchange's time: what its clock says, carried on by this machine's monotonic clock.

Whether a candle has closed and until when a forecast is of use are questions of the exchange's
time. This machine's wall clock may be wrong and may jump; it serves as the first guess, before the
exchange was asked, and is never read again but to tell by how much it is off.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from daemon.runtime.clock import Clock

MAX_ERROR_MS: Final = 1_000.0
"""Beyond it the exchange's time is not known well enough to close a candle by it."""

_KEPT: Final = 16
_AGREEING: Final = 2
"""So many answers must agree before one is believed."""

_DRIFT: Final = 1e-4
"""Quartz clocks run apart by less, so an old reading is still worth something."""

_JUMP_MS: Final = 250.0


class Reading(NamedTuple):
    """One answer to the question what time it is.

    Attributes:
        sent_s: monotonic clock when the question left.
        received_s: monotonic clock when the answer came.
        exchange_ms: the answer, Unix milliseconds.
    """

    sent_s: float
    received_s: float
    exchange_ms: int


class ExchangeClock:
    """A `Clock` whose wall time is the exchange's and never jumps with the machine's.

    Each reading confines the exchange's time: the answer was written after the question left and
    before the answer came. Where all the recent readings overlap, there it is; the quickest
    answers confine it most.
    """

    def __init__(self, machine: Clock) -> None:
        """Start with the machine's wall time, unmeasured."""
        self._machine = machine
        self._readings: deque[Reading] = deque(maxlen=_KEPT)
        self._ahead_ms = self._machine_ahead_ms()
        self._half_ms = float("inf")
        self._measured_s = machine.monotonic()
        self._machine_then_ms = self._ahead_ms

    def wall_ms(self) -> int:
        """The exchange's time as best known, Unix milliseconds."""
        return round(self._ahead_ms + self._machine.monotonic() * 1e3)

    def monotonic(self) -> float:
        """Seconds of the machine's monotonic clock."""
        return self._machine.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Suspend for ``seconds`` of the monotonic clock."""
        await self._machine.sleep(seconds)

    def take(self, reading: Reading) -> None:
        """Learn from an answer; one that contradicts the earlier ones replaces them."""
        self._readings.append(reading)
        low_ms, high_ms = self._confined(reading.received_s)
        if low_ms > high_ms:
            self._readings.clear()
            self._readings.append(reading)
            low_ms, high_ms = self._confined(reading.received_s)
        self._ahead_ms = (low_ms + high_ms) / 2
        self._half_ms = (high_ms - low_ms) / 2
        self._measured_s = reading.received_s
        self._machine_then_ms = self._machine_ahead_ms()

    @property
    def measured(self) -> bool:
        """Whether the exchange has told its time at least once."""
        return bool(self._readings)

    @property
    def error_ms(self) -> float:
        """By how much `wall_ms` may be off now; infinite while nothing was measured."""
        return self._half_ms + _DRIFT * 1e3 * (self._machine.monotonic() - self._measured_s)

    @property
    def trusted(self) -> bool:
        """Whether candles may be taken for closed because their time is over."""
        return len(self._readings) >= _AGREEING and self.error_ms <= MAX_ERROR_MS

    def earliest_ms(self) -> int | None:
        """The exchange's clock shows at least this; None while it is not trusted."""
        return round(self.wall_ms() - self.error_ms) if self.trusted else None

    @property
    def offset_s(self) -> float:
        """By how much the exchange's clock is ahead of this machine's wall clock, seconds."""
        return (self._ahead_ms - self._machine_ahead_ms()) / 1e3

    @property
    def jumped(self) -> bool:
        """Whether the machine's wall clock was set, or the machine slept, since the last answer."""
        return abs(self._machine_ahead_ms() - self._machine_then_ms) > _JUMP_MS

    def _machine_ahead_ms(self) -> float:
        return self._machine.wall_ms() - self._machine.monotonic() * 1e3

    def _confined(self, now_s: float) -> tuple[float, float]:
        """Between what the exchange's time minus the monotonic clock lies, milliseconds."""
        # Some exchanges tell whole seconds, cut off.
        whole_seconds = all(r.exchange_ms % 1_000 == 0 for r in self._readings)
        step_ms = 1_000 if whole_seconds else 1
        lows, highs = [], []
        for reading in self._readings:
            drift_ms = _DRIFT * 1e3 * (now_s - reading.received_s)
            lows.append(reading.exchange_ms - reading.received_s * 1e3 - drift_ms)
            highs.append(reading.exchange_ms + step_ms - reading.sent_s * 1e3 + drift_ms)
        return max(lows), min(highs)
