"""Compares volumes of the stream with those of the history. No I/O, no clock.

`daemon.exchange.volume_units` holds the documented units; this measures the real ones. A candle
whose volume is not in the history's unit is scaled, or withheld and taken by REST instead.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.candles.closing import grace_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from model.core.candle import Candle, Timeframe

_COMPARED: Final = 5
"""How many of the newest candles a finding rests on."""

_ENOUGH: Final = 3
"""How many of them must agree."""

_EXACT: Final = 1e-6
"""Relative difference of volumes that are the same number in decimals."""

_REVISED: Final = 2.0
"""Late trades change the volume of a candle by less than this factor."""

_SLACK: Final = 1e-3
"""Rounded volumes put the average price this far outside its candle, as a share of the price."""

_UNUSUAL: Final = 20.0
"""A first volume this many times above or below those of the history is compared before use."""

_USUAL_CANDLES: Final = 30
"""How many candles with trades must be known before a volume is called unusual."""

_HEARD: Final = 16
"""How many candles of the stream are kept for comparison, per symbol."""

_MARGIN_MS: Final = 500
"""How long after a candle is final in the history it is asked for."""

_DIGITS: Final = 14
"""Significant digits of a scaled volume: it must equal the decimal number of the history."""


class Verdict(Enum):
    """What is done with a symbol's volumes of the stream."""

    PENDING = "pending"
    EQUAL = "equal"
    SCALED = "scaled"
    REFUSED = "refused"


class Pair(NamedTuple):
    """One candle by both ways; not both volumes are zero.

    Attributes:
        stream: volume by the stream.
        rest: volume by the history.
        low: lowest price.
        high: highest price.
    """

    stream: float
    rest: float
    low: float
    high: float

    @property
    def ratio(self) -> float:
        """The history's volume per volume of the stream."""
        return self.rest / self.stream if self.stream else inf


class Finding(NamedTuple):
    """What a comparison shows.

    Attributes:
        verdict: what to do.
        factor: multiplies the stream's volume.
        reason: why it is refused.
    """

    verdict: Verdict
    factor: float = 1.0
    reason: str = ""


_PENDING: Final = Finding(Verdict.PENDING)


def judge(pairs: Sequence[Pair], contract_size: float | None) -> Finding | None:
    """Judge the newest candles that came by both ways.

    Args:
        pairs: the newest last; those before the last `_COMPARED` do not count.
        contract_size: of the market.

    Returns:
        What they show; None while they do not show anything.
    """
    newest = list(pairs)[-_COMPARED:]
    if not newest:
        return None
    if _agrees(newest[-1], 1.0):
        return Finding(Verdict.EQUAL)
    for factor in _by_contract(contract_size):
        if _agrees(newest[-1], factor):
            return Finding(Verdict.SCALED, factor)
    return _judge_together(newest)


def _judge_together(newest: Sequence[Pair]) -> Finding | None:
    """Judge candles of which the last one alone shows nothing."""
    if sum(map(_counts_quote, newest)) >= _ENOUGH:
        return Finding(Verdict.REFUSED, reason="one of them counts quote currency")
    factor = newest[-1].ratio
    same = {pair.stream for pair in newest if _agrees(pair, factor)}
    if len(same) >= _ENOUGH and 0.0 < factor < inf:
        return Finding(Verdict.SCALED, factor)
    if len(newest) < _COMPARED:
        return None
    if sum(map(_is_revised, newest)) >= _ENOUGH:
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
    return abs(scaled - pair.rest) <= _EXACT * max(scaled, pair.rest)


def _is_revised(pair: Pair) -> bool:
    """Whether late trades may explain the difference."""
    return 1.0 / _REVISED < pair.ratio < _REVISED


def _counts_quote(pair: Pair) -> bool:
    """Whether one volume is the other one at a price of the candle."""
    low, high = pair.low * (1.0 - _SLACK), pair.high * (1.0 + _SLACK)
    stream_does = low * pair.rest <= pair.stream <= high * pair.rest
    rest_does = low * pair.stream <= pair.rest <= high * pair.stream
    return (stream_does or rest_does) and not _is_revised(pair)


class _State:
    """What is remembered of one symbol."""

    def __init__(self, *, known: bool) -> None:
        # Whether the units of its market are documented.
        self.known = known
        self.heard: dict[int, float] = {}
        self.pairs: deque[Pair] = deque(maxlen=_COMPARED)
        self.finding = _PENDING
        # The newest comparison contradicts the finding.
        self.doubtful = False
        # A comparison is wanted although there is a finding.
        self.renewed = False
        self.asked_ms = 0
        self.traded = 0
        self.least, self.most = inf, 0.0


