"""Invented candles, and files that hold them in any way of writing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from model.core.candle import Timeframe
from model.files.candle_files import rows_on_grid
from model.files.csv_reader import FileRules

HEADER = "timestamp,open,high,low,close,volume"
MINUTE = Timeframe.parse("1m")
T = 1_767_225_600_000
ROWS = 40
Row = tuple[int, float, float, float, float, float]


def candle(at: int) -> Row:
    opened, close = 42_000.5 + at % 7, 42_001.25 + at % 5
    return T + 60_000 * at, opened, 42_010.0 + at, 41_990.5 - at, close, 1_234.5 + at


CANDLES = [candle(at) for at in range(ROWS)]


def lines(write: Callable[[Row], str], *before: str) -> str:
    return "\n".join([*before, *map(write, CANDLES)]) + "\n"


def plain(row: Row) -> str:
    return ",".join(map(str, row))


def values(row: Row) -> str:
    return ",".join(map(str, row[1:]))


def read_with_notes(path: Path, share: float = 0.05) -> tuple[list[list[float]], list[str]]:
    """The rows of a file and the notes about it."""
    notes: list[str] = []
    rows = rows_on_grid(path, MINUTE, FileRules(share, notes.append), "BTC/USDT")
    assert rows.open_ms.tolist() == sorted(rows.open_ms.tolist())
    table = [[at, *row] for at, row in zip(rows.open_ms.tolist(), rows.ohlcv.tolist(), strict=True)]
    return table, notes


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "candles.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
