"""Compute rolling figures over the last candles, in constant time per update.

Symbols are numbered by slots, and what closed together is added by one call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from model.forecasts.forecast import Skill

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Slots = NDArray[np.intp]
    Answers = NDArray[np.int8]

N = TypeVar("N", float, "NDArray[Any]")

YES: Final = 1
NO: Final = -1
UNKNOWN: Final = 0
"""Answers about a forecast, as `RollingShares` and `RollingPool` take them."""


def _ratio(n: N, sx: N, sy: N, sxx: N, sxy: N, syy: N) -> tuple[N, N]:
    """Ratio of two means from their sums, and its standard error.

    The error is the delta method's: ``sqrt(sum((x - r*y)**2) / (n * (n - 1))) / mean(y)`` with
    ``r = sum(x) / sum(y)`` (W. G. Cochran, *Sampling Techniques*, 3rd ed., 1977, section 2.11,
    without the factor for finite populations).
    """
    ratio = sx / sy
    # Rounding may leave a residual of exactly zero slightly below it.
    squares = np.maximum(sxx - 2.0 * ratio * sxy + ratio * ratio * syy, 0.0)
    return ratio, np.sqrt(squares * n / (n - 1)) / sy


def ratio_of_sums(n: int, sx: float, sy: float, sxx: float, sxy: float, syy: float) -> Skill | None:
    """Ratio of two means from their sums, with its standard error.

    Returns:
        None below two values, where all of y is zero, or where rounding is all that is left.
    """
    if n < 2 or sy <= 0.0 or sx < 0.0:  # noqa: PLR2004 - a spread needs two
        return None
    ratio, stderr = _ratio(float(n), sx, sy, sxx, sxy, syy)
    return Skill(float(ratio), float(stderr), n)


def _grown(array: NDArray[Any], rows: int) -> NDArray[Any]:
    """The array with zeros appended, up to so many rows."""
    grown = np.zeros((rows, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown


class RollingRatios:
    """Sum of model errors ÷ sum of last-value errors over each slot's last ``window`` candles.

    >>> ratios, slot = RollingRatios(window=3), np.array([0])
    >>> ratios.resize(1)
    >>> for model, last_value in [(9.0, 1.0), (1.0, 2.0), (2.0, 2.0), (3.0, 2.0)]:
    ...     ratios.add(slot, np.array([model]), np.array([last_value]))
    >>> [skill] = ratios.skills(slot)
    >>> skill.mae_ratio, round(skill.stderr, 4), skill.n
    (1.0, 0.2887, 3)
    """

    def __init__(self, window: int) -> None:
        self._window = window
        # Four bytes an error (2,000 symbols keep millions). What is added is read back from the
        # ring, so the same number is taken out again.
        self._x = np.zeros((0, window), np.float32)
        self._y = np.zeros((0, window), np.float32)
        self._at = np.zeros(0, np.intp)
        self._n = np.zeros(0, np.intp)
        self._sums = np.zeros((0, 5))

    def resize(self, slots: int) -> None:
        """Make room for so many slots."""
        self._x, self._y = _grown(self._x, slots), _grown(self._y, slots)
        self._at, self._n = _grown(self._at, slots), _grown(self._n, slots)
        self._sums = _grown(self._sums, slots)

    def add(self, slots: Slots, model_errors: Floats, last_value_errors: Floats) -> None:
        """Add a candle of each of these slots; the oldest leaves where the window is full.

        Args:
            slots: none of them twice, ``[k]``.
            model_errors: relative, ``[k]``.
            last_value_errors: relative, ``[k]``.
        """
        at = self._at[slots]
        cells = slots, at
        # Where the window is not full, zeros leave.
        without = self._sums[slots] - _terms(self._x[cells], self._y[cells])
        self._x[cells], self._y[cells] = model_errors, last_value_errors
        self._sums[slots] = without + _terms(self._x[cells], self._y[cells])
        self._n[slots] = np.minimum(self._n[slots] + 1, self._window)
        self._at[slots] = (at + 1) % self._window
        for slot in slots[at + 1 == self._window].tolist():
            self._add_up(slot)

    def _add_up(self, slot: int) -> None:
        """Add up anew, once a window, so that rounding does not pile up."""
        x, y = self._x[slot].astype(np.float64), self._y[slot].astype(np.float64)
        self._sums[slot] = x.sum(), y.sum(), x @ x, x @ y, y @ y

    def skills(self, slots: Slots, min_n: int = 2) -> list[Skill | None]:
        """The ratios; None below ``min_n`` candles or while the price has not moved at all."""
        n, sums = self._n[slots], self._sums[slots]
        known = (n >= max(min_n, 2)) & (sums[:, 1] > 0.0) & (sums[:, 0] >= 0.0)
        ratios, stderrs = _ratio(n[known], *sums[known].T)
        found = map(Skill, ratios.tolist(), stderrs.tolist(), n[known].tolist())
        return [next(found) if is_known else None for is_known in known.tolist()]


def _terms(x: NDArray[np.float32], y: NDArray[np.float32]) -> Floats:
    """What candles contribute to the sums, ``[k, 5]``."""
    a, b = x.astype(np.float64), y.astype(np.float64)
    return np.stack((a, b, a * a, a * b, b * b), axis=1)


class RollingShares:
    """How often something was true over each slot's last ``window`` candles.

    >>> shares, slot = RollingShares(window=4), np.array([0])
    >>> shares.resize(1)
    >>> shares.get(0)
    (None, 0)
    >>> for answer in [NO, YES, YES, UNKNOWN, NO]:
    ...     shares.add(slot, np.array([answer], np.int8))
    >>> share, n = shares.get(0)
    >>> round(share, 3), n
    (0.667, 3)
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._ring = np.zeros((0, window), np.int8)
        self._at = np.zeros(0, np.intp)
        self._known = np.zeros(0, np.intp)
        self._true = np.zeros(0, np.intp)

    def resize(self, slots: int) -> None:
        """Make room for so many slots."""
        self._ring, self._at = _grown(self._ring, slots), _grown(self._at, slots)
        self._known, self._true = _grown(self._known, slots), _grown(self._true, slots)

    def add(self, slots: Slots, answers: Answers) -> None:
        """Add a candle's answer of each of these slots, none of which is named twice."""
        cells = slots, self._at[slots]
        # Where the window is not full, an unknown one leaves.
        old = self._ring[cells]
        self._known[slots] += (answers != UNKNOWN).astype(np.intp) - (old != UNKNOWN)
        self._true[slots] += (answers == YES).astype(np.intp) - (old == YES)
        self._ring[cells] = answers
        self._at[slots] = (cells[1] + 1) % self._window

    def get(self, slot: int) -> tuple[float | None, int]:
        """Share of true answers among the known ones (None without any), and their number."""
        true, known = int(self._true[slot]), int(self._known[slot])
        return (true / known if known else None), known


