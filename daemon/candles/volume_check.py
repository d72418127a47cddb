"""Convert the stream's volumes to the history's unit, or withhold candles. No I/O, no clock.

`daemon.exchange.volume_units` holds the documented units; this measures the real ones. A candle
whose volume is not in the history's unit is scaled, or withheld and fetched by REST instead.
"""

from __future__ import annotations

from collections import Counter, deque
from math import inf
from typing import TYPE_CHECKING, Final

from daemon.candles.closing import grace_ms
from daemon.candles.volume_units import (
    MAX_COMPARED,
    MAX_REVISION,
    PENDING,
    Finding,
    Pair,
    Verdict,
    judge,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from model.core.candle import Candle, Timeframe

_UNUSUAL_FACTOR: Final = 20.0
"""A first volume this many times above or below those of the history is compared before use."""

_MIN_USUAL_CANDLES: Final = 30
"""How many candles with trades must be known before a volume is called unusual."""

_MAX_STREAMED: Final = 16
"""How many candles of the stream are kept for comparison, per symbol."""

_REQUEST_DELAY_MS: Final = 500
"""How long after a candle is final in the history it is requested."""

_DIGITS: Final = 14
"""Significant digits of a scaled volume: it must equal the decimal number of the history."""


class _SymbolVolumes:
    """State of one symbol."""

    def __init__(self, *, is_documented: bool) -> None:
        # Whether the units of its market are documented to be the same.
        self.is_documented = is_documented
        # Volumes of closed candles by the stream, by opening time (Unix milliseconds).
        self.streamed: dict[int, float] = {}
        self.pairs: deque[Pair] = deque(maxlen=MAX_COMPARED)
        self.finding = PENDING
        # Whether the newest comparison contradicts the finding.
        self.is_doubtful = False
        # Whether another comparison is wanted although there is a finding.
        self.needs_comparison = False
        # Opening time of the newest candle that was requested for a comparison.
        self.requested_ms = 0
        # Candles with trades in the history, and the range of their volumes.
        self.traded_candles = 0
        self.min_volume, self.max_volume = inf, 0.0


class VolumeCheck:
    """Converts the volume of each candle of the stream to the history's unit, or withholds it.

    Before the first comparison, candles of documented markets pass unchanged, unless their volume
    is far from all of the history. Those of other markets are withheld.
    """

    def __init__(
        self,
        timeframe: Timeframe,
        is_known: Callable[[str], bool],
        contract_size: Callable[[str], float | None],
    ) -> None:
        """Start without symbols.

        Args:
            timeframe: of the candles.
            is_known: whether a symbol's units are documented to be the same by both ways.
            contract_size: of a symbol's market, None where there is none; called when the
                symbol's history has come.
        """
        self._timeframe = timeframe
        self._is_known = is_known
        self._contract_size = contract_size
        self._states: dict[str, _SymbolVolumes] = {}

    def set_symbols(self, symbols: Iterable[str]) -> None:
        """Forget all symbols but these."""
        kept = set(symbols)
        self._states = {s: state for s, state in self._states.items() if s in kept}

    def convert(self, candle: Candle) -> Candle | None:
        """Convert a candle of the stream, closed or forming.

        Returns:
            The candle with its volume in the history's unit; None if it must not be used.
        """
        state = self._state(candle.symbol)
        closed = candle.final_by is not None
        volume = candle.ohlcv.volume
        if closed:
            state.streamed[candle.open_ms] = volume
            if len(state.streamed) > _MAX_STREAMED:
                del state.streamed[next(iter(state.streamed))]
        verdict, factor, _ = state.finding
        if state.is_doubtful or verdict is Verdict.REFUSED:
            return None
        if verdict is Verdict.SCALED:
            volume = float(f"{volume * factor:.{_DIGITS}g}")
            candle = candle._replace(ohlcv=candle.ohlcv._replace(volume=volume))
        unusual = _is_unusual(state, volume, closed)
        if verdict is Verdict.PENDING:
            return candle if state.is_documented and not unusual else None
        state.needs_comparison |= unusual and closed
        return candle

    def request_comparison(self, symbol: str) -> None:
        """Compare again; the exchange may have changed what it sends."""
        self._state(symbol).needs_comparison = True

    def compare(self, symbol: str, candles: Iterable[Candle]) -> Finding | None:
        """Compare closed candles of the history with the same candles by the stream.

        Returns:
            The finding if verdict or factor changed; None if not, or if the first finding is that
            volumes are equal.
        """
        state = self._state(symbol)
        before = state.finding
        for candle in candles:
            if candle.filled:
                continue
            _, high, low, _, volume = candle.ohlcv
            if volume:
                state.traded_candles += 1
                state.min_volume = min(state.min_volume, volume)
                state.max_volume = max(state.max_volume, volume)
            streamed = state.streamed.pop(candle.open_ms, None)
            if streamed is None or not (streamed or volume):
                continue
            state.pairs.append(Pair(streamed, volume, low, high))
            found = judge(state.pairs, self._contract_size(symbol))
            if found is not None:
                state.finding = found
            ratio = state.pairs[-1].ratio / state.finding.factor
            state.is_doubtful = not 1.0 / MAX_REVISION < ratio < MAX_REVISION
            state.needs_comparison = False
        expected = before.verdict is Verdict.PENDING and state.finding.verdict is Verdict.EQUAL
        return None if expected or state.finding == before else state.finding

    def symbol_due(self, now_ms: int) -> str | None:
        """A symbol whose history is needed for a comparison, each at most once a candle.

        Args:
            now_ms: the exchange's time, Unix milliseconds.
        """
        final_ms = now_ms - self._timeframe.ms - grace_ms(self._timeframe) - _REQUEST_DELAY_MS
        for symbol, state in self._states.items():
            is_open = state.finding.verdict is Verdict.PENDING or state.is_doubtful
            if not is_open and not state.needs_comparison:
                continue
            opens = (at for at, volume in state.streamed.items() if volume and at <= final_ms)
            newest_ms = max(opens, default=0)
            if newest_ms > state.requested_ms:
                state.requested_ms = newest_ms
                return symbol
        return None

    def refused_symbols(self) -> list[str]:
        """Symbols whose candles are withheld since their volumes cannot be reconciled."""
        states = self._states.items()
        return sorted(s for s, state in states if state.finding.verdict is Verdict.REFUSED)

    def count_verdicts(self) -> Counter[Verdict]:
        """Number of symbols per verdict."""
        return Counter(state.finding.verdict for state in self._states.values())

    def _state(self, symbol: str) -> _SymbolVolumes:
        if (state := self._states.get(symbol)) is None:
            state = self._states[symbol] = _SymbolVolumes(is_documented=self._is_known(symbol))
        return state


def _is_unusual(state: _SymbolVolumes, volume: float, closed: bool) -> bool:  # noqa: FBT001 - a value
    """Whether a volume is far from all volumes of the history."""
    if state.traded_candles < _MIN_USUAL_CANDLES or not volume:
        return False
    # A candle that has just opened may have any small volume.
    is_small = closed and volume < state.min_volume / _UNUSUAL_FACTOR
    return is_small or volume > state.max_volume * _UNUSUAL_FACTOR
