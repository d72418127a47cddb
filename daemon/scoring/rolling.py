"""Compute rolling figures over the last candles, in constant time per update."""

from __future__ import annotations

from array import array
from math import sqrt
from typing import Final

import numpy as np

from model.forecasts.forecast import Skill


def ratio_of_sums(n: int, sx: float, sy: float, sxx: float, sxy: float, syy: float) -> Skill | None:
    """Ratio of two means from their sums, with its standard error.

    The error is the delta method's: ``sqrt(sum((x - r*y)**2) / (n * (n - 1))) / mean(y)`` with
    ``r = sum(x) / sum(y)`` (W. G. Cochran, *Sampling Techniques*, 3rd ed., 1977, section 2.11,
    without the factor for finite populations).

    Returns:
        None below two values, where all of y is zero, or where rounding is all that is left.
    """
    if n < 2 or sy <= 0.0 or sx < 0.0:  # noqa: PLR2004 - a spread needs two
        return None
    ratio = sx / sy
    # Rounding may leave a residual of exactly zero slightly below it.
    squares = max(sxx - 2.0 * ratio * sxy + ratio * ratio * syy, 0.0)
    return Skill(ratio, sqrt(squares * n / (n - 1)) / sy, n)


class RollingRatio:
    """Sum of model errors ÷ sum of last-value errors over the last ``window`` candles.

    >>> ratio = RollingRatio(window=3)
    >>> for errors in [(9.0, 1.0), (1.0, 2.0), (2.0, 2.0), (3.0, 2.0)]:
    ...     ratio.update(*errors)
    >>> skill = ratio.get()
    >>> skill.mae_ratio, round(skill.stderr, 4), skill.n
    (1.0, 0.2887, 3)
    """

    __slots__ = ("_at", "_sums", "_window", "_x", "_y")

    def __init__(self, window: int) -> None:
        self._window = window
        # Four bytes an error (2,000 symbols keep millions). What is added is read back from the
        # ring, so the same number is taken out again.
        self._x = array("f")
        self._y = array("f")
        self._at = 0
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)

    @property
    def n(self) -> int:
        """Candles held."""
        return len(self._x)

    def update(self, model_error: float, last_value_error: float) -> None:
        """Add one candle; the oldest leaves when the window is full."""
        xs, ys, at = self._x, self._y, self._at
        sx, sy, sxx, sxy, syy = self._sums
        if len(xs) < self._window:
            xs.append(model_error)
            ys.append(last_value_error)
        else:
            x, y = xs[at], ys[at]
            sx, sy, sxx, sxy, syy = sx - x, sy - y, sxx - x * x, sxy - x * y, syy - y * y
            xs[at], ys[at] = model_error, last_value_error
        x, y = xs[at], ys[at]
        self._sums = (sx + x, sy + y, sxx + x * x, sxy + x * y, syy + y * y)
        self._at = at + 1
        if self._at == self._window:
            self._start_round()

    def _start_round(self) -> None:
        """Add up anew, once a window, so that rounding does not pile up."""
        self._at = 0
        x, y = np.array(self._x, np.float64), np.array(self._y, np.float64)
        self._sums = (
            float(x.sum()),
            float(y.sum()),
            float(x @ x),
            float(x @ y),
            float(y @ y),
        )

    def get(self) -> Skill | None:
        """The ratio, or None below two candles or while the price has not moved at all."""
        return ratio_of_sums(len(self._x), *self._sums)


_UNKNOWN: Final = 2


class RollingShare:
    """How often something was true over the last ``window`` candles; None counts for neither.

    >>> share = RollingShare(window=4)
    >>> share.get()
    >>> for hit in [False, True, True, None, False]:
    ...     share.update(hit)
    >>> share.n, round(share.get(), 3)
    (3, 0.667)
    """

    __slots__ = ("_at", "_known", "_ring", "_true", "_window")

    def __init__(self, window: int) -> None:
        self._window = window
        self._ring = bytearray()
        self._at = 0
        self._known = 0
        self._true = 0

    @property
    def n(self) -> int:
        """Answers held, without the None."""
        return self._known

    def update(self, answer: bool | None) -> None:  # noqa: FBT001 - the one value that it takes
        """Add one candle's answer; the oldest leaves when the window is full."""
        code = _UNKNOWN if answer is None else int(answer)
        if len(self._ring) < self._window:
            self._ring.append(code)
        else:
            old = self._ring[self._at]
            self._known -= old != _UNKNOWN
            self._true -= old == 1
            self._ring[self._at] = code
        self._known += code != _UNKNOWN
        self._true += code == 1
        self._at = (self._at + 1) % self._window

    def get(self) -> float | None:
        """Share of true answers, 0 to 1; None when there is none."""
        return self._true / self._known if self._known else None


