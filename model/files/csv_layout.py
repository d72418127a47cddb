"""Detect the delimiter, header and columns of a candle CSV file from its first lines."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

COLUMNS: Final = ("timestamp", "open", "high", "low", "close", "volume")
"""Columns of a candle, in the order that a file without a header must have."""

_DELIMITERS: Final = (",", ";", "\t", "|")
_NUMBER: Final = re.compile(r"[-+$€£]?\d[\d.,'’ \u00a0\u202f]*([eE][-+]?\d+)?")
_FIELD_COUNTS: Final = (6, 7, 12)
"""Fields per line without a header: a candle, a candle with its trades, Binance's format."""

_MAX_SHOWN_CHARS: Final = 60

_MIN_ORDERED_SHARE: Final = 0.9
"""Share of rows whose numbers must be possible as open, high, low, close and volume."""

_TIME_NAMES: Final = (
    "open time", "opentime", "time open", "timeopen", "open timestamp", "time period start",
    "timestamp", "ts", "unix timestamp", "unix time", "unixtime", "unix", "epoch",
    "datetime", "date time", "date utc", "datetime utc", "time utc", "utc time", "gmt time",
    "date", "time", "t", "",
)  # fmt: skip
"""Names of the opening time, in lower case without signs; the first match is used."""

_NAMES: Final = {
    "open": ("open", "o", "open price", "openprice", "price open"),
    "high": ("high", "h", "high price", "highprice", "price high", "max"),
    "low": ("low", "l", "low price", "lowprice", "price low", "min"),
    "close": ("close", "c", "close price", "closeprice", "price close", "close last", "price"),
    "volume": ("volume", "vol", "v", "base volume", "volume base", "base asset volume"),
}
_QUOTE_VOLUMES: Final = re.compile(r"quote|taker|turnover|currency|amount|notional")
_CODES: Final = {"XBT": "BTC", "XDG": "DOGE"}


class Layout(NamedTuple):
    """Position of each part of a candle in a line.

    Attributes:
        delimiter: character between two fields.
        skip: lines before the first candle.
        header: the columns' names as the file writes them; empty without a header.
        time: the field of the opening time, or those of its date and its time of day.
        values: the fields of open, high, low, close and volume.
        fields: fields of a line.
    """

    delimiter: str
    skip: int
    header: tuple[str, ...]
    time: tuple[int, ...]
    values: tuple[int, ...]
    fields: int

    def name(self, field: int) -> str:
        """Name of the column of a field for messages."""
        if self.header:
            return self.header[field] or COLUMNS[0]
        return COLUMNS[0] if field in self.time else COLUMNS[1 + self.values.index(field)]


def find_layout(lines: Sequence[str], base: str | None = None) -> Layout:
    """Find the delimiter, the header and the columns.

    Args:
        lines: the file's first lines; titles may stand before header and candles.
        base: base currency, to tell its volume from the quote currency's.

    Raises:
        ValueError: in one sentence, what is missing or ambiguous.
    """
    delimiter = max(_DELIMITERS, key=lambda sign: _recognised_fields(lines, sign))
    rows = [_cells(line, delimiter) for line in lines]
    for at, cells in enumerate(rows):
        if len(cells) > 1 and any(_role(_plain(cell)) for cell in cells):
            return _with_header(delimiter, at, rows, base)
        if sum(map(_is_number, cells)) >= len(COLUMNS) - 1:
            return _without_header(delimiter, at, rows[at:])
    if not any(any(cells) for cells in rows):
        msg = "not a CSV of candles: it is empty"
        raise ValueError(msg)
    start = lines[0].strip()
    shown = repr(start if len(start) <= _MAX_SHOWN_CHARS else f"{start[:_MAX_SHOWN_CHARS]}…")
    msg = (
        f"not a CSV of candles: line 1, {shown}, is neither a header that names the columns "
        f"{', '.join(COLUMNS)} nor numbers separated by , ; | or tab"
    )
    raise ValueError(msg)


def _recognised_fields(lines: Sequence[str], delimiter: str) -> int:
    """Count the fields that are numbers or column names."""
    rows = [_cells(line, delimiter) for line in lines]
    return sum(_is_number(cell) or bool(_role(_plain(cell))) for row in rows for cell in row)


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        row = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return []
    return [cell.strip() for cell in row]


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell) is not None


def _plain(cell: str) -> str:
    return re.sub(r"[\s_\-./()<>\[\]\"']+", " ", cell).strip().lower()


def _role(name: str) -> str | None:
    return next((role for role in list(_NAMES)[:4] if name in _NAMES[role]), None)


