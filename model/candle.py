"""The candle: an immutable value that refuses the impossible."""

from __future__ import annotations

import math
import re
from typing import Final, Literal, NamedTuple, Self

from model.errors import BadCandle, ConfigError

FinalBy = Literal["exchange_flag", "successor", "rest"]

_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_MONDAY_MS: Final = 345_600_000
"""The Unix epoch was a Thursday; exchanges open their weeks on Mondays."""

_EARLIEST_MS: Final = 1_230_768_000_000
"""2009-01-01: nothing that candlecast trades was priced before."""


class Timeframe(NamedTuple):
    """A candle length of fixed duration, e.g. ``Timeframe.parse("15m")``.

    Attributes:
        text: the ccxt name.
        ms: duration in milliseconds.
        origin_ms: any boundary of the grid, in Unix milliseconds.
    """

    text: str
    ms: int
    origin_ms: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a ccxt timeframe.

        Raises:
            ConfigError: not a timeframe, or one without a fixed duration (months, years).
        """
        match = re.fullmatch(r"([1-9]\d{0,3})([smhdw])", text)
        if match is None:
            msg = f"timeframe {text!r} is not a fixed duration; use e.g. 1s, 1m, 15m, 1h, 1d or 1w"
            raise ConfigError(msg)
        count, unit = int(match[1]), match[2]
        return cls(text, count * _UNIT_MS[unit], _MONDAY_MS if unit == "w" else 0)

    def floor(self, at_ms: float) -> int:
        """The last boundary at or before ``at_ms`` (Unix milliseconds)."""
        return int((at_ms - self.origin_ms) // self.ms) * self.ms + self.origin_ms

    def on_grid(self, at_ms: int) -> bool:
        """Whether a candle can open at ``at_ms`` (Unix milliseconds)."""
        return (at_ms - self.origin_ms) % self.ms == 0


class Ohlcv(NamedTuple):
    """Prices in quote currency, and volume in the unit of the exchange's history by REST."""

    open: float
    high: float
    low: float
    close: float
    volume: float


class Candle(NamedTuple):
    """One candle of one symbol; ``final_by`` is None while it is still forming.

    Attributes:
        symbol: ccxt symbol.
        open_ms: opening boundary, Unix milliseconds.
        close_ms: closing boundary (= the next candle's opening), Unix milliseconds.
        ohlcv: prices and volume.
        received_ms: wall clock at which its message arrived, Unix milliseconds.
        received_s: the same instant on the monotonic clock, seconds.
        final_by: how it is known to be closed.
        filled: True when the exchange reported no trade and the last close stands in.
    """

    symbol: str
    open_ms: int
    close_ms: int
    ohlcv: Ohlcv
    received_ms: int
    received_s: float
    final_by: FinalBy | None = None
    filled: bool = False


def check_ohlcv(values: tuple[object, ...] | list[object]) -> Ohlcv:
    """Turn five outside values into prices and volume.

    Args:
        values: open, high, low, close, volume as numbers.

    Raises:
        BadCandle: a value is missing, not a number, not finite, or contradicts another.
    """
    try:
        o, h, low, c, v = map(float, values)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        msg = f"candle values are not five numbers: {error}"
        raise BadCandle(msg) from None
    # Plain comparisons are False as soon as one side is NaN; min() and max() may lose it.
    if not (0.0 < low <= o <= h < math.inf and low <= c <= h and 0.0 <= v < math.inf):
        msg = f"impossible candle: open {o} high {h} low {low} close {c} volume {v}"
        raise BadCandle(msg)
    return Ohlcv(o, h, low, c, v)


def check_open_ms(value: object, timeframe: Timeframe, now_ms: float) -> int:
    """Check an opening time from outside against the grid and the clock.

    Raises:
        BadCandle: not an integer, off the grid, before 2009 or beyond the next boundary.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"candle time is not an integer of milliseconds: {value!r}"
        raise BadCandle(msg)
    if not (_EARLIEST_MS <= value <= now_ms + timeframe.ms):
        msg = f"candle time {value} lies outside 2009 … now + one candle"
        raise BadCandle(msg)
    if not timeframe.on_grid(value):
        msg = f"candle time {value} is not a boundary of {timeframe.text}"
        raise BadCandle(msg)
    return value