_COLUMNS: Final = 7


class RollingPool:
    """All symbols together, over the last ``window`` candles.

    Symbols move together, so their errors are averaged per candle first and a candle counts once:
    the standard error of the single errors would be far too small.

    >>> pool = RollingPool(window=10)
    >>> for candle_ms in (0, 60_000):
    ...     pool.update(candle_ms, 1.0, 2.0, hit=True, inside=None)
    ...     pool.update(candle_ms, 3.0, 2.0, hit=None, inside=None)
    >>> pool.skill()
    Skill(mae_ratio=1.0, stderr=0.0, n=2)
    >>> pool.direction(), pool.coverage()
    ((1.0, 2), (None, 0))
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._row_of: dict[int, int] = {}
        # Model error, last-value error, symbols; hits, moves; insides, intervals.
        # numpy reads the table as a whole; single cells are far cheaper to update in the array.
        self._cells = array("d", bytes(8 * window * _COLUMNS))
        self._table = np.frombuffer(self._cells).reshape(window, _COLUMNS)

    def update(
        self,
        candle_ms: int,
        model_error: float,
        last_value_error: float,
        *,
        hit: bool | None,
        inside: bool | None,
    ) -> None:
        """Add one symbol's result of one candle; what is older than the window is left out.

        Args:
            candle_ms: which candle, Unix milliseconds.
            model_error: relative.
            last_value_error: relative.
            hit: whether the direction was right; None for a tie.
            inside: whether the close fell into the interval; None without one.
        """
        row = self._row(candle_ms)
        if row is None:
            return
        cells, at = self._cells, row * _COLUMNS
        cells[at] += model_error
        cells[at + 1] += last_value_error
        cells[at + 2] += 1.0
        if hit is not None:
            cells[at + 3] += hit
            cells[at + 4] += 1.0
        if inside is not None:
            cells[at + 5] += inside
            cells[at + 6] += 1.0

    def _row(self, candle_ms: int) -> int | None:
        row = self._row_of.get(candle_ms)
        if row is not None:
            return row
        row = len(self._row_of)
        if row == self._window:
            oldest_ms = min(self._row_of)
            if candle_ms < oldest_ms:
                return None
            row = self._row_of.pop(oldest_ms)
            self._table[row] = 0.0
        self._row_of[candle_ms] = row
        return row

    def errors(self, after_ms: int) -> list[tuple[int, float, float]]:
        """Candle, mean model error and mean last-value error of candles that are done with.

        Args:
            after_ms: only later ones. The newest is left out: some symbols may be missing in it.
        """
        newest_ms = max(self._row_of, default=0)
        return [
            (candle_ms, model / n, last_value / n)
            for candle_ms, row in sorted(self._row_of.items())
            if after_ms < candle_ms < newest_ms
            for model, last_value, n in [self._table[row, :3].tolist()]
        ]

    def skill(self) -> Skill | None:
        """Ratio of the per-candle averages, its standard error, and the candles it rests on."""
        filled = self._table[: len(self._row_of)]
        x, y = filled[:, 0] / filled[:, 2], filled[:, 1] / filled[:, 2]
        return ratio_of_sums(
            len(filled),
            float(x.sum()),
            float(y.sum()),
            float(x @ x),
            float(x @ y),
            float(y @ y),
        )

    def direction(self) -> tuple[float | None, int]:
        """Share of moves whose direction was right, and the number of moves."""
        return self._share(3)

    def coverage(self) -> tuple[float | None, int]:
        """Share of closes inside their interval, and the number of intervals."""
        return self._share(5)

    def _share(self, column: int) -> tuple[float | None, int]:
        true, n = self._table[:, column].sum(), int(self._table[:, column + 1].sum())
        return (float(true / n) if n else None, n)
