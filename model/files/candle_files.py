"""Sort the rows of candle files, check them against a timeframe and report gaps."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import numpy as np

from model.core.errors import CandlecastError
from model.core.grid import learnt
from model.files.csv_reader import STRICT, FileRules, Finding, Rows, read_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from model.core.candle import Timeframe

    Integers = NDArray[np.int64]

_MAX_PERIODS: Final = 20_000_000
"""Periods without a row are filled; this bounds the memory to 38 years of minutes."""

_MIN_ROWS_FOR_STEP: Final = 10
"""With fewer rows their distance does not show the timeframe reliably."""

_MINUTE_MS: Final = 60_000
"""Candles begin on whole minutes, unless they are shorter."""

_UNITS: Final = (
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
)


def ordered_rows(path: Path, rules: FileRules = STRICT, base: str | None = None) -> Rows:
    """Read a file, oldest row first; of several rows with one opening time keep the last.

    Args:
        path: the file.
        rules: how unusable rows are handled.
        base: base currency, to tell its volume from the quote currency's.

    Raises:
        CandlecastError: not a file of candles, or too many rows cannot be used.
    """
    rows = read_rows(path, base)
    _report_findings(path, rows, rules)
    if not rows.open_ms.size:
        msg = f"{path}: it holds no candle"
        raise CandlecastError(msg)
    _, backward = np.unique(rows.open_ms[::-1], return_index=True)
    kept = len(rows.open_ms) - 1 - backward
    repeated = len(rows.open_ms) - len(kept)
    if repeated > rules.max_filled * len(rows.open_ms):
        msg = (
            f"{path}: {repeated:,} of {len(rows.open_ms):,} rows have the opening time of another; "
            "check that it holds one symbol and one timeframe"
        )
        raise CandlecastError(msg)
    return _select(rows, kept)


def rows_on_grid(
    path: Path, timeframe: Timeframe, rules: FileRules = STRICT, symbol: str | None = None
) -> Rows:
    """Read the rows of a file that open on the boundaries of a timeframe, oldest first.

    Args:
        path: the file.
        timeframe: length of its candles.
        rules: how unusable rows and missing periods are handled.
        symbol: ccxt symbol, where it is known.

    Raises:
        CandlecastError: as `ordered_rows`; candles of another timeframe, or too many periods
            without a row.
    """
    rows = ordered_rows(path, rules, None if symbol is None else symbol.partition("/")[0])
    timeframe = learnt(timeframe, rows.open_ms, _MINUTE_MS) or timeframe
    on_grid = (rows.open_ms - timeframe.origin_ms) % timeframe.ms == 0
    _refuse_other_timeframe(path, rows, on_grid, timeframe, rules.max_filled)
    off = [_off_grid(rows, int(row), timeframe) for row in np.flatnonzero(~on_grid)]
    _report(path, off, "left out", len(rows.open_ms), rules)
    rows = _select(rows, np.flatnonzero(on_grid))
    periods = int(np.ptp(rows.open_ms)) // timeframe.ms + 1
    if periods > _MAX_PERIODS:
        msg = f"{path}: spans {periods:,} candles of {timeframe.text}; check the timestamps"
        raise CandlecastError(msg)
    line, share = filled_share(rows.open_ms.tolist(), timeframe)
    line = f"{path}: {symbol or 'candles'} {timeframe.text}: {line}"
    if share > rules.max_filled:
        msg = f"{line}; model.max_filled allows {100 * rules.max_filled:g} %"
        raise CandlecastError(msg)
    if rules.say is not None:
        rules.say(line)
    return rows


def filled_share(open_ms: Sequence[int], timeframe: Timeframe) -> tuple[str, float]:
    """Describe how many periods of a span have no candle, as a sentence and as a share.

    Args:
        open_ms: opening times, Unix milliseconds, ascending, at least one.
        timeframe: length of the candles.
    """
    first_ms, last_ms = open_ms[0], open_ms[-1]
    periods = (last_ms - first_ms) // timeframe.ms + 1
    filled = periods - len(open_ms)
    share = filled / periods
    line = (
        f"{periods:,} periods from {_utc(first_ms)} to {_utc(last_ms)} UTC, "
        f"{filled:,} of them ({100 * share:.2g} %) filled for lack of a candle"
    )
    return line, share


def _select(rows: Rows, kept: NDArray[np.intp]) -> Rows:
    return rows._replace(open_ms=rows.open_ms[kept], ohlcv=rows.ohlcv[kept], lines=rows.lines[kept])


def _report_findings(path: Path, rows: Rows, rules: FileRules) -> None:
    total = len(rows.open_ms) + len(rows.rejected)
    for note in rows.notes:
        if rules.say is None:
            msg = f"{path}: {note}"
            raise CandlecastError(msg)
        rules.say(f"{path}: {note}; read as that")
    _report(path, rows.rejected, "left out", total, rules)
    _report(path, rows.repaired, "put right", total, rules)


def _report(path: Path, findings: list[Finding], what: str, total: int, rules: FileRules) -> None:
    if not findings:
        return
    if rules.say is None:
        msg = f"{path}: {findings[0]}"
        raise CandlecastError(msg)
    many = f"{len(findings):,} of {total:,} rows"
    if len(findings) > rules.max_filled * total:
        msg = f"{path}: {many} cannot be used as they are, the first: {findings[0]}"
        raise CandlecastError(msg)
    rules.say(f"{path}: {many} are {what}, the first: {findings[0]}")


def _refuse_other_timeframe(
    path: Path, rows: Rows, on_grid: NDArray[np.bool_], timeframe: Timeframe, max_off_share: float
) -> None:
    """Raise an error if the common distance of the candles is that of another timeframe."""
    steps = np.diff(rows.open_ms)
    if len(steps) < _MIN_ROWS_FOR_STEP:
        return
    usual_ms = int(np.median(steps))
    common_ms = int(np.gcd.reduce(steps[on_grid[1:] & on_grid[:-1]], initial=0))
    off = len(on_grid) - int(on_grid.sum())
    longer = common_ms > timeframe.ms and off <= max_off_share * len(on_grid)
    shorter = usual_ms < timeframe.ms and off > max_off_share * len(on_grid)
    if longer or shorter:
        held = common_ms if longer else usual_ms
        msg = f"{path}: holds candles of {_length(held)}, not {timeframe.text}"
        raise CandlecastError(msg)
    if off > max_off_share * len(on_grid):
        msg = f"{path}: {_off_grid(rows, int(np.argmin(on_grid)), timeframe)}"
        raise CandlecastError(msg)


def _off_grid(rows: Rows, row: int, timeframe: Timeframe) -> Finding:
    late_s = (int(rows.open_ms[row]) - timeframe.origin_ms) % timeframe.ms / 1000
    at = datetime.fromtimestamp(int(rows.open_ms[row]) / 1000, UTC)
    shown = f"{at:%Y-%m-%d %H:%M:%S.%f}"[:-3]
    reason = f"{shown} lies {late_s:g} s after a boundary of {timeframe.text}"
    if late_s > 0.9 * timeframe.ms / 1000:
        reason += "; it looks like a closing time: opening times are needed"
    return Finding(int(rows.lines[row]), "timestamp", reason)


def _length(ms: int) -> str:
    """A distance as a timeframe, e.g. ``5m``."""
    for unit, unit_ms in _UNITS:
        if ms % unit_ms == 0:
            return f"{ms // unit_ms}{unit}"
    return f"{ms} ms"


def _utc(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}"
