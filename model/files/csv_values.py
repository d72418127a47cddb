"""Detect how a CSV file writes numbers and times, and parse them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

EARLIEST_MS: Final = 1_230_768_000_000
"""2009-01-01."""

LATEST_MS: Final = 4_102_444_800_000
"""2100-01-01."""

_UNITS: Final = (
    ("seconds", 1e3),
    ("milliseconds", 1.0),
    ("microseconds", 1e-3),
    ("nanoseconds", 1e-6),
)
_UNIT_FROM: Final = (0.0, 1e11, 1e14, 1e17)
"""Smallest number that is taken for each unit; the years 1973 to 5138 fit."""

_EXCEL_DAYS: Final = (39_000, 74_000)
"""Excel's day numbers of 2009 to 2100."""

_FORMATS: Final = (
    "%Y-%m-%d %H:%M", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y/%m/%d",
    "%Y.%m.%d %H:%M:%S", "%Y.%m.%d %H:%M", "%Y.%m.%d",
    "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M:%S.%f", "%d.%m.%Y %H:%M", "%d.%m.%Y",
    "%Y-%m-%d %I-%p", "%Y-%m-%d %I:%M:%S %p",
    "%b %d, %Y", "%B %d, %Y", "%d %b %Y", "%d-%b-%Y", "%d %b %Y %H:%M:%S", "%b %d, %Y %H:%M",
)  # fmt: skip
_SLASHED: Final = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_MAX_COMMA_SHARE: Final = 0.05
"""Up to this share of numbers with a comma, the commas are taken for errors."""

_IGNORED_CHARS: Final = re.compile(r"[\s'’$€£]")
_COMPACT_DAY: Final = re.compile(r"20\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")


class Times(NamedTuple):
    """Notation of the opening times.

    Attributes:
        numeric: Unix times; the size of each number shows its unit.
        to_ms: converts the text of a field to Unix milliseconds; raises ValueError.
    """

    numeric: bool
    to_ms: Callable[[str], float]


def find_times(samples: Sequence[str]) -> Times:
    """Find the notation of most samples; times without a zone are UTC.

    Raises:
        ValueError: there is none, or the order of day and month is ambiguous.
    """
    texts = [_without_zone(text) for text in samples]
    half = len(texts) / 2
    if _count(_compact_day, texts) <= half < _count(float, texts) or not texts:
        return Times(numeric=True, to_ms=_unix_ms)
    for reader in (_iso_ms, *map(_format_reader, _FORMATS)):
        if _count(reader, texts) > half:
            return Times(numeric=False, to_ms=reader)
    for rest in _SLASHED:
        both = [_format_reader(f"{order}{rest}") for order in ("%d/%m/%Y", "%m/%d/%Y")]
        day_first, month_first = (_count(reader, texts) for reader in both)
        if max(day_first, month_first) <= half:
            continue
        if day_first == month_first:
            msg = f"{texts[0]!r} may be day/month or month/day; write YYYY-MM-DD"
            raise ValueError(msg)
        return Times(numeric=False, to_ms=both[day_first < month_first])
    odd = next(text for text in texts if not _count(float, [text]))
    msg = f"{odd!r} is not a time; write Unix milliseconds or YYYY-MM-DD HH:MM:SS"
    raise ValueError(msg)


def unit_of(number: float) -> str:
    """Unit of a Unix time, e.g. ``"seconds"``; ``""`` if it is not a time since 2009."""
    name, factor = _UNITS[int(np.searchsorted(_UNIT_FROM[1:], number, side="right"))]
    return name if EARLIEST_MS <= number * factor < LATEST_MS else ""


def cause_of(number: float) -> str:
    """Describe the probable cause of an impossible Unix time, as the end of a sentence."""
    if _EXCEL_DAYS[0] <= number <= _EXCEL_DAYS[1]:
        return "; it looks like a day number of Excel: write YYYY-MM-DD HH:MM:SS"
    return "; times are Unix milliseconds"


def _compact_day(text: str) -> None:
    if not _COMPACT_DAY.fullmatch(text):
        raise ValueError(text)


def unix_ms(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert Unix times, each in the unit that its size shows, to milliseconds."""
    unit = np.searchsorted(_UNIT_FROM[1:], numbers, side="right")
    scaled: NDArray[np.float64] = numbers * np.array([factor for _, factor in _UNITS])[unit]
    return scaled


def _unix_ms(text: str) -> float:
    return float(unix_ms(np.array([float(text)]))[0])


def _without_zone(text: str) -> str:
    return re.sub(r"\s*(UTC|GMT)$", "", text.strip())


def _iso_ms(text: str) -> float:
    moment = datetime.fromisoformat(_without_zone(text))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000


def _format_reader(form: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        moment = datetime.strptime(_without_zone(text), form).replace(tzinfo=UTC)
        return moment.timestamp() * 1000

    return read


def _count(read: Callable[[str], object], texts: Iterable[str]) -> int:
    """Count the texts that can be read."""
    count = 0
    for text in texts:
        with suppress(ValueError, OverflowError):
            read(text)
            count += 1
    return count


def find_numbers(samples: Sequence[str]) -> Callable[[str], float]:
    """Find the notation of most numbers; the returned parser raises ValueError for other text.

    Raises:
        ValueError: it is ambiguous whether a comma separates thousands or decimals.
    """
    texts = [_IGNORED_CHARS.sub("", text) for text in samples]
    with_comma = [text for text in texts if "," in text]
    if len(with_comma) <= _MAX_COMMA_SHARE * len(texts):
        return _plain_number
    comma_decimal = any(map(_has_decimal_comma, texts))
    dot_decimal = any(map(_has_decimal_dot, texts))
    if comma_decimal == dot_decimal:
        msg = f"{with_comma[0]!r}: the comma may separate thousands or decimals; write no comma"
        raise ValueError(msg)
    thousands = "." if comma_decimal else ","

    def read(text: str) -> float:
        return float(_IGNORED_CHARS.sub("", text).replace(thousands, "").replace(",", "."))

    return read


def _plain_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float(_IGNORED_CHARS.sub("", text))


def _has_decimal_comma(text: str) -> bool:
    return _ends_in_decimals(text, ",", ".")


def _has_decimal_dot(text: str) -> bool:
    return _ends_in_decimals(text, ".", ",")


def _ends_in_decimals(text: str, sign: str, other: str) -> bool:
    """Whether ``sign`` can only stand before decimals, or ``other`` only between thousands."""
    if text.count(other) > 1 or (sign in text and text.rfind(sign) > text.rfind(other) >= 0):
        return True
    whole, _, decimals = text.partition(sign)
    return text.count(sign) == 1 and other not in text and (len(decimals) != 3 or whole == "0")  # noqa: PLR2004 - thousands come in threes
