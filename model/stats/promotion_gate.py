"""Decide from paired losses whether a challenger replaces the champion.

The test is Diebold and Mariano's (1995, "Comparing predictive accuracy", JBES 13): is the mean
difference of two losses beyond its noise? Two effects make the usual standard error too small.
Symbols move together, so their losses are averaged per candle and a candle counts once. Errors are
autocorrelated, so the variance is the long-run one (`model.stats.long_run_variance`). A block
bootstrap (`model.stats.bootstrap`) would do as well; this test returns the same decision for the
same losses on every machine, its standard error also gives the detectable difference, and a week of
minutes takes milliseconds, so that the daemon can judge a live trial.

Apply it once per stretch of losses: testing after every candle until it passes promotes noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.stats.long_run_variance import long_run_variance, student_t
from model.stats.scores import Scored

Floats = NDArray[np.float64]
Rule = Literal[
    "too_few", "first", "first_refused", "symbol_worse", "better", "renewed", "not_better"
]

ALPHA: Final = 0.05
"""Probability that a challenger which is not better passes, one-sided."""

POWER: Final = 0.8
"""Probability of detecting the gain that a decision calls detectable."""

MAX_AGE_DAYS: Final = 30.0
"""The span of candles that the nightly job trains on."""

_DAY_MS: Final = 86_400_000
_TIME_BOUND_MS: Final = 1 << 42
"""Above every opening time: the year 2109."""

_MIN_CANDLES: Final = 100
"""Fewer candles leave the variance less than eight degrees of freedom."""


class Losses(NamedTuple):
    """Relative absolute errors of the same forecasts, n of them, in any order.

    Attributes:
        symbol: number of the symbol, ``[n]``.
        open_ms: opening time of the forecast candle, Unix milliseconds, ``[n]``.
        last_value: of the last-value forecast, ``[n]``.
        challenger: ``[n]``.
        champion: ``[n]``; None where there is no champion yet.
    """

    symbol: NDArray[np.int64]
    open_ms: NDArray[np.int64]
    last_value: Floats
    challenger: Floats
    champion: Floats | None


@dataclass(frozen=True)
class GateRules:
    """Settings of the gate.

    Attributes:
        gate_days: minimum span of the candles, days.
        margin: loss in the error ratio up to which a challenger counts as not inferior.
        max_age_days: age from which a challenger that is not inferior replaces the champion.
    """

    gate_days: float
    margin: float
    max_age_days: float = MAX_AGE_DAYS

    def candles(self, timeframe_ms: int) -> int:
        """Number of candles of a timeframe that must be kept for the gate."""
        return max(_MIN_CANDLES, ceil(self.gate_days * _DAY_MS / timeframe_ms))


@dataclass(frozen=True)
class Decision:
    """The decision and the figures behind it.

    Ratios are sums of errors over the sum of the last-value forecast's; below 1 is skill.

    Attributes:
        promote: whether to serve the challenger.
        rule: which rule decided.
        reason: one sentence for people.
        n: forecasts compared.
        candles: different candles among them; each counts once.
        symbols: different symbols among them.
        from_ms: opening time of the first candle, Unix milliseconds.
        to_ms: opening time of the last one.
        challenger_ratio: the challenger's error ratio.
        champion_ratio: the champion's; None where there is none.
        gain: champion's ratio minus challenger's; without a champion 1 minus the challenger's.
        standard_error: of the gain.
        critical: standard errors that a gain must exceed.
        detectable: gain that the test detects with probability `POWER`.
        worse: numbers of the symbols on which the challenger is worse than the last value and
            significantly worse than the champion.
    """

    promote: bool
    rule: Rule
    reason: str
    n: int
    candles: int
    symbols: int
    from_ms: int
    to_ms: int
    challenger_ratio: float
    champion_ratio: float | None
    gain: float
    standard_error: float
    critical: float
    detectable: float
    worse: tuple[int, ...] = ()


class _Compared(NamedTuple):
    """A mean difference as a share of the last value's error, with its standard error."""

    gain: float
    standard_error: float
    degrees: int


