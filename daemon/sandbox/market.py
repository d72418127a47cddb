"""What the sandbox exchange knows at an instant, whatever protocol it speaks.

Pure: every answer takes the time as an argument. REST and websocket both ask here, so they can
never disagree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.sandbox.recording import Playback
from model.core.candle import Ohlcv

if TYPE_CHECKING:
    from collections.abc import Callable

_TRADES_PER_CANDLE: Final = 100_000
"""Trade ids reserved per candle, so that a later candle's ids are higher."""
_TRADES_PER_UNIT: Final = 10.0


@dataclass
class Faults:
    """What goes wrong on purpose. Tests change it while the exchange runs.

    Candles are named by (ccxt symbol, opening in Unix milliseconds).

    Attributes:
        silent: connections live and answer, but no candle is streamed.
        unclosed: no closing message is streamed; what forms is.
        close_delay_s: seconds added to the delay of every closing message.
        skipped: candles of which the stream says nothing; REST has them.
        untraded: candles without a trade, which neither stream nor REST mentions.
        duplicated: candles whose closing message is streamed twice.
        revised: candles whose close changes after the closing message, to the given price.
        ban_status: HTTP status (418 or 429) of every REST answer until ``ban_until_ms``.
        ban_until_ms: end of that ban, Unix milliseconds.
        no_handshakes: the ban answers new websocket connections too.
        delisted: symbols that cannot be subscribed to and of which nothing more is told; whoever
            asks for the list of markets does not find them.
        stream_volume: what updates of the stream say instead of the volume.
    """

    silent: bool = False
    unclosed: bool = False
    close_delay_s: float = 0.0
    skipped: set[tuple[str, int]] = field(default_factory=set)
    untraded: set[tuple[str, int]] = field(default_factory=set)
    duplicated: set[tuple[str, int]] = field(default_factory=set)
    revised: dict[tuple[str, int], float] = field(default_factory=dict)
    ban_status: int = 429
    ban_until_ms: int = 0
    no_handshakes: bool = False
    delisted: set[str] = field(default_factory=set)
    stream_volume: Callable[[Kline], float] | None = None

    @property
    def not_streamed(self) -> set[tuple[str, int]]:
        """Candles of which the stream says nothing."""
        return self.skipped | self.untraded if self.untraded else self.skipped

    def retry_after_s(self, now_ms: int) -> str:
        """The rest of the ban as its header tells it, whole seconds."""
        return str(-(-(self.ban_until_ms - now_ms) // 1_000))


class Kline(NamedTuple):
    """One candle with all that exchanges report about it.

    Attributes:
        open_ms: opening, Unix milliseconds.
        close_ms: last millisecond of the candle.
        ohlcv: prices and volume.
        first_id: id of the first trade, -1 when there was none.
        last_id: id of the last trade, -1 when there was none.
        trades: number of trades.
    """

    open_ms: int
    close_ms: int
    ohlcv: Ohlcv
    first_id: int
    last_id: int
    trades: int

    @property
    def quote_volume(self) -> float:
        """Volume in quote currency, at the middle of the candle's range."""
        return self.ohlcv.volume * self.middle

    @property
    def middle(self) -> float:
        """The middle of the candle's range, which stands for its average price."""
        return (self.ohlcv.high + self.ohlcv.low) / 2


class Market:
    """The listed symbols and their candles as of any instant."""

    def __init__(self, playback: Playback, faults: Faults) -> None:
        """Trade what ``playback`` plays, with ``faults`` applied."""
        self.playback = playback
        self.faults = faults

    @property
    def listed(self) -> list[str]:
        """The ccxt symbols that can be traded now."""
        return [symbol for symbol in self.playback.symbols if symbol not in self.faults.delisted]

    def kline(self, symbol: str, open_ms: int, fraction: float, *, revised: bool) -> Kline:
        """The candle after ``fraction`` of its time; with ``revised``, a correction shows.

        Raises:
            KeyError: unknown symbol.
            ValueError: no candle opens at ``open_ms``.
        """
        ohlcv = self.playback.forming(symbol, open_ms, fraction)
        if revised and (close := self.faults.revised.get((symbol, open_ms))) is not None:
            high, low = max(ohlcv.high, close), min(ohlcv.low, close)
            ohlcv = ohlcv._replace(high=high, low=low, close=close)
        trades = min(math.ceil(ohlcv.volume * _TRADES_PER_UNIT), _TRADES_PER_CANDLE)
        first = self.playback.index(open_ms) * _TRADES_PER_CANDLE + 1 if trades else -1
        last = first + trades - 1 if trades else -1
        close_ms = open_ms + self.playback.timeframe.ms - 1
        return Kline(open_ms, close_ms, ohlcv, first, last, trades)

    def klines(
        self, symbol: str, start_ms: int | None, end_ms: int | None, limit: int, now_ms: int
    ) -> list[Kline]:
        """Candles as REST lists them: ascending, the last one forming when time has come to it.

        Args:
            symbol: ccxt symbol.
            start_ms: earliest opening; without it the latest ``limit`` candles are listed.
            end_ms: latest opening.
            limit: at most so many.
            now_ms: Unix milliseconds.
        """
        step, origin = self.playback.timeframe.ms, self.playback.origin_ms
        last = (min(now_ms, now_ms if end_ms is None else end_ms) - origin) // step
        first = 0
        if start_ms is not None:
            first = max(-(-(start_ms - origin) // step), 0)
            last = min(last, first + limit - 1)
        else:
            first = max(last - limit + 1, 0)
        opens = (origin + index * step for index in range(first, last + 1))
        return [
            self.kline(symbol, t, (now_ms - t) / step, revised=now_ms - t >= step)
            for t in opens
            if (symbol, t) not in self.faults.untraded
        ]
