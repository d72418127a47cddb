"""The live table: what a consumer of the published forecasts sees. Pure; rendering is Rich's."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import ConsoleRenderable

_RECENT = 500
_WIDE = 110


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
        self._model_error = 0.0
        self._last_value_error = 0.0

    def update(self, message: Mapping[str, Any]) -> None:
        """Take in the next forecast; its starting close is what became of the one before."""
        before = self.message
        self.message = message
        if before is None or before["target_close_ms"] != message["candle_close_ms"]:
            return
        last = before["last_close"]
        happened = message["last_close"]
        self.outcome = Outcome(before["predicted_close"] / last - 1, happened / last - 1)
        self.scored += 1
        self._model_error += abs(self.outcome.predicted - self.outcome.realised)
        self._last_value_error += abs(self.outcome.realised)

    @property
    def mae_ratio(self) -> float | None:
        """Sum of errors ÷ sum of the last-value forecast's errors; None before both are known."""
        return self._model_error / self._last_value_error if self._last_value_error else None


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
        row.update(message)
        self.forecasts += 1
        self.late += bool(message["late"])
        self._ready_ms.append(message["latency_ms"]["ready"])
        return row

    def latency_ms(self, quantile: float) -> float | None:
        """A quantile (0 to 1) of the last 500 latencies, nearest rank; None before the first."""
        if not self._ready_ms:
            return None
        ordered = sorted(self._ready_ms)
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]

    def summary(self) -> str:
        """Forecasts, latency and error against the last value in one line."""
        p50, p99 = self.latency_ms(0.5), self.latency_ms(0.99)
        if p50 is None or p99 is None:
            return "no forecast yet"
        scored = sum(row.scored for row in self.rows.values())
        ratios = [row.mae_ratio for row in self.rows.values() if row.mae_ratio is not None]
        error = f"{sum(ratios) / len(ratios):.3f}" if ratios else "–"
        return (
            f"{self.forecasts} forecasts, {self.late} late · ready p50 {p50:.2f} ms, "
            f"p99 {p99:.2f} ms · error ÷ last value's {error} (n={scored})"
        )

    def render(self, width: int) -> ConsoleRenderable:
        """Draw the board for a terminal of ``width`` columns."""
        wide = width >= _WIDE
        table = Table(box=box.SIMPLE_HEAD, expand=False, padding=(0, 1), pad_edge=False)
        table.add_column("symbol", no_wrap=True)
        for name in ("close", "forecast", "change"):
            table.add_column(name, justify="right", no_wrap=True)
        if wide:
            table.add_column("interval", justify="right", no_wrap=True)
        table.add_column("happened", justify="right", no_wrap=True)
        table.add_column("error÷last", justify="right", no_wrap=True)
        table.add_column("n", justify="right", no_wrap=True)
        table.add_column("ready ms", justify="right", no_wrap=True)
        for symbol, row in sorted(self.rows.items()):
            table.add_row(*_cells(symbol, row, wide=wide))
        title = Text(self.title, style="bold", no_wrap=True, overflow="ellipsis")
        return Group(title, table, Text(self.summary(), style="dim"))


def _cells(symbol: str, row: Row, *, wide: bool) -> list[str | Text]:
    message = row.message
    if message is None:
        return [symbol]
    change = message["predicted_return"]
    cells: list[str | Text] = [
        symbol,
        _price(message["last_close"]),
        _price(message["predicted_close"]),
        Text(f"{change:+.3%}", style=_colour(change)),
    ]
    if wide:
        interval = message["interval"]
        cells.append(
            "–"
            if interval is None
            else f"{_price(interval['lower'])} … {_price(interval['upper'])}"
        )
    ratio = row.mae_ratio
    return [
        *cells,
        _happened(row.outcome),
        "–" if ratio is None else f"{ratio:.3f}",
        str(row.scored),
        f"{message['latency_ms']['ready']:.2f}" + ("!" if message["late"] else ""),
    ]


def _happened(outcome: Outcome | None) -> Text:
    if outcome is None:
        return Text("–")
    mark = {True: " ✓", False: " ✗", None: "  "}[outcome.hit]
    return Text(f"{outcome.realised:+.3%}{mark}", style=_colour(outcome.realised))


def _colour(change: float) -> str:
    return "green" if change > 0 else "red" if change < 0 else ""


def _price(value: float) -> str:
    """Seven significant digits, which tells a forecast from the close it starts from."""
    whole = len(str(int(value)))
    return f"{value:.{max(0, min(8, 7 - whole))}f}"
