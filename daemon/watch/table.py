"""The board as a table for a terminal. Pure; rendering is Rich's."""

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

_DISPENSABLE: Final = (
    *("interval", "left", "recent", "n"),
    *("ready ms", "happened", "err÷last", "change"),
)
"""Columns that give way on a narrow terminal, in this order; no number is ever cut."""

_LEFT: Final = ("symbol", "recent")
_BARS: Final = "▁▂▃▄▅▆▇█"
_GAP: Final = 2
_PLAIN: Final = (1e-6, 1e15)
"""Prices outside are written with an exponent."""
_FRAME_ROWS: Final = 6
"""Rows that are not symbols: title, header, rule, two blank ones, and the cursor's."""

Column = tuple[str, list[Text]]


def render(
    board: Board, size: tuple[int, int], now_ms: int, look: TableView, keys: str = ""
) -> ConsoleRenderable:
    """Draw a board.

    Args:
        board: what there is to show.
        size: columns and rows of the terminal.
        now_ms: Unix time in milliseconds; what has expired by then is no forecast.
        look: which rows, in which order.
        keys: a line that explains the keys; empty where there are none.
    """
    width, height = size
    foot = [*_states(board), *_filled(board.parts(), width), *([keys] if keys else [])]
    rows = board.chosen(look.pattern, look.sort, now_ms)
    room = max(1, height - _FRAME_ROWS - len(foot))
    if len(rows) > room:
        shown = look.visible(len(rows), max(1, room - 1))
        foot = [_hidden(len(rows), shown), *foot]
        rows = rows[shown]
    title = Text(board.title, style="bold cyan", no_wrap=True, overflow="ellipsis")
    lines = [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in foot]
    return Group(title, _second_line(board, look), _table(rows, width, now_ms), "", *lines)


def _second_line(board: Board, look: TableView) -> Text:
    """Trouble, or the filter, or nothing."""
    if board.trouble is not None:
        return Text(board.trouble, style="bold yellow", no_wrap=True, overflow="ellipsis")
    if look.typing or look.pattern:
        return Text(f"filter: {look.pattern}{'▏' if look.typing else ''}", no_wrap=True)
    return Text("")


def _states(board: Board) -> list[str]:
    """Instances that are not as they should be."""
    states = sorted(list(board.states.items()))  # noqa: C414 - another thread may be adding
    troubled = [f"{name} is {state}" for name, state in states if state != "online"]
    return [", ".join(troubled)] if troubled else []


def _hidden(rows: int, shown: slice) -> str:
    above, below = shown.start, rows - shown.stop
    return f"… and {above + below} more symbols" + (f", {above} of them above" if above else "")


def _table(rows: Sequence[tuple[str, Row]], width: int, now_ms: int) -> Table:
    columns = _fitting(_columns(rows, now_ms), width)
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1),
        pad_edge=False,
        collapse_padding=True,
    )
    for name, _ in columns:
        table.add_column(Text(name, style="bold"), justify="left" if name in _LEFT else "right")
    for cells in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*cells)
    return table


def _columns(rows: Sequence[tuple[str, Row]], now_ms: int) -> list[Column]:
    """Every column with its cells, one a symbol."""
    cells = [_cells(name, row, now_ms) for name, row in rows]
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
        "close": _number(_price(message["last_close"])),
        "forecast": _number(_price(message["predicted_close"]), "bold")
        if valid
        else _number("no forecast", "bold yellow"),
        "change": _number(f"{change:+.3%}", _colour(change)) if valid else _number("–"),
        "interval": _number(band),
        "left": _number(_left(message["valid_until_ms"] - now_ms), "" if valid else "yellow"),
        "happened": _happened(row.outcome),
        "err÷last": _number("–" if ratio is None else f"{ratio:.3f}"),
        "n": _number(str(row.scored)),
        "ready ms": _number(
            f"{message['latency_ms']['ready']:.2f}{late}", "yellow" if message["late"] else ""
        ),
    }


def _recent(row: Row, *, valid: bool) -> Text:
    """The last closes as bars of eight heights, and the forecast after them."""
    closes = list(row.closes)
    prices = [*closes, row.message["predicted_close"]] if valid else closes
    low, high = min(prices), max(prices)
    steps = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    bars = [_BARS[round((price - low) * steps)] for price in prices]
    text = Text("".join(bars[: len(closes)]), no_wrap=True)
    return text.append("".join(bars[len(closes) :]), style="bold cyan")


def _left(ms: int) -> str:
    """For how long a forecast holds, or, with a minus, since when there is none."""
    seconds = math.ceil(ms / 1000) if ms > 0 else math.floor(-ms / 1000)
    units = ((1, "s", 120), (60, "min", 7_200), (3_600, "h", 172_800), (86_400, "d", math.inf))
    size, unit = next((size, unit) for size, unit, below in units if seconds < below)
    return f"{'' if ms > 0 else '−'}{seconds // size} {unit}"


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
    """Seven significant digits, six below one: tells a forecast from the close before it.

    >>> [_price(value) for value in (65000.0, 0.0123456, 1.2345e-10)]
    ['65000.00', '0.0123456', '1.23450e-10']
    """
    least, most = _PLAIN
    if not least <= value < most:
        return f"{value:.5e}"
    before_point = math.floor(math.log10(value)) + 1
    wanted = 7 if before_point > 0 else 6
    return f"{value:.{max(0, wanted - before_point)}f}"
