"""Score each forecast when its target candle closes.

Errors are relative to the last close the forecast saw, so that symbols of any price compare:
``|predicted - close| / last_close`` beside ``|close - last_close| / last_close`` of the forecast
that the price stays.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from daemon.scoring.rolling import (
    NO,
    UNKNOWN,
    YES,
    RollingPool,
    RollingRatios,
    RollingShares,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from model.core.candle import Candle
    from model.forecasts.batch import ForecastBatch
    from model.forecasts.forecast import ForecastRow, Skill
    from model.history.store import Outcome

    Floats = NDArray[np.float64]
    Answers = NDArray[np.int8]

MAX_ERROR: Final = 100.0
"""Limit of a relative error. A price 100 times the close before is a fault of the exchange, and
would hide the errors of all other symbols in sums and averages."""

MAX_WAIT_CANDLES: Final = 8
"""How many candles a forecast waits for its own; gaps are repaired well before."""


class Scores(NamedTuple):
    """Forecasts that were scored together; item i of each is of the same one.

    Attributes:
        forecasts: what was published.
        closes: of the target candles, ``[k]``.
        model_errors: relative, at most 100, ``[k]``.
        last_value_errors: likewise, of the forecast that the last close stays, ``[k]``.
        hits: whether the direction was right; unknown when forecast or price did not move, ``[k]``.
        insides: whether the close fell into the interval; unknown without one, ``[k]``.
    """

    forecasts: Sequence[ForecastRow]
    closes: Floats
    model_errors: Floats
    last_value_errors: Floats
    hits: Answers
    insides: Answers


class Summary(NamedTuple):
    """Figures over the window, each None until it rests on ``min_n`` candles.

    Attributes:
        skill: error as a ratio to the last-value forecast's.
        direction_accuracy: share of moves whose direction was right; ties are left out.
        interval_coverage: share of closes inside their interval.
    """

    skill: Skill | None
    direction_accuracy: float | None
    interval_coverage: float | None


class _Symbol:
    __slots__ = ("pending", "scored_ms", "slot", "target_ms")

    def __init__(self, slot: int) -> None:
        # In the rolling figures.
        self.slot = slot
        # Forecasts that wait for their candle, by the close that they were made at.
        self.pending: dict[int, ForecastRow] = {}
        # The newest such close whose forecast was scored, and target of the newest forecast.
        self.scored_ms = 0
        self.target_ms = 0


class Accuracy:
    """Scores of one market (exchange and timeframe).

    Args:
        window: candles in a rolling figure.
        min_n: scored forecasts before a figure is shown.

    Attributes:
        skills: each symbol's error as a ratio to the last-value forecast's; none below ``min_n``.
    """

    def __init__(self, window: int = 1440, min_n: int = 200) -> None:
        self._min_n = min_n
        self.skills: dict[str, Skill] = {}
        self._symbols: dict[str, _Symbol] = {}
        self._ratios = RollingRatios(window)
        self._directions = RollingShares(window)
        self._coverages = RollingShares(window)
        # How many slots they have room for.
        self._room = 0
        self._pool = RollingPool(window)
        self._unscored = 0

    @property
    def pending(self) -> int:
        """Forecasts that wait for their candle."""
        return sum(len(symbol.pending) for symbol in self._symbols.values())

    @property
    def unscored(self) -> int:
        """Forecasts that were removed, since their candle never came."""
        return self._unscored

    def on_published(self, forecasts: ForecastBatch) -> int:
        """Keep published forecasts until their target candles close.

        Returns:
            How many were kept; of what has been seen nothing is: it is never revised.
        """
        return sum(map(self._keep, forecasts.rows()))

    def newest_targets_ms(self) -> dict[str, int]:
        """Target of each symbol's newest forecast that waits for its candle or was scored."""
        return {name: symbol.target_ms for name, symbol in self._symbols.items()}

    def waiting(self, name: str, candle_close_ms: int) -> ForecastRow | None:
        """The forecast made at ``candle_close_ms`` that waits for its candle; None without one."""
        symbol = self._symbols.get(name)
        return None if symbol is None else symbol.pending.get(candle_close_ms)

    def _keep(self, row: ForecastRow) -> bool:
        symbol, close_ms = self._symbol(row.symbol), row.candle_close_ms
        if close_ms in symbol.pending or close_ms <= symbol.scored_ms:
            return False
        symbol.pending[close_ms] = row
        symbol.target_ms = max(symbol.target_ms, row.target_close_ms)
        if len(symbol.pending) > 1:
            max_wait_ms = MAX_WAIT_CANDLES * (row.target_close_ms - row.candle_close_ms)
            self._remove_overdue(symbol, row.candle_close_ms - max_wait_ms)
        return True

    def on_candles_closed(self, candles: Sequence[Candle]) -> Scores | None:
        """Score the forecasts that these closed candles answer.

        Args:
            candles: of different symbols. Only the first final revision of a candle counts;
                forming ones are ignored.

        Returns:
            The scores, or None when no forecast was waiting for any of them.
        """
        answered = [
            (row, candle.ohlcv.close)
            for candle in candles
            if (row := self._take_answered(candle)) is not None
        ]
        if not answered:
            return None
        scores = self._score(answered)
        self._update_skills([row.symbol for row in scores.forecasts])
        return scores

    def _take_answered(self, candle: Candle) -> ForecastRow | None:
        """Take the forecast out that waited for this candle, and those whose candle is overdue."""
        symbol = self._symbols.get(candle.symbol)
        if symbol is None or candle.final_by is None:
            return None
        row = symbol.pending.pop(candle.open_ms, None)
        if symbol.pending:
            max_wait_ms = MAX_WAIT_CANDLES * (candle.close_ms - candle.open_ms)
            self._remove_overdue(symbol, candle.open_ms - max_wait_ms)
        return row

    def _update_skills(self, names: Sequence[str]) -> None:
        for name, skill in zip(
            names, self._ratios.skills(self._slots(names), self._min_n), strict=True
        ):
            if skill is None:
                self.skills.pop(name, None)
            else:
                self.skills[name] = skill

    def _slots(self, names: Sequence[str]) -> NDArray[np.intp]:
        return np.array([self._symbols[name].slot for name in names], np.intp)

    def _remove_overdue(self, symbol: _Symbol, before_ms: int) -> None:
        if min(symbol.pending) > before_ms:
            return
        overdue = [close_ms for close_ms in symbol.pending if close_ms <= before_ms]
        for close_ms in overdue:
            del symbol.pending[close_ms]
        self._unscored += len(overdue)

    def _score(self, answered: Sequence[tuple[ForecastRow, float]]) -> Scores:
        """Score forecasts of different symbols by the closes that came."""
        scores = score(*zip(*answered, strict=True))
        for row in scores.forecasts:
            symbol = self._symbols[row.symbol]
            symbol.scored_ms = max(symbol.scored_ms, row.candle_close_ms)
        self._make_room()
        slots = self._slots([row.symbol for row in scores.forecasts])
        errors = np.stack((scores.model_errors, scores.last_value_errors))
        answers = np.stack((scores.hits, scores.insides))
        self._ratios.add(slots, *errors)
        self._directions.add(slots, scores.hits)
        self._coverages.add(slots, scores.insides)
        candles_ms = np.array([row.candle_close_ms for row in scores.forecasts])
        for candle_ms in np.unique(candles_ms).tolist():
            of_candle = candles_ms == candle_ms
            self._pool.add(candle_ms, *errors[:, of_candle], *answers[:, of_candle])
        return scores

    def _make_room(self) -> None:
        """Have the rolling figures hold every symbol."""
        if self._room < len(self._symbols):
            self._room = max(len(self._symbols), 2 * self._room)
            for figures in (self._ratios, self._directions, self._coverages):
                figures.resize(self._room)

    def restore(self, outcomes: Iterable[Outcome]) -> None:
        """Restore what an earlier process published.

        Args:
            outcomes: of this market, ascending by time; those without a close wait on.
        """
        for _, together in groupby(outcomes, lambda outcome: outcome.forecast.candle_close_ms):
            answered = [
                (self._symbols[row.symbol].pending.pop(row.candle_close_ms), close)
                for row, close in together
                if self._keep(row) and close is not None
            ]
            if answered:
                self._score(answered)
        self._make_room()
        self._update_skills([*self._symbols])

    def summary(self, name: str) -> Summary:
        """One symbol's figures."""
        slot = self._symbol(name).slot
        self._make_room()
        return Summary(
            self.skills.get(name),
            self._enough(*self._directions.get(slot)),
            self._enough(*self._coverages.get(slot)),
        )

    def aggregate(self) -> Summary:
        """All symbols' figures, each candle counting once."""
        skill = self._pool.skill()
        return Summary(
            None if skill is None or skill.n < self._min_n else skill,
            self._enough(*self._pool.direction()),
            self._enough(*self._pool.coverage()),
        )

    def errors(self, after_ms: int) -> list[tuple[int, float, float]]:
        """See `RollingPool.errors`."""
        return self._pool.errors(after_ms)

    def _enough(self, share: float | None, n: int) -> float | None:
        return share if n >= self._min_n else None

    def _symbol(self, name: str) -> _Symbol:
        symbol = self._symbols.get(name)
        if symbol is None:
            symbol = self._symbols[name] = _Symbol(len(self._symbols))
        return symbol


def score(rows: Sequence[ForecastRow], closes: Sequence[float]) -> Scores:
    """Compare forecasts with the closes that came (both in quote currency)."""
    _, _, _, *prices = zip(*rows, strict=True)
    # None becomes NaN, which is on neither side of anything.
    last, predicted, lower, upper = np.array(prices, np.float64)
    close = np.array(closes, np.float64)
    moved = close - last
    is_inside = (lower <= close) & (close <= upper)
    is_known = ~(np.isnan(lower) | np.isnan(upper))
    return Scores(
        rows,
        close,
        np.minimum(np.abs(predicted - close) / last, MAX_ERROR),
        np.minimum(np.abs(moved) / last, MAX_ERROR),
        # YES where both have the same sign, NO where they differ, UNKNOWN where one is zero.
        (np.sign(predicted - last) * np.sign(moved)).astype(np.int8),
        np.where(is_known, np.where(is_inside, YES, NO), UNKNOWN).astype(np.int8),
    )