class VolumeCheck:
    """Gives each candle of the stream the history's volume, or withholds it.

    While nothing has been compared, candles of documented markets are taken as they come, unless
    their volume is far from all of the history; those of other markets are withheld.
    """

    def __init__(
        self,
        timeframe: Timeframe,
        is_known: Callable[[str], bool],
        contract_size: Callable[[str], float | None],
    ) -> None:
        """Begin with nothing.

        Args:
            timeframe: of the candles.
            is_known: whether a symbol's units are documented to be the same by both ways.
            contract_size: of a symbol's market, None where there is none; asked when the symbol's
                history is there.
        """
        self._timeframe = timeframe
        self._is_known = is_known
        self._contract_size = contract_size
        self._states: dict[str, _State] = {}

    def follow(self, symbols: Iterable[str]) -> None:
        """Forget all symbols but these."""
        kept = set(symbols)
        self._states = {s: state for s, state in self._states.items() if s in kept}

    def take(self, candle: Candle) -> Candle | None:
        """Take in a candle of the stream, closed or forming.

        Returns:
            The candle with the history's unit of volume; None: it must not be used.
        """
        state = self._state(candle.symbol)
        closed = candle.final_by is not None
        volume = candle.ohlcv.volume
        if closed:
            state.heard[candle.open_ms] = volume
            if len(state.heard) > _HEARD:
                del state.heard[next(iter(state.heard))]
        verdict, factor, _ = state.finding
        if state.doubtful or verdict is Verdict.REFUSED:
            return None
        if verdict is Verdict.SCALED:
            volume = float(f"{volume * factor:.{_DIGITS}g}")
            candle = candle._replace(ohlcv=candle.ohlcv._replace(volume=volume))
        unusual = _is_unusual(state, volume, closed)
        if verdict is Verdict.PENDING:
            return candle if state.known and not unusual else None
        state.renewed |= unusual and closed
        return candle

    def renew(self, symbol: str) -> None:
        """Want another comparison, for the exchange may have changed what it sends."""
        self._state(symbol).renewed = True

    def compare(self, symbol: str, candles: Iterable[Candle]) -> Finding | None:
        """Compare closed candles of the history with what the stream said of them.

        Returns:
            What is found, if it is news: another verdict than before, or another factor. That
            volumes are equal at first is none.
        """
        state = self._state(symbol)
        before = state.finding
        for candle in candles:
            if candle.filled:
                continue
            _, high, low, _, volume = candle.ohlcv
            if volume:
                state.traded += 1
                state.least, state.most = min(state.least, volume), max(state.most, volume)
            heard = state.heard.pop(candle.open_ms, None)
            if heard is None or not (heard or volume):
                continue
            state.pairs.append(Pair(heard, volume, low, high))
            found = judge(state.pairs, self._contract_size(symbol))
            if found is not None:
                state.finding = found
            ratio = state.pairs[-1].ratio / state.finding.factor
            state.doubtful = not 1.0 / _REVISED < ratio < _REVISED
            state.renewed = False
        expected = before.verdict is Verdict.PENDING and state.finding.verdict is Verdict.EQUAL
        return None if expected or state.finding == before else state.finding

    def due(self, now_ms: int) -> str | None:
        """A symbol of which the history is wanted for a comparison, each once a candle.

        Args:
            now_ms: the exchange's time, Unix milliseconds.
        """
        final_ms = now_ms - self._timeframe.ms - grace_ms(self._timeframe) - _MARGIN_MS
        for symbol, state in self._states.items():
            open_question = state.finding.verdict is Verdict.PENDING or state.doubtful
            if not open_question and not state.renewed:
                continue
            opens = (at for at, volume in state.heard.items() if volume and at <= final_ms)
            newest_ms = max(opens, default=0)
            if newest_ms > state.asked_ms:
                state.asked_ms = newest_ms
                return symbol
        return None

    def refused(self) -> list[str]:
        """Symbols whose candles are withheld since their volumes cannot be reconciled."""
        found = self._states.items()
        return sorted(s for s, state in found if state.finding.verdict is Verdict.REFUSED)

    def counts(self) -> Counter[Verdict]:
        """How many symbols have each verdict."""
        return Counter(state.finding.verdict for state in self._states.values())

    def _state(self, symbol: str) -> _State:
        if (state := self._states.get(symbol)) is None:
            state = self._states[symbol] = _State(known=self._is_known(symbol))
        return state


def _is_unusual(state: _State, volume: float, closed: bool) -> bool:  # noqa: FBT001 - a value
    """Whether a volume is far from all that the history has shown."""
    if state.traded < _USUAL_CANDLES or not volume:
        return False
    # A candle that has just begun may have any small volume.
    return volume > state.most * _UNUSUAL or (closed and volume < state.least / _UNUSUAL)
