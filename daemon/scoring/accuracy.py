"""Score each forecast when its target candle closes.

Errors are relative to the last close the forecast saw, so that symbols of any price compare:
``|predicted - close| / last_close`` beside ``|close - last_close| / last_close`` of the forecast
that the price stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from daemon.scoring.rolling import RollingPool, RollingRatio, RollingShare
from model.core.candle import Candle
from model.forecasts.forecast import Forecast, ForecastRow, Skill
from model.history.store import Outcome

MAX_ERROR: Final = 100.0
"""Limit of a relative error. A price 100 times the close before is a fault of the exchange, and
would hide the errors of all other symbols in sums and averages."""

MAX_WAIT_CANDLES: Final = 8
"""How many candles a forecast waits for its own; gaps are repaired well before."""


class Realised(NamedTuple):
    """A forecast that has been scored.

    Attributes:
        forecast: what was published.
        close: of the target candle.
        model_error: relative, at most 100.
        last_value_error: likewise, of the forecast that the last close stays.
        hit: whether the direction was right; None when forecast or price did not move.
        inside: whether the close fell into the interval; None without one.
    """

    forecast: ForecastRow
    close: float
    model_error: float
    last_value_error: float
    hit: bool | None
    inside: bool | None


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
    __slots__ = ("coverage", "direction", "pending", "ratio", "scored_ms", "target_ms")

    def __init__(self, window: int) -> None:
        self.ratio = RollingRatio(window)
        self.direction = RollingShare(window)
        self.coverage = RollingShare(window)
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
        self._window = window
        self._min_n = min_n
        self.skills: dict[str, Skill] = {}
        self._symbols: dict[str, _Symbol] = {}
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

    def on_published(self, forecast: Forecast) -> bool:
        """Keep a published forecast until its target candle closes.

        Returns:
            False when its identity has been seen: what was published is never revised.
        """
        return self._keep(ForecastRow.of(forecast))

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
        max_wait_ms = MAX_WAIT_CANDLES * (row.target_close_ms - row.candle_close_ms)
        self._remove_overdue(symbol, row.candle_close_ms - max_wait_ms)
        return True

    def on_candle_closed(self, candle: Candle) -> Realised | None:
        """Score the forecast that this closed candle answers.

        Args:
            candle: only its first final revision counts; forming ones are ignored.

        Returns:
            The score, or None when no forecast was waiting for it.
        """
        symbol = self._symbols.get(candle.symbol)
        if symbol is None or candle.final_by is None:
            return None
        row = symbol.pending.pop(candle.open_ms, None)
        max_wait_ms = MAX_WAIT_CANDLES * (candle.close_ms - candle.open_ms)
        self._remove_overdue(symbol, candle.open_ms - max_wait_ms)
        if row is None:
            return None
        realised = self._score(symbol, row, candle.ohlcv.close)
        self._update_skill(candle.symbol, symbol)
        return realised

    def _update_skill(self, name: str, symbol: _Symbol) -> None:
        skill = symbol.ratio.get() if symbol.ratio.n >= self._min_n else None
        if skill is None:
            self.skills.pop(name, None)
        else:
            self.skills[name] = skill

    def _remove_overdue(self, symbol: _Symbol, before_ms: int) -> None:
        overdue = [close_ms for close_ms in symbol.pending if close_ms <= before_ms]
        for close_ms in overdue:
            del symbol.pending[close_ms]
        self._unscored += len(overdue)

    def _score(self, symbol: _Symbol, row: ForecastRow, close: float) -> Realised:
        realised = score(row, close)
        symbol.scored_ms = max(symbol.scored_ms, row.candle_close_ms)
        symbol.ratio.update(realised.model_error, realised.last_value_error)
        symbol.direction.update(realised.hit)
        symbol.coverage.update(realised.inside)
        self._pool.update(
            row.candle_close_ms, *realised[2:4], hit=realised.hit, inside=realised.inside
        )
        return realised

    def restore(self, outcomes: Iterable[Outcome]) -> None:
        """Restore what an earlier process published.

        Args:
            outcomes: of this market, ascending by time; those without a close wait on.
        """
        for row, close in outcomes:
            if self._keep(row) and close is not None:
                symbol = self._symbols[row.symbol]
                self._score(symbol, symbol.pending.pop(row.candle_close_ms), close)
        for name, symbol in self._symbols.items():
            self._update_skill(name, symbol)

    def summary(self, name: str) -> Summary:
        """One symbol's figures."""
        symbol = self._symbol(name)
        return Summary(
            self.skills.get(name),
            self._enough(symbol.direction.get(), symbol.direction.n),
            self._enough(symbol.coverage.get(), symbol.coverage.n),
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
            symbol = self._symbols[name] = _Symbol(self._window)
        return symbol


def score(row: ForecastRow, close: float) -> Realised:
    """Compare a forecast with the close that came (both in quote currency)."""
    last = row.last_close
    expected, moved = row.predicted_close - last, close - last
    return Realised(
        row,
        close,
        min(abs(row.predicted_close - close) / last, MAX_ERROR),
        min(abs(moved) / last, MAX_ERROR),
        None if expected == 0.0 or moved == 0.0 else (expected > 0.0) == (moved > 0.0),
        None if row.lower is None or row.upper is None else row.lower <= close <= row.upper,
    )