def paired_losses(challenger: Scored, champion: Scored | None) -> Losses:
    """Compute the losses of the forecasts that both models made.

    Args:
        challenger: its forecasts; no symbol has two of one candle.
        champion: the champion's, symbols numbered the same way; None where there is none.
    """
    if champion is None:
        return _losses(challenger, None)
    # One number per forecast: sorting pairs takes minutes for a week of 1,000 symbols.
    mine, theirs = (s.symbol * _TIME_BOUND_MS + s.open_ms for s in (challenger, champion))
    _, of_mine, of_theirs = np.intersect1d(mine, theirs, assume_unique=True, return_indices=True)
    return _losses(
        Scored._make(array[of_mine] for array in challenger),
        Scored._make(array[of_theirs] for array in champion),
    )


def _losses(challenger: Scored, champion: Scored | None) -> Losses:
    def relative(price: Floats) -> Floats:
        loss: Floats = np.abs(price - challenger.close) / challenger.last_close
        return loss

    return Losses(
        symbol=challenger.symbol,
        open_ms=challenger.open_ms,
        last_value=relative(challenger.last_close),
        challenger=relative(challenger.predicted),
        champion=None if champion is None else relative(champion.predicted),
    )


def decide(
    losses: Losses,
    rules: GateRules,
    timeframe_ms: int,
    champion_age_days: float = 0.0,
    names: Sequence[str] = (),
) -> Decision:
    """Compare a challenger with the champion, or the first model with the last value.

    Args:
        losses: of candles that neither model was trained, validated or stopped on.
        rules: settings of the gate.
        timeframe_ms: length of a candle.
        champion_age_days: days since the champion was made.
        names: of the symbols by number, for the reason; may be empty.

    Raises:
        ValueError: a loss that is not finite.
    """
    if not all(np.isfinite(a).all() for a in losses if a is not None):
        msg = "a loss is not finite"
        raise ValueError(msg)
    rival = losses.last_value if losses.champion is None else losses.champion
    candles = np.unique(losses.open_ms)
    found = _compare(losses.open_ms, rival - losses.challenger, losses.last_value)
    critical = student_t(1.0 - ALPHA, found.degrees)
    worse = () if losses.champion is None else _worse_symbols(losses)
    days = len(candles) * timeframe_ms / _DAY_MS
    champion_ratio = None if losses.champion is None else _ratio(losses, losses.champion)
    case = _Case(
        moved=bool(losses.last_value.any()),
        days=days,
        candles=len(candles),
        ratio=_ratio(losses, losses.challenger),
        champion_ratio=champion_ratio,
        gain=found.gain,
        noise=critical * found.standard_error,
        worse=tuple(names[number] if names else str(number) for number in worse),
        age_days=champion_age_days,
    )
    rule, reason = _judge(case, rules)
    return Decision(
        promote=rule in {"first", "better", "renewed"},
        rule=rule,
        reason=reason,
        n=len(losses.open_ms),
        candles=len(candles),
        symbols=len(np.unique(losses.symbol)),
        from_ms=int(candles[0]) if len(candles) else 0,
        to_ms=int(candles[-1]) if len(candles) else 0,
        challenger_ratio=case.ratio,
        champion_ratio=champion_ratio,
        gain=found.gain,
        standard_error=found.standard_error,
        critical=critical,
        detectable=(critical + student_t(POWER, found.degrees)) * found.standard_error,
        worse=worse,
    )


class _Case(NamedTuple):
    """Input of `_judge`; ``noise`` is the gain that chance exceeds with probability `ALPHA`."""

    moved: bool
    days: float
    candles: int
    ratio: float
    champion_ratio: float | None
    gain: float
    noise: float
    worse: tuple[str, ...]
    age_days: float