def _with_header(
    delimiter: str, at: int, rows: Sequence[Sequence[str]], base: str | None
) -> Layout:
    header, body = list(rows[at]), [row for row in rows[at + 1 :] if any(row)]
    names = [_plain(cell) for cell in header]
    time = _time_fields(names, body)
    prices = [_field(names, role) for role in list(_NAMES)[:4]]
    volume = _volume_field(names, [row for row in body if len(row) >= len(names)], prices, base)
    found = [time[0] if time else None, *prices, volume]
    missing = [name for name, field in zip(COLUMNS, found, strict=True) if field is None]
    if missing:
        msg = f"line {at + 1}: the header lacks the columns {', '.join(missing)}"
        raise ValueError(msg)
    if body and len(body[0]) > len(header) and any(body[0][len(header) :]):
        msg = (
            f"line {at + 2}: {len(body[0])} fields under {len(header)} columns; check for a comma "
            "too many or a column without a name"
        )
        raise ValueError(msg)
    values = tuple(field for field in (*prices, volume) if field is not None)
    return Layout(delimiter, at + 1, tuple(header), time, values, len(header))


def _field(names: Sequence[str], role: str) -> int | None:
    for alias in _NAMES[role]:
        if names.count(alias) > 1:
            msg = f"the header has the column {alias} more than once"
            raise ValueError(msg)
        if alias in names:
            return names.index(alias)
    return None


def _time_fields(names: Sequence[str], body: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """One field, or two where date and time of day have a column each."""
    found = next((names.index(alias) for alias in _TIME_NAMES if alias in names), None)
    if found is None:
        return ()
    if names[found] == "date" and "time" in names:
        day = names.index("time")
        if all(re.match(r"\d{1,2}:?\d\d", row[day]) for row in body[:5] if len(row) > day):
            return found, day
    return (found,)


def _volume_field(
    names: Sequence[str],
    body: Sequence[Sequence[str]],
    prices: Sequence[int | None],
    base: str | None,
) -> int | None:
    """The volume in base currency: by its name, else by what it is worth at the close."""
    if (plain := _field(names, "volume")) is not None:
        return plain
    likely = [
        at
        for at, name in enumerate(names)
        if re.match(r"vol(ume)?\b|.* volume$", name) and not _QUOTE_VOLUMES.search(name)
    ]
    if base is not None:
        of_base = [at for at in likely if _CODES.get(_code(names[at]), _code(names[at])) == base]
        if len(of_base) == 1:
            return of_base[0]
    if len(likely) != 2 or prices[3] is None:  # noqa: PLR2004 - a pair has two currencies
        if base is not None and len(likely) == 1 and _code(names[likely[0]]) not in {"", base}:
            msg = f"the column {names[likely[0]]} is not the volume in {base}, which is needed"
            raise ValueError(msg)
        return likely[0] if len(likely) == 1 else None
    return _base_volume(likely[0], likely[1], prices[3], body)


def _code(name: str) -> str:
    return re.sub(r"\bvol(ume)?\b", "", name).strip().upper()


def _base_volume(one: int, other: int, close: int, body: Sequence[Sequence[str]]) -> int | None:
    """Return the field of the base volume: multiplied by the close it equals the other one."""
    ratios = []
    for row in body:
        a, b, price = (_number_or_zero(row[at]) for at in (one, other, close))
        if min(a, b, price) > 0:
            ratios.append((abs(math.log(b / a / price)), abs(math.log(a / b / price))))
    if not ratios:
        return one
    forward, backward = (sorted(column)[len(ratios) // 2] for column in zip(*ratios, strict=True))
    if min(forward, backward) > math.log(2):
        return None
    return one if forward <= backward else other


def _number_or_zero(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return 0.0


def _without_header(delimiter: str, at: int, body: Sequence[Sequence[str]]) -> Layout:
    """Six or seven fields (the last counts trades), or the twelve of Binance."""
    rows = [row[:-1] if row and not row[-1] else row for row in body if any(row)]
    fields = Counter(len(row) for row in rows).most_common(1)[0][0]
    whole = [row for row in rows if len(row) == fields]
    ordered = fields in _FIELD_COUNTS and sum(map(_is_ordered, whole)) >= _MIN_ORDERED_SHARE * len(
        whole
    )
    if not ordered:
        msg = (
            f"line {at + 1}: without a header the {fields} fields are not clear; add a first line "
            f"that names the columns {', '.join(COLUMNS)}"
        )
        raise ValueError(msg)
    return Layout(delimiter, at, (), (0,), (1, 2, 3, 4, 5), fields)


def _is_ordered(row: Sequence[str]) -> bool:
    """Whether the fields can be open, high, low, close and volume; a mean price is no volume."""
    opened, high, low, close, volume = (
        _number_or_zero(cell.replace(",", ".")) for cell in row[1:6]
    )
    mean_price = low < volume < high
    return max(opened, close) <= high and low <= min(opened, close) and not mean_price
