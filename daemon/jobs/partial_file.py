"""Keep the candles of a fetch in a file that is named when it is complete."""

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

_NOTHING_MS: Final = -1


class Held(NamedTuple):
    """What a file holds.

    Attributes:
        candles: how many.
        first_ms: opening of the first, Unix milliseconds; -1 without any.
        last_ms: opening of the last; -1 without any.
    """

    candles: int = 0
    first_ms: int = _NOTHING_MS
    last_ms: int = _NOTHING_MS


class Market(NamedTuple):
    """Where candles come from.

    Attributes:
        exchange: ccxt id.
        endpoint_rest: scheme, host and port instead of the exchange's own; None keeps them.
        timeframe: candle length.
    """

    exchange: str
    endpoint_rest: str | None
    timeframe: Timeframe


class PartialFile:
    """One symbol's rows as far as they have come.

    Its name says the exchange and its address, so that no other one's candles follow.

    Attributes:
        held: what it holds.
    """

    def __init__(self, folder: Path, market: Market, symbol: str, span: tuple[int, int]) -> None:
        """Nothing is opened yet.

        Args:
            folder: where the file goes; created when missing.
            market: where its candles come from.
            symbol: ccxt symbol.
            span: opening of the first candle and of the first one beyond, Unix milliseconds.
        """
        self.held = Held()
        self._folder = folder
        self._symbol = symbol
        self._timeframe = market.timeframe
        self._span = span
        named = csv_name(symbol, market.timeframe.text, span[0], span[0]).rpartition("_to_")[0]
        source = market.exchange
        if market.endpoint_rest is not None:
            source += f"@{quote(market.endpoint_rest, safe='')}"
        self._path = folder / f"{named}.{source}.partial"

    def resume(self) -> int:
        """Drop a line that was cut; give the last candle's opening time, or -1 for none."""
        self._folder.mkdir(parents=True, exist_ok=True)
        text = ""
        if self._path.exists():
            text = self._path.read_text(encoding="utf-8", errors="replace")
        whole = text[: text.rfind("\n") + 1]
        self.held = _held(whole.splitlines(), self._span)
        if self.held.candles == 0:
            self._path.write_text(HEADER + "\n", encoding="utf-8")
        elif whole != text:
            self._path.write_text(whole, encoding="utf-8")
        return self.held.last_ms

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows that follow the last one."""
        if not rows:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(f"{csv_row(open_ms, ohlcv)}\n" for open_ms, ohlcv in rows)
        candles, first_ms, _ = self.held
        first_ms = first_ms if candles else rows[0][0]
        self.held = Held(candles + len(rows), first_ms, rows[-1][0])

    def finish(self) -> Path | None:
        """Make the file durable and give it its name; None where it holds no candle."""
        if self.held.candles == 0:
            self._path.unlink()
            return None
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        name = csv_name(self._symbol, self._timeframe.text, self.held.first_ms, self.held.last_ms)
        return self._path.replace(self._folder / name)


def _held(lines: Sequence[str], span: tuple[int, int]) -> Held:
    """What the lines hold; nothing if they are not what `PartialFile` writes."""
    if not lines or lines[0] != HEADER:
        return Held()
    try:
        opened = [int(line.partition(",")[0]) for line in lines[1:]]
    except ValueError:
        return Held()
    rising = all(before < after for before, after in pairwise(opened))
    if not opened or not rising or opened[0] < span[0] or opened[-1] >= span[1]:
        return Held()
    return Held(len(opened), opened[0], opened[-1])
