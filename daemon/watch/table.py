"""Draw the board as a table for a terminal, with Rich. No I/O."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import ConsoleRenderable

    from daemon.watch.board import Board, Outcome, Row
    from daemon.watch.keyboard import TableView

_OPTIONAL_COLUMNS: Final = (
    *("interval", "left", "recent", "n"),
    *("ready ms", "happened", "err÷last", "change"),
)
"""Columns that are left out on a narrow terminal, in this order; numbers are never cut."""

_LEFT_ALIGNED: Final = ("symbol", "recent")
_BARS: Final = "▁▂▃▄▅▆▇█"
_COLUMN_GAP: Final = 2
_FIXED_POINT_RANGE: Final = (1e-6, 1e15)
"""Prices outside of it are written with an exponent."""

_FRAME_ROWS: Final = 6
"""Rows without symbols: title, header, rule, two blank ones, and the cursor's."""

Column = tuple[str, list[Text]]


def render(
    board: Board, size: tuple[int, int], now_ms: int, view: TableView, keys: str = ""
) -> ConsoleRenderable:
    """Draw a board.

    Args:
        board: the forecasts to show.
        size: columns and rows of the terminal.
        now_ms: Unix time in milliseconds; forecasts that have expired are not shown.
        view: which rows are shown, in which order.
        keys: a line that explains the keys; empty for none.
    """
    width, height = size
    footer = [*_state_lines(board), *_wrap(board.parts(), width), *([keys] if keys else [])]
    rows = board.select_rows(view.pattern, view.sort, now_ms)
    height_left = max(1, height - _FRAME_ROWS - len(footer))
    if len(rows) > height_left:
        shown = view.visible(len(rows), max(1, height_left - 1))
        footer = [_hidden_line(len(rows), shown), *footer]
        rows = rows[shown]
    title = Text(board.title, style="bold cyan", no_wrap=True, overflow="ellipsis")
    lines = [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in footer]
    return Group(title, _second_line(board, view), _table(rows, width, now_ms), "", *lines)


def _second_line(board: Board, view: TableView) -> Text:
    """Return the connection error, else the filter, else nothing."""
    if board.error is not None:
        return Text(board.error, style="bold yellow", no_wrap=True, overflow="ellipsis")
    if view.typing or view.pattern:
        return Text(f"filter: {view.pattern}{'▏' if view.typing else ''}", no_wrap=True)
    return Text("")


def _state_lines(board: Board) -> list[str]:
    """Return a line of the instances that are not online, if there are any."""
    states = sorted(list(board.states.items()))  # noqa: C414 - another thread may add one
    abnormal = [f"{name} is {state}" for name, state in states if state != "online"]
    return [", ".join(abnormal)] if abnormal else []


def _hidden_line(rows: int, shown: slice) -> str:
    above, below = shown.start, rows - shown.stop
    return f"… and {above + below} more symbols" + (f", {above} of them above" if above else "")


def _table(rows: Sequence[tuple[str, Row]], width: int, now_ms: int) -> Table:
    columns = _fit(_columns(rows, now_ms), width)
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1),
        pad_edge=False,
        collapse_padding=True,
    )
    for name, _ in columns:
        table.add_column(
            Text(name, style="bold"), justify="left" if name in _LEFT_ALIGNED else "right"
        )
    for cells in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*cells)
    return table


def _columns(rows: Sequence[tuple[str, Row]], now_ms: int) -> list[Column]:
    """Return every column with its cells, one a symbol."""
    cells = [_cells(name, row, now_ms) for name, row in rows]
    names = cells[0] if cells else {}
    return [(name, [row[name] for row in cells]) for name in names]


def _fit(columns: list[Column], width: int) -> list[Column]:
    """Leave out columns until the others fit; symbols are cut only if that is not enough."""
    for name in _OPTIONAL_COLUMNS:
        widths = [max(len(title), *(len(cell) for cell in cells)) for title, cells in columns]
        if sum(widths) + _COLUMN_GAP * len(widths) <= width:
            break
        columns = [column for column in columns if column[0] != name]
    return columns


def _wrap(parts: Iterable[str], width: int) -> list[str]:
    """Join parts into as few lines as a width allows; no part is broken."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) + 3 <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return lines


def _cells(name: str, row: Row, now_ms: int) -> dict[str, Text]:
    message, ratio, valid = row.message, row.mae_ratio, row.is_valid(now_ms)
    change, interval = message["predicted_return"], message["interval"]
    band = "–"
    if interval is not None and valid:
        band = f"{_price(interval['lower'])} … {_price(interval['upper'])}"
    late = "!" if message["late"] else " "
    return {
        "symbol": Text(name, no_wrap=True, overflow="ellipsis"),
        "recent": _recent(row, valid=valid),
        "close": _cell(_price(message["last_close"])),
        "forecast": _cell(_price(message["predicted_close"]), "bold")
        if valid
        else _cell("no forecast", "bold yellow"),
        "change": _cell(f"{change:+.3%}", _colour(change)) if valid else _cell("–"),
        "interval": _cell(band),
        "left": _cell(_remaining(message["valid_until_ms"] - now_ms), "" if valid else "yellow"),
        "happened": _outcome(row.outcome),
        "err÷last": _cell("–" if ratio is None else f"{ratio:.3f}"),
        "n": _cell(str(row.scored)),
        "ready ms": _cell(
            f"{message['latency_ms']['ready']:.2f}{late}", "yellow" if message["late"] else ""
        ),
    }


def _recent(row: Row, *, valid: bool) -> Text:
    """Return the last closes as bars of eight heights, then the forecast."""
    closes = list(row.closes)
    prices = [*closes, row.message["predicted_close"]] if valid else closes
    low, high = min(prices), max(prices)
    steps = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    bars = [_BARS[round((price - low) * steps)] for price in prices]
    text = Text("".join(bars[: len(closes)]), no_wrap=True)
    return text.append("".join(bars[len(closes) :]), style="bold cyan")


def _remaining(ms: int) -> str:
    """Return how long a forecast is valid, or, with a minus, how long ago it expired."""
    seconds = math.ceil(ms / 1000) if ms > 0 else math.floor(-ms / 1000)
    units = ((1, "s", 120), (60, "min", 7_200), (3_600, "h", 172_800), (86_400, "d", math.inf))
    size, unit = next((size, unit) for size, unit, below in units if seconds < below)
    return f"{'' if ms > 0 else '−'}{seconds // size} {unit}"


def _cell(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True)


def _outcome(outcome: Outcome | None) -> Text:
    if outcome is None:
        return _cell("–  ")
    mark = {True: "✓", False: "✗", None: " "}[outcome.hit]
    return _cell(f"{outcome.realised:+.3%} {mark}", _colour(outcome.realised))


def _colour(change: float) -> str:
    return "green" if change > 0 else "red" if change < 0 else ""


def _price(value: float) -> str:
    """Return seven significant digits, six below one: enough to tell a forecast from a close.

    >>> [_price(value) for value in (65000.0, 0.0123456, 1.2345e-10)]
    ['65000.00', '0.0123456', '1.23450e-10']
    """
    low, high = _FIXED_POINT_RANGE
    if not low <= value < high:
        return f"{value:.5e}"
    before_point = math.floor(math.log10(value)) + 1
    digits = 7 if before_point > 0 else 6
    return f"{value:.{max(0, digits - before_point)}f}"