def _judge(case: _Case, rules: GateRules) -> tuple[Rule, str]:
    """Apply the rules in order and return the deciding one with a reason."""
    if problem := _insufficient(case, rules):
        return "too_few", f"too little evidence: {problem}"
    not_inferior = case.gain - case.noise > -rules.margin
    if case.champion_ratio is None:
        return _judge_first(case, rules, not_inferior=not_inferior)
    versus = f"error ratio {case.ratio:.6f} against the champion's {case.champion_ratio:.6f}"
    if case.worse:
        return "symbol_worse", (
            f"{versus}, but on {', '.join(case.worse)} worse than the last value by more than the "
            "champion is"
        )
    if case.gain > case.noise:
        return "better", f"{versus}: better by {case.gain:z.6f}, noise reaches {case.noise:.6f}"
    old = case.age_days > rules.max_age_days
    if old and not_inferior and case.gain > -case.noise:
        return "renewed", (
            f"{versus}: not inferior by {rules.margin:g}, and the champion is "
            f"{case.age_days:.0f} days old"
        )
    return "not_better", f"{versus}: a gain of {case.gain:z.6f}, noise reaches {case.noise:.6f}"


def _insufficient(case: _Case, rules: GateRules) -> str:
    """Describe why the candles are not enough evidence; "" if they are."""
    if case.days < rules.gate_days or case.candles < _MIN_CANDLES:
        return (
            f"{case.candles} candles over {case.days:.1f} days, needed are {_MIN_CANDLES} over "
            f"{rules.gate_days:g}"
        )
    return "" if case.moved else "no close has moved"


def _judge_first(case: _Case, rules: GateRules, *, not_inferior: bool) -> tuple[Rule, str]:
    """Compare the first model with the last-value forecast."""
    versus = f"error ratio {case.ratio:.6f} to the last value, noise reaches {case.noise:.6f}"
    if not_inferior:
        return "first", f"{versus}: not inferior by {rules.margin:g}"
    return "first_refused", (
        f"{versus}: it may be worse by {rules.margin:g} or more; to serve it all the same: "
        "candlecast models promote"
    )


def _worse_symbols(losses: Losses) -> tuple[int, ...]:
    """Symbols with a significantly worse challenger; `ALPHA` is the level of all together."""
    assert losses.champion is not None  # noqa: S101 - the caller checked
    order = np.argsort(losses.symbol, kind="stable")
    symbols, first = np.unique(losses.symbol[order], return_index=True)
    parts = np.split(order, first)[1:]
    judged = [(s, own) for s, own in zip(symbols, parts, strict=True) if len(own) >= _MIN_CANDLES]
    found = []
    for symbol, own in judged:
        challenger, last_value = losses.challenger[own], losses.last_value[own]
        alone = _compare(losses.open_ms[own], losses.champion[own] - challenger, last_value)
        noise = student_t(1.0 - ALPHA / len(judged), alone.degrees) * alone.standard_error
        if challenger.sum() > last_value.sum() and alone.gain < -noise:
            found.append(int(symbol))
    return tuple(found)


def _ratio(losses: Losses, loss: Floats) -> float:
    return 1.0 - _compare(losses.open_ms, losses.last_value - loss, losses.last_value).gain


def _compare(open_ms: NDArray[np.int64], difference: Floats, last_value: Floats) -> _Compared:
    """The mean of ``difference [n]`` over that of ``last_value [n]``, candle by candle."""
    _, candle = np.unique(open_ms, return_inverse=True)
    count = np.bincount(candle)
    above, below = np.bincount(candle, difference) / count, np.bincount(candle, last_value) / count
    if below.sum() <= 0.0:
        # No close moved, so no model can be better.
        return _Compared(0.0, 0.0, 1)
    gain = float(above.sum() / below.sum())
    # Linearised ratio: it has the variance and the autocorrelation of the ratio.
    variance, degrees = long_run_variance((above - gain * below) / below.mean())
    return _Compared(gain, float(np.sqrt(variance / len(count))), degrees)
