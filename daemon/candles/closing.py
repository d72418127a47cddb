"""Decide which update of a stream makes a candle final. No I/O, no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from model.core.candle import Candle, check_open_ms, streamed_ohlcv
from model.core.errors import BadCandle

if TYPE_CHECKING:
    from model.core.candle import FinalBy, Timeframe

GRACE_MS: Final = 2_500
"""Exchanges deliver the close of a candle up to two seconds after its boundary."""


def grace_ms(timeframe: Timeframe) -> int:
    """How long after its boundary a candle in the exchange's history may still change."""
    return min(GRACE_MS, timeframe.ms // 4)


class ClosingRule:
    """Turns the updates of many symbols into final candles.

    A candle is final when the exchange flags it as closed, or, where the exchange has no such
    flag, when the next candle of the symbol has begun. The first candle of a symbol may be
    partial: without a flag it only primes. Use a new rule for each connection: candles that close
    between two connections come from the exchange's history.

    Attributes:
        timeframe: the grid; set it when the exchange's own grid becomes known.
    """

    def __init__(self, timeframe: Timeframe, max_skew_ms: int) -> None:
        """Start without any forming candle.

        Args:
            timeframe: the grid of the candles.
            max_skew_ms: how far this machine's clock may lag behind the exchange's; a candle
                that closes further in the future is refused.
        """
        self.timeframe = timeframe
        self._max_skew_ms = max_skew_ms
        # Per symbol: the latest state of the unfinished candle.
        self._forming: dict[str, Candle] = {}
        # Per symbol: opening time of the first candle seen, Unix milliseconds.
        self._primed_ms: dict[str, int] = {}

    def forming(self, symbol: str) -> Candle | None:
        """The latest state of the symbol's unfinished candle."""
        return self._forming.get(symbol)

    def is_priming(self, symbol: str) -> bool:
        """Whether the symbol's unfinished candle is the first one seen."""
        forming = self._forming.get(symbol)
        return forming is None or forming.open_ms <= self._primed_ms[symbol]

    def on_update(
        self,
        symbol: str,
        open_ms: object,
        values: tuple[object, ...],
        *,
        closed: bool | None,
        now_ms: int,
        now_s: float,
    ) -> Candle | None:
        """Handle one update.

        Args:
            symbol: ccxt symbol.
            open_ms: opening time as the exchange sent it.
            values: open, high, low, close, volume as the exchange sent them.
            closed: the exchange's flag; None where it has none.
            now_ms: wall clock at arrival.
            now_s: monotonic clock at arrival.

        Returns:
            The candle that this update makes final; None if it does not.

        Raises:
            BadCandle: the update cannot be true.
        """
        opened = check_open_ms(open_ms, self.timeframe, now_ms + self._max_skew_ms)
        final_by: FinalBy | None = "exchange_flag" if closed else None
        try:
            ohlcv, repaired = streamed_ohlcv(values)
        except BadCandle:
            forming = self._forming.get(symbol)
            if forming is not None and forming.open_ms == opened:
                # Its values are not the last ones: the next candle must not make them final.
                del self._forming[symbol]
            raise
        candle = Candle(
            symbol,
            opened,
            opened + self.timeframe.ms,
            ohlcv,
            now_ms,
            now_s,
            final_by,
            repaired=repaired,
        )
        known_at_ms = candle.close_ms if closed else opened
        if known_at_ms > now_ms + self._max_skew_ms:
            what = "close" if closed else "begin"
            msg = f"{symbol}: a candle is said to {what} {known_at_ms - now_ms} ms from now"
            raise BadCandle(msg)
        if closed:
            self._drop_forming(symbol, opened)
            return candle
        primed_ms = self._primed_ms.setdefault(symbol, opened)
        before = self._forming.get(symbol)
        if before is not None and before.open_ms > opened:
            return None
        self._forming[symbol] = candle
        if closed is False or before is None or not primed_ms < before.open_ms < opened:
            return None
        return before._replace(received_ms=now_ms, received_s=now_s, final_by="successor")

    def _drop_forming(self, symbol: str, opened: int) -> None:
        forming = self._forming.get(symbol)
        if forming is not None and forming.open_ms <= opened:
            del self._forming[symbol]
