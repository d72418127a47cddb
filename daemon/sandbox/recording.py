"""Load recorded candles and replay them on a time grid.

The recordings in ``daemon/sandbox/data`` are derived from Binance spot data; their licence is in
the same folder. The timeframe of the recording is ignored: each row becomes one candle of the
requested timeframe, e.g. one second in the demo.
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

_MAX_DECIMALS: Final = 8
"""Decimal places of volumes, and of prices from 0.01 up. Smaller prices have more, for seven
significant digits."""


@dataclass(frozen=True)
class Recording:
    """Candles in order of time.

    Attributes:
        ohlcv: float64[rows, 5], prices in quote and volume in base currency.
        decimals: decimal places that represent every price exactly.
    """

    ohlcv: NDArray[np.float64]
    decimals: int


def load_recording(path: Path, rules: FileRules = STRICT) -> Recording:
    """Read a candle file as docs/candle-files.md describes; missing periods are not filled.

    Args:
        path: the file.
        rules: how invalid rows are handled.

    Raises:
        CandlecastError: not a candle file, or too many rows are invalid.
    """
    ohlcv = ordered_rows(path, rules).ohlcv
    return Recording(ohlcv, _decimals(ohlcv[:, :4]))


def _decimals(prices: NDArray[np.float64]) -> int:
    most = max(_MAX_DECIMALS, 6 - math.floor(math.log10(prices.min())))
    for decimals in range(most):
        if np.array_equal(np.round(prices, decimals), prices):
            return decimals
    return most


@dataclass(frozen=True)
class Playback:
    """Every symbol's candles on one time grid. Pure.

    Each symbol replays ``slice_rows`` rows from its row in ``starts`` on, then repeats them. The
    price jumps where the slice repeats.

    Attributes:
        recording: the candles shared by all symbols.
        timeframe: length of the candles.
        origin_ms: opening of every symbol's first candle, Unix milliseconds; start of the grid.
        starts: first row of each symbol (ccxt symbol to row).
        slice_rows: candles before a slice repeats.
    """

    recording: Recording
    timeframe: Timeframe
    origin_ms: int
    starts: dict[str, int]
    slice_rows: int

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every ccxt symbol."""
        return tuple(self.starts)

    def candle(self, symbol: str, open_ms: int) -> Ohlcv:
        """The complete candle that opens at ``open_ms``.

        Raises:
            KeyError: unknown symbol.
            ValueError: ``open_ms`` is off the grid or before ``origin_ms``.
        """
        return Ohlcv(*self.recording.ohlcv[self._row(symbol, open_ms)].tolist())

    def forming(self, symbol: str, open_ms: int, fraction: float) -> Ohlcv:
        """The candle's state after ``fraction`` (0 to 1) of its time.

        The price moves in straight lines from the open to the extreme against the candle's
        direction, then to the other extreme and to the close. At 0 the volume is 0, at 1 the
        candle is complete.
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
        # Rounding must not move the price out of the candle's range.
        price = min(max(round(price, self.recording.decimals), low), h)
        seen = (*corners[: leg + 1], price)
        volume = round(whole.volume * max(fraction, 0.0), _MAX_DECIMALS)
        return Ohlcv(o, max(seen), min(seen), price, min(volume, whole.volume))

    def history(
        self, symbol: str, start_ms: int, end_ms: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Complete candles that open in ``[start_ms, end_ms)``, ascending.

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
        """The number of candles between ``origin_ms`` and ``open_ms``.

        Raises:
            ValueError: ``open_ms`` is off the grid or before ``origin_ms``.
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
    """Create symbols ``S00/USDT``, ``S01/USDT`` …, each on its own slice of one recording.

    Slices are spread evenly over the recording. They overlap if ``count * slice_rows`` exceeds
    its length (four symbols of the default length fit), but no two start at the same row. Without
    ``recording`` this reads a file: do not call it on the event loop.

    Args:
        count: number of symbols, at least 1.
        timeframe: length of the candles.
        origin_ms: opening of every symbol's first candle, Unix milliseconds; start of the grid.
        recording: the candles to replay; the 15-minute recording when None.
        slice_rows: candles per symbol before its slice repeats.

    Raises:
        CandlecastError: the recording is too short for that many different slices.
    """
    recording = recording or load_recording(RECORDING_15M)
    total = len(recording.ohlcv)
    rows = min(slice_rows, total - count + 1)
    if count < 1 or rows < 1:
        msg = f"{total} recorded candles are too few for {count} different slices"
        raise CandlecastError(msg)
    width = max(2, len(str(count - 1)))
    spread = max(count - 1, 1)
    starts = {f"S{i:0{width}d}/USDT": i * (total - rows) // spread for i in range(count)}
    return Playback(recording, timeframe, origin_ms, starts, rows)
