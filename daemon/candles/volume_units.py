"""Judge whether volumes by websocket and by REST are in the same unit. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from math import inf
from typing import Final, NamedTuple

MAX_COMPARED: Final = 5
"""How many of the newest candles a finding rests on."""

MAX_REVISION: Final = 2.0
"""Late trades change the volume of a candle by less than this factor."""

_MIN_AGREEING: Final = 3
"""How many of them must agree."""

_MAX_RELATIVE_ERROR: Final = 1e-6
"""Relative difference of volumes that are the same number in decimals."""

_PRICE_TOLERANCE: Final = 1e-3
"""Rounded volumes put the average price this far outside its candle, as a share of the price."""


class Verdict(Enum):
    """What to do with the volumes of a symbol by the stream."""

    PENDING = "pending"
    EQUAL = "equal"
    SCALED = "scaled"
    REFUSED = "refused"


class Pair(NamedTuple):
    """Volumes of one candle by both ways; not both are zero.

    Attributes:
        stream: volume by websocket.
        rest: volume by REST.
        low: lowest price.
        high: highest price.
    """

    stream: float
    rest: float
    low: float
    high: float

    @property
    def ratio(self) -> float:
        """Volume by REST divided by volume by the stream."""
        return self.rest / self.stream if self.stream else inf


class Finding(NamedTuple):
    """Result of a comparison.

    Attributes:
        verdict: what to do.
        factor: multiplies the stream's volume.
        reason: why the volumes are refused.
    """

    verdict: Verdict
    factor: float = 1.0
    reason: str = ""


PENDING: Final = Finding(Verdict.PENDING)


def judge(pairs: Sequence[Pair], contract_size: float | None) -> Finding | None:
    """Judge the newest candles that came by both ways.

    Args:
        pairs: the newest last; only the last `MAX_COMPARED` count.
        contract_size: of the market; None where it has none.

    Returns:
        The finding; None while the candles do not allow one.
    """
    newest = list(pairs)[-MAX_COMPARED:]
    if not newest:
        return None
    if _agrees(newest[-1], 1.0):
        return Finding(Verdict.EQUAL)
    for factor in _by_contract(contract_size):
        if _agrees(newest[-1], factor):
            return Finding(Verdict.SCALED, factor)
    return _judge_together(newest)


def _judge_together(newest: Sequence[Pair]) -> Finding | None:
    """Judge candles of which the last one alone is not enough."""
    if sum(map(_counts_quote, newest)) >= _MIN_AGREEING:
        return Finding(Verdict.REFUSED, reason="one of them counts quote currency")
    factor = newest[-1].ratio
    same = {pair.stream for pair in newest if _agrees(pair, factor)}
    if len(same) >= _MIN_AGREEING and 0.0 < factor < inf:
        return Finding(Verdict.SCALED, factor)
    if len(newest) < MAX_COMPARED:
        return None
    if sum(map(_is_revised, newest)) >= _MIN_AGREEING:
        return Finding(Verdict.EQUAL)
    ratios = sorted(pair.ratio for pair in newest)
    reason = f"the history has {ratios[0]:.3g} to {ratios[-1]:.3g} times as much"
    return Finding(Verdict.REFUSED, reason=reason)


def _by_contract(size: float | None) -> tuple[float, ...]:
    if not size or size == 1.0:
        return ()
    return tuple(factor for factor in (size, 1.0 / size) if factor < inf)


def _agrees(pair: Pair, factor: float) -> bool:
    scaled = pair.stream * factor
    return abs(scaled - pair.rest) <= _MAX_RELATIVE_ERROR * max(scaled, pair.rest)


def _is_revised(pair: Pair) -> bool:
    """Whether late trades may explain the difference."""
    return 1.0 / MAX_REVISION < pair.ratio < MAX_REVISION


def _counts_quote(pair: Pair) -> bool:
    """Whether one volume is the other one at a price of the candle."""
    low, high = pair.low * (1.0 - _PRICE_TOLERANCE), pair.high * (1.0 + _PRICE_TOLERANCE)
    stream_does = low * pair.rest <= pair.stream <= high * pair.rest
    rest_does = low * pair.stream <= pair.rest <= high * pair.stream
    return (stream_does or rest_does) and not _is_revised(pair)
