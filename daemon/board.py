"""The live table: what a consumer of the published forecasts sees. Pure; rendering is Rich's."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import ConsoleRenderable

_RECENT = 500
_DISPENSABLE = ("interval", "n", "ready ms", "happened", "err÷last", "change")
"""Columns that give way on a narrow terminal, in this order; no number is ever cut."""

_GAP = 2
_DECIMALS = 9
_FRAME_ROWS = 6
"""Rows that are not symbols: title, header, rule, two blank ones, and the cursor's."""


class Outcome(NamedTuple):
    """How one forecast turned out; both returns are relative to the close it started from."""

    predicted: float
    realised: float

    @property
    def hit(self) -> bool | None:
        """Whether the direction was right; None when either did not move."""
        sign = self.predicted * self.realised
        return None if sign == 0.0 else sign > 0.0


class Row:
    """One symbol: its newest forecast, the outcome of the one before, and the running errors."""

    def __init__(self) -> None:
        """Start without any forecast."""
        self.message: Mapping[str, Any] | None = None
        self.outcome: Outcome | None = None
        self.scored = 0
        self.model_error = 0.0
        self.last_value_error = 0.0

    def update(self, message: Mapping[str, Any]) -> bool:
        """Take in the next forecast; its starting close is what became of the one before.

        Returns:
            False for one that was seen already: retained messages and reconnections repeat them.
        """
        before = self.message
        if before is not None and message["seq"] <= before["seq"]:
            return False
        self.message = message
        if before is None or before["target_close_ms"] != message["candle_close_ms"]:
            return True
        last = before["last_close"]
        happened = message["last_close"]
        self.outcome = Outcome(before["predicted_close"] / last - 1, happened / last - 1)
        self.scored += 1
        self.model_error += abs(self.outcome.predicted - self.outcome.realised)
        self.last_value_error += abs(self.outcome.realised)
        return True

    @property
    def mae_ratio(self) -> float | None:
        """Sum of errors ÷ sum of the last-value forecast's errors; None before both are known."""
        return self.model_error / self.last_value_error if self.last_value_error else None


class Board:
    """All symbols at a glance."""

    def __init__(self, title: str) -> None:
        """Create an empty board under a title."""
        self.title = title
        self.rows: dict[str, Row] = {}
        self.forecasts = 0
        self.late = 0
        self._ready_ms: deque[float] = deque(maxlen=_RECENT)

    def update(self, message: Mapping[str, Any]) -> Row:
        """Take in one published forecast, decoded; returns its symbol's row."""
        row = self.rows.setdefault(message["symbol"], Row())
        if not row.update(message):
            return row
        self.forecasts += 1
        self.late += bool(message["late"])
        self._ready_ms.append(message["latency_ms"]["ready"])
        return row

    def latency_ms(self, quantile: float) -> float | None:
        """A quantile (0 to 1) of the last 500 latencies, nearest rank; None before the first."""
        if not self._ready_ms:
            return None
        ordered = sorted(self._ready_ms)
        return ordered[max(0, math.ceil(quantile * len(ordered)) - 1)]

    def summary(self) -> str:
        """Forecasts, latency and error against the last value in one line."""
        return " · ".join(self._parts())

    def _parts(self) -> list[str]:
        p50, p99 = self.latency_ms(0.5), self.latency_ms(0.99)
        if p50 is None or p99 is None:
            return ["no forecast yet"]
        rows = list(self.rows.values())
        error = sum(row.model_error for row in rows)
        last_value_error = sum(row.last_value_error for row in rows)
        scored = sum(row.scored for row in rows)
        ratio = f"{error / last_value_error:.3f}" if last_value_error else "–"
        return [
            f"{self.forecasts} forecasts, {self.late} late",
            f"ready p50 {p50:.2f} ms, p99 {p99:.2f} ms",
            f"error ÷ last value's {ratio} (n={scored})",
        ]

    def render(self, width: int, height: int) -> ConsoleRenderable:
        """Draw the board for a terminal of so many columns and rows."""
        summary = _filled(self._parts(), width)
        symbols = sorted(self.rows)
        room = max(1, height - _FRAME_ROWS - len(summary))
        if len(symbols) > room:
            hidden = len(symbols) - (room - 1)
            symbols = symbols[: room - 1]
            summary = [f"… and {hidden} more symbols", *summary]
        columns = _fitting(_columns(symbols, self.rows), width)
        table = Table(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            padding=(0, 1),
            pad_edge=False,
            collapse_padding=True,
        )
        for name, _ in columns:
            table.add_column(
                Text(name, style="bold"), justify="left" if name == "symbol" else "right"
            )
        for cells in zip(*(cells for _, cells in columns), strict=True):
            table.add_row(*cells)
        title = Text(self.title, style="bold cyan", no_wrap=True, overflow="ellipsis")
        return Group(title, "", table, "", *(Text(line, style="dim") for line in summary))


Column = tuple[str, list[Text]]


def _columns(symbols: Sequence[str], rows: Mapping[str, Row]) -> list[Column]:
    """Every column with its cells, one a symbol."""
    known = [(symbol, row, row.message) for symbol in symbols if (row := rows[symbol]).message]
    cells = [_cells(symbol, row, message) for symbol, row, message in known if message]
    names = cells[0] if cells else {}
    return [(name, [row[name] for row in cells]) for name in names]


def _fitting(columns: list[Column], width: int) -> list[Column]:
    """Leave out columns until the others fit; the symbols' names are cut only then."""
    for name in _DISPENSABLE:
        widths = [max(len(title), *(len(cell) for cell in cells)) for title, cells in columns]
        if sum(widths) + _GAP * len(widths) <= width:
            break
        columns = [column for column in columns if column[0] != name]
    return columns


def _filled(parts: Iterable[str], width: int) -> list[str]:
    """Parts in as few lines as a width allows; none is broken."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) + 3 <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return lines


def _cells(symbol: str, row: Row, message: Mapping[str, Any]) -> dict[str, Text]:
    change, interval, ratio = message["predicted_return"], message["interval"], row.mae_ratio
    band = "–"
    if interval is not None:
        band = f"{_price(interval['lower'])} … {_price(interval['upper'])}"
    late = "!" if message["late"] else " "
    return {
        "symbol": Text(symbol, no_wrap=True, overflow="ellipsis"),
        "close": _number(_price(message["last_close"])),
        "forecast": _number(_price(message["predicted_close"]), "bold"),
        "change": _number(f"{change:+.3%}", _colour(change)),
        "interval": _number(band),
        "happened": _happened(row.outcome),
        "err÷last": _number("–" if ratio is None else f"{ratio:.3f}"),
        "n": _number(str(row.scored)),
        "ready ms": _number(
            f"{message['latency_ms']['ready']:.2f}{late}", "yellow" if message["late"] else ""
        ),
    }


def _number(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True)


def _happened(outcome: Outcome | None) -> Text:
    if outcome is None:
        return _number("–  ")
    mark = {True: "✓", False: "✗", None: " "}[outcome.hit]
    return _number(f"{outcome.realised:+.3%} {mark}", _colour(outcome.realised))


def _colour(change: float) -> str:
    return "green" if change > 0 else "red" if change < 0 else ""


def _price(value: float) -> str:
    """Seven significant digits, six below one: tells a forecast from the close before it."""
    before_point = math.floor(math.log10(value)) + 1
    wanted = 7 if before_point > 0 else 6
    return f"{value:.{max(0, min(_DECIMALS, wanted - before_point))}f}"
