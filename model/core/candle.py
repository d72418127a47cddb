"""Define the candle and the timeframe, and check or repair the values of a candle."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Self

from model.core.errors import BadCandle, ConfigError, OffGrid

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

FinalBy = Literal["exchange_flag", "successor", "rest"]

_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_MONDAY_MS: Final = 345_600_000
"""The Unix epoch was a Thursday; most exchanges open their weeks on Mondays."""

EARLIEST_MS: Final = 1_230_768_000_000
"""2009-01-01: no market that candlecast supports is older."""

LATEST_MS: Final = 4_102_444_800_000
"""2100-01-01: later opening times are errors."""

_FIELD_COUNT: Final = 5

LEAST_PRICE: Final = 1e-18
MOST_PRICE: Final = 1e18
MOST_VOLUME: Final = 1e30
"""Prices and volumes beyond these bounds are errors; within them all arithmetic stays finite."""

_MAX_OUTSIDE_FACTOR: Final = 1.1
"""A candle whose price lies outside high and low by a larger factor is not repaired."""


class Timeframe(NamedTuple):
    """A candle length of fixed duration, e.g. ``Timeframe.parse("15m")``.

    Attributes:
        text: the ccxt name.
        ms: duration in milliseconds.
        origin_ms: any boundary of the grid, Unix milliseconds. `parse` assumes the usual one; some
            exchanges use another, which `model.core.grid` finds from their candles.
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
        return cls(
            text,
            count * _UNIT_MS[unit],
            _MONDAY_MS % (count * _UNIT_MS[unit]) if unit == "w" else 0,
        )

    def through(self, boundary_ms: int) -> Self:
        """Return the same length on the grid that has a boundary at ``boundary_ms`` (Unix ms)."""
        return self._replace(origin_ms=boundary_ms % self.ms)

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
        filled: True when the exchange reported no trade and the last close was used instead.
        repaired: True when values contradicted each other or the volume was missing and
            `repair_ohlcv` corrected them.
    """

    symbol: str
    open_ms: int
    close_ms: int
    ohlcv: Ohlcv
    received_ms: int
    received_s: float
    final_by: FinalBy | None = None
    filled: bool = False
    repaired: bool = False

    @property
    def rank(self) -> int:
        """How reliable the values are: 0 filled, 1 repaired, 2 as the exchange sent them.

        A candle replaces another one of the same period only if its rank is not lower.
        """
        return 0 if self.filled else 1 if self.repaired else 2


class Repaired(NamedTuple):
    """Possible prices and volume, and whether a value had to be corrected."""

    ohlcv: Ohlcv
    repaired: bool


def check_ohlcv(values: Sequence[object]) -> Ohlcv:
    """Turn five outside values into prices and volume.

    Args:
        values: open, high, low, close, volume as numbers.

    Raises:
        BadCandle: a value is missing, not a number, outside `LEAST_PRICE` to `MOST_PRICE` or 0 to
            `MOST_VOLUME`, or contradicts another.
    """
    ohlcv = Ohlcv(*_numbers(values))
    if not is_possible(ohlcv):
        raise _impossible(*ohlcv)
    return ohlcv


def is_possible(ohlcv: Ohlcv) -> bool:
    """Whether prices and volume are within their bounds and do not contradict each other."""
    o, h, low, c, v = ohlcv
    # Plain comparisons are False as soon as one side is NaN; min() and max() may lose it.
    ordered = LEAST_PRICE <= low <= o <= h <= MOST_PRICE and low <= c <= h
    return ordered and 0.0 <= v <= MOST_VOLUME


def streamed_ohlcv(values: Sequence[object]) -> Repaired:
    """Turn five values of a stream into prices and volume; replace only a missing volume.

    Prices that contradict each other are refused; the caller fetches that candle by REST instead.

    Args:
        values: open, high, low, close, volume as numbers; the volume may be None or NaN.

    Raises:
        BadCandle: as `check_ohlcv`.
    """
    try:
        ohlcv = Ohlcv(*map(float, values))  # type: ignore[arg-type]
        if is_possible(ohlcv):
            return Repaired(ohlcv, repaired=False)
    except (TypeError, ValueError, OverflowError):
        pass
    # The slow path, for the few updates that fail the checks above: find out what is wrong.
    volume_missing, values = _with_volume(values)
    return Repaired(check_ohlcv(values), volume_missing)


def repair_ohlcv(values: Sequence[object]) -> Repaired:
    """Turn five values of a history into prices and volume; correct them where that is safe.

    Some exchanges send candles whose open (the last trade of the period before) lies outside high
    and low, and never correct them. The range is then widened to include open and close. Swapped
    high and low are swapped back. A missing volume becomes 0.

    Args:
        values: open, high, low, close, volume as numbers; the volume may be None or NaN.

    Raises:
        BadCandle: a price is missing, not a number, out of bounds, or too far outside the range.
    """
    volume_missing, values = _with_volume(values)
    o, h, low, c, v = _numbers(values)
    prices = o, h, low, c
    possible = all(LEAST_PRICE <= price <= MOST_PRICE for price in prices) and 0 <= v <= MOST_VOLUME
    if not possible:
        raise _impossible(o, h, low, c, v)
    lowest, highest = min(prices), max(prices)
    bottom, top = min(low, h), max(low, h)
    swapped_apart = low / h if low > h else 1.0
    if max(highest / top, bottom / lowest, swapped_apart) > _MAX_OUTSIDE_FACTOR:
        raise _impossible(o, h, low, c, v)
    repaired = volume_missing or (low, h) != (lowest, highest)
    return Repaired(Ohlcv(o, highest, lowest, c, v), repaired)


def is_price(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell for each number whether it is from `LEAST_PRICE` to `MOST_PRICE`."""
    priced: NDArray[np.bool_] = (values >= LEAST_PRICE) & (values <= MOST_PRICE)
    return priced


