"""Store fetched candles in a partial CSV file that is renamed when it is complete."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from model.files.candle_csv import HEADER, csv_name, csv_row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from daemon.jobs.rest_pages import Row
    from model.core.candle import Timeframe

_NO_CANDLE_MS: Final = -1


class FileContent(NamedTuple):
    """The candles of a file.

    Attributes:
        candles: number of candles.
        first_ms: opening of the first candle, Unix milliseconds; -1 without candles.
        last_ms: opening of the last candle; -1 without candles.
    """

    candles: int = 0
    first_ms: int = _NO_CANDLE_MS
    last_ms: int = _NO_CANDLE_MS


class CandleSource(NamedTuple):
    """Where candles are fetched from.

    Attributes:
        exchange: ccxt id.
        endpoint_rest: scheme, host and port that replace the exchange's; None keeps them.
        timeframe: candle length.
    """

    exchange: str
    endpoint_rest: str | None
    timeframe: Timeframe


class PartialFile:
    """One symbol's fetched rows.

    The file's name contains the exchange and its address, so that candles of different sources
    are never mixed.

    Attributes:
        content: the candles of the file.
    """

    def __init__(
        self, folder: Path, source: CandleSource, symbol: str, span: tuple[int, int]
    ) -> None:
        """Set the file's path; it is not opened yet.

        Args:
            folder: folder of the file; created when missing.
            source: where the candles are fetched from.
            symbol: ccxt symbol.
            span: opening of the first candle, and the end (exclusive), Unix milliseconds.
        """
        self.content = FileContent()
        self._folder = folder
        self._symbol = symbol
        self._timeframe = source.timeframe
        self._span = span
        stem = csv_name(symbol, source.timeframe.text, span[0], span[0]).rpartition("_to_")[0]
        origin = source.exchange
        if source.endpoint_rest is not None:
            origin += f"@{quote(source.endpoint_rest, safe='')}"
        self._path = folder / f"{stem}.{origin}.partial"

    def resume(self) -> int:
        """Read the file and remove an incomplete last line.

        Returns:
            The last candle's opening time, Unix milliseconds; -1 without candles.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        text = ""
        if self._path.exists():
            text = self._path.read_text(encoding="utf-8", errors="replace")
        complete = text[: text.rfind("\n") + 1]
        self.content = _content_of(complete.splitlines(), self._span)
        if self.content.candles == 0:
            self._path.write_text(HEADER + "\n", encoding="utf-8")
        elif complete != text:
            self._path.write_text(complete, encoding="utf-8")
        return self.content.last_ms

    def append(self, rows: Sequence[Row]) -> None:
        """Append rows that follow the last one."""
        if not rows:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(f"{csv_row(open_ms, ohlcv)}\n" for open_ms, ohlcv in rows)
        candles, first_ms, _ = self.content
        first_ms = first_ms if candles else rows[0][0]
        self.content = FileContent(candles + len(rows), first_ms, rows[-1][0])

    def finish(self) -> Path | None:
        """Sync the file and rename it; return its path, or None without candles."""
        if self.content.candles == 0:
            self._path.unlink()
            return None
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        name = csv_name(
            self._symbol, self._timeframe.text, self.content.first_ms, self.content.last_ms
        )
        return self._path.replace(self._folder / name)


def _content_of(lines: Sequence[str], span: tuple[int, int]) -> FileContent:
    """Parse the lines; return no candles if `PartialFile` did not write them."""
    if not lines or lines[0] != HEADER:
        return FileContent()
    try:
        opened = [int(line.partition(",")[0]) for line in lines[1:]]
    except ValueError:
        return FileContent()
    ascending = all(before < after for before, after in pairwise(opened))
    if not opened or not ascending or opened[0] < span[0] or opened[-1] >= span[1]:
        return FileContent()
    return FileContent(len(opened), opened[0], opened[-1])
