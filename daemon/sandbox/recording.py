"""Recorded candles replayed on a time grid.

The recordings in ``daemon/sandbox/data`` are derived from Binance spot data; their licence lies
beside them. Which length the recorded candles had does not matter here: row after row becomes
candle after candle of whatever grid is asked for, one second each in the demo.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from model.core.candle import Ohlcv, Timeframe
from model.core.errors import CandlecastError
from model.files.candle_files import ordered_rows
from model.files.csv_reader import STRICT, FileRules

if TYPE_CHECKING:
    from numpy.typing import NDArray

DATA: Final = Path(__file__).parent / "data"
RECORDING_15M: Final = DATA / "slim_BTCUSDT-15m_2025-01_05.csv.gz"

_DECIMALS: Final = 8
"""Of volumes, and at most of prices from 0.01 up; smaller prices have as many more as it takes for
seven significant digits."""


@dataclass(frozen=True)
class Recording:
    """Candles in the order in which they happened.

    Attributes:
        ohlcv: float64[rows, 5], prices in quote and volume in base currency.
        decimals: decimal places that every price can be written in.
    """

    ohlcv: NDArray[np.float64]
    decimals: int


def load_recording(path: Path, rules: FileRules = STRICT) -> Recording:
    """Read a file of candles as docs/candle-files.md describes; periods without one are left out.

    Args:
        path: the file.
        rules: what is done about rows that cannot be used.

    Raises:
        CandlecastError: not a file of candles, or too many rows cannot be used.
    """
    ohlcv = ordered_rows(path, rules).ohlcv
    return Recording(ohlcv, _decimals(ohlcv[:, :4]))


def _decimals(prices: NDArray[np.float64]) -> int:
    most = max(_DECIMALS, 6 - math.floor(math.log10(prices.min())))
    for decimals in range(most):
        if np.array_equal(np.round(prices, decimals), prices):
            return decimals
    return most


@dataclass(frozen=True)
class Playback:
    """Every symbol's candles on one grid: pure, the same answer whenever it is asked.

    Symbol ``i`` plays the rows from ``starts[i]`` on. Its candle 0 opens at ``origin_ms``: before
    that the symbol was not listed. After ``slice_rows`` candles the slice starts over, with
    whatever price jump lies between its last and its first row.

    Attributes:
        recording: the candles shared by all symbols.
        timeframe: length of the candles.
        origin_ms: opening of every symbol's first candle, Unix milliseconds; the grid begins there.
        starts: first row of each symbol (ccxt symbol to row).
        slice_rows: candles before a slice starts over.
    """

    recording: Recording
    timeframe: Timeframe
    origin_ms: int
    starts: dict[str, int]
    slice_rows: int

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every listed ccxt symbol."""
        return tuple(self.starts)

    def candle(self, symbol: str, open_ms: int) -> Ohlcv:
        """The whole candle that opens at ``open_ms``.

        Raises:
            KeyError: unknown symbol.
            ValueError: ``open_ms`` is off the grid or before the listing.
        """
        return Ohlcv(*self.recording.ohlcv[self._row(symbol, open_ms)].tolist())

    def forming(self, symbol: str, open_ms: int, fraction: float) -> Ohlcv:
        """The candle as it stands after ``fraction`` (0 to 1) of its time.

        The price walks in straight lines from the open to the extreme against the candle's
        direction, to the other extreme and to the close. At 0 nothing was traded, at 1 it is the
        whole candle.
        """
        whole = self.candle(symbol, open_ms)
        if fraction >= 1.0:
            return whole
        o, h, low, c, _ = whole
        first, second = (low, h) if c >= o else (h, low)
        corners = (o, first, second, c)
        at = 3.0 * max(fraction, 0.0)
        leg = int(at)
        price = corners[leg] + (corners[leg + 1] - corners[leg]) * (at - leg)
        # Rounding must not leave the range of a recording with more decimals than a price has.
        price = min(max(round(price, self.recording.decimals), low), h)
        seen = (*corners[: leg + 1], price)
        volume = round(whole.volume * max(fraction, 0.0), _DECIMALS)
        return Ohlcv(o, max(seen), min(seen), price, min(volume, whole.volume))

    def history(
        self, symbol: str, start_ms: int, end_ms: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Whole candles that open in ``[start_ms, end_ms)``, ascending.

        Returns:
            Opening times in Unix milliseconds, int64[rows], and float64[rows, 5].
        """
        step = self.timeframe.ms
        first = max(-(-(start_ms - self.origin_ms) // step), 0)
        last = -(-(end_ms - self.origin_ms) // step)
        index = np.arange(first, max(last, first), dtype=np.int64)
        rows = self.starts[symbol] + index % self.slice_rows
        return self.origin_ms + index * step, self.recording.ohlcv[rows]

    def index(self, open_ms: int) -> int:
        """How many candles after the listing the one opening at ``open_ms`` is.

        Raises:
            ValueError: ``open_ms`` is off the grid or before the listing.
        """
        index, off = divmod(open_ms - self.origin_ms, self.timeframe.ms)
        if off or index < 0:
            msg = f"no candle opens at {open_ms}"
            raise ValueError(msg)
        return index

    def _row(self, symbol: str, open_ms: int) -> int:
        return self.starts[symbol] + self.index(open_ms) % self.slice_rows


def build_playback(
    count: int,
    timeframe: Timeframe,
    origin_ms: int,
    *,
    recording: Recording | None = None,
    slice_rows: int = 3_600,
) -> Playback:
    """List ``S00/USDT``, ``S01/USDT`` … each on its own slice of one recording.

    Slices are spread evenly over the recording. They overlap when ``count * slice_rows`` exceeds
    it (four symbols of the default length just fit), but no two start at the same row. Without a
    ``recording`` a file is read: not for the event loop.

    Args:
        count: number of symbols, at least 1.
        timeframe: length of the candles.
        origin_ms: opening of every symbol's first candle, Unix milliseconds; the grid begins there.
        recording: the candles to play; the 15-minute recording when None.
        slice_rows: candles per symbol before its slice starts over.

    Raises:
        CandlecastError: the recording is too short for that many different slices.
    """
    recording = recording or load_recording(RECORDING_15M)
    total = len(recording.ohlcv)
    rows = min(slice_rows, total - count + 1)
    if count < 1 or rows < 1:
        msg = f"{total} recorded candles do not give {count} different slices"
        raise CandlecastError(msg)
    width = max(2, len(str(count - 1)))
    spread = max(count - 1, 1)
    starts = {f"S{i:0{width}d}/USDT": i * (total - rows) // spread for i in range(count)}
    return Playback(recording, timeframe, origin_ms, starts, rows)