def is_untraded(ohlcv: Ohlcv, close_before: float | None) -> bool:
    """Whether a candle shows no trade: no volume, and one price, that of the close before.

    Exchanges that report no volumes send 0 too, but there the price moves.

    Args:
        ohlcv: prices and volume.
        close_before: of the candle before; None if it is not known.
    """
    price = ohlcv.close
    flat = ohlcv.volume == 0.0 and ohlcv.open == ohlcv.high == ohlcv.low == price
    return flat and close_before in (None, price)


def _numbers(values: Sequence[object]) -> tuple[float, float, float, float, float]:
    try:
        o, h, low, c, v = map(float, values)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        msg = f"candle values are not five numbers: {error}"
        raise BadCandle(msg) from None
    return o, h, low, c, v


def _with_volume(values: Sequence[object]) -> tuple[bool, Sequence[object]]:
    """Return whether the last of five values is missing, and the values with 0 in its place."""
    if len(values) != _FIELD_COUNT:
        return False, values
    volume = values[-1]
    missing = volume is None or (isinstance(volume, float) and math.isnan(volume))
    return missing, [*values[:-1], 0.0] if missing else values


def _impossible(o: float, h: float, low: float, c: float, v: float) -> BadCandle:
    return BadCandle(f"impossible candle: open {o} high {h} low {low} close {c} volume {v}")


def moment(at_ms: int) -> str:
    """Format Unix milliseconds with the day of the week, UTC."""
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%a %Y-%m-%d %H:%M:%S} UTC"


def off_grid_text(at_ms: int, timeframe: Timeframe) -> str:
    """Describe a candle that does not open on the grid, with the last boundary before it."""
    before = moment(timeframe.floor(at_ms))
    return (
        f"candle time {at_ms} ({moment(at_ms)}) is off the {timeframe.text} grid, which has a "
        f"boundary at {before}"
    )


def check_open_ms(value: object, timeframe: Timeframe, now_ms: float) -> int:
    """Check an opening time from outside against the grid and the clock.

    Raises:
        BadCandle: not an integer, before 2009 or beyond the next boundary.
        OffGrid: not a boundary of the grid.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"candle time is not an integer of milliseconds: {value!r}"
        raise BadCandle(msg)
    if not (EARLIEST_MS <= value <= now_ms + timeframe.ms):
        msg = f"candle time {value} lies outside 2009 … now + one candle"
        raise BadCandle(msg)
    if not timeframe.on_grid(value):
        raise OffGrid(off_grid_text(value, timeframe))
    return value