_COLUMNS: Final = 7


class RollingPool:
    """All symbols together, over the last ``window`` candles.

    Symbols move together, so their errors are averaged per candle first and a candle counts once:
    the standard error of the single errors would be far too small.

    >>> pool = RollingPool(window=10)
    >>> errors, answers = np.array([1.0, 3.0]), np.array([YES, UNKNOWN], np.int8)
    >>> for candle_ms in (0, 60_000):
    ...     pool.add(candle_ms, errors, np.array([2.0, 2.0]), answers, np.zeros(2, np.int8))
    >>> pool.skill()
    Skill(mae_ratio=1.0, stderr=0.0, n=2)
    >>> pool.direction(), pool.coverage()
    ((1.0, 2), (None, 0))
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._row_of: dict[int, int] = {}
        # Model error, last-value error, symbols; hits, moves; insides, intervals.
        self._table = np.zeros((window, _COLUMNS))

    def add(
        self,
        candle_ms: int,
        model_errors: Floats,
        last_value_errors: Floats,
        hits: Answers,
        insides: Answers,
    ) -> None:
        """Add symbols' results of one candle; what is older than the window is left out.

        Args:
            candle_ms: which candle, Unix milliseconds.
            model_errors: relative, ``[k]``.
            last_value_errors: relative, ``[k]``.
            hits: whether the directions were right; unknown for a tie, ``[k]``.
            insides: whether the closes fell into the intervals; unknown without one, ``[k]``.
        """
        row = self._row(candle_ms)
        if row is None:
            return
        self._table[row] += (
            model_errors.sum(),
            last_value_errors.sum(),
            len(model_errors),
            np.count_nonzero(hits == YES),
            np.count_nonzero(hits),
            np.count_nonzero(insides == YES),
            np.count_nonzero(insides),
        )

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
