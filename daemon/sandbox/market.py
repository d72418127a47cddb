"""Compute the candles of the simulated exchange at a given time, with injected faults.

Pure: the time is an argument. The REST and the websocket server both use it, so that they agree.
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
"""Trade ids reserved per candle, so that later candles have higher ids."""
_TRADES_PER_UNIT: Final = 10.0


@dataclass
class Faults:
    """Injected faults. Tests change them while the exchange runs.

    Candles are identified by (ccxt symbol, opening time in Unix milliseconds).

    Attributes:
        silent: connections stay open and answer requests, but no candle is streamed.
        unclosed: forming updates are streamed, but no closing message.
        close_delay_s: seconds added to the delay of every closing message.
        skipped: candles that REST returns but the stream leaves out.
        untraded: candles without a trade, which neither the stream nor REST contains.
        duplicated: candles whose closing message is streamed twice.
        revised: candles whose close changes after the closing message, to the given price.
        ban_status: HTTP status (418 or 429) of every REST response until ``ban_until_ms``.
        ban_until_ms: end of the ban, Unix milliseconds.
        no_handshakes: the ban also applies to new websocket connections.
        delisted: symbols that are not listed, streamed or open to subscriptions.
        stream_volume: computes the volume that the stream shows; None keeps the true one.
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
        """Candles that the stream leaves out."""
        return self.skipped | self.untraded if self.untraded else self.skipped

    def retry_after_s(self, now_ms: int) -> str:
        """The remaining time of the ban in whole seconds, for the `Retry-After` header."""
        return str(-(-(self.ban_until_ms - now_ms) // 1_000))


class Kline(NamedTuple):
    """One candle with every field that exchanges report.

    Attributes:
        open_ms: opening, Unix milliseconds.
        close_ms: last millisecond of the candle.
        ohlcv: prices and volume.
        first_id: id of the first trade; -1 without trades.
        last_id: id of the last trade; -1 without trades.
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
        """Volume in quote currency, computed with the middle of the candle's range."""
        return self.ohlcv.volume * self.middle

    @property
    def middle(self) -> float:
        """The middle of the candle's range, used as its average price."""
        return (self.ohlcv.high + self.ohlcv.low) / 2


class Market:
    """The listed symbols and their candles at any time."""

    def __init__(self, playback: Playback, faults: Faults) -> None:
        """Serve the candles of ``playback`` with ``faults`` applied."""
        self.playback = playback
        self.faults = faults

    @property
    def listed(self) -> list[str]:
        """The ccxt symbols that are not delisted."""
        return [symbol for symbol in self.playback.symbols if symbol not in self.faults.delisted]

    def kline(self, symbol: str, open_ms: int, fraction: float, *, revised: bool) -> Kline:
        """The candle after ``fraction`` (0 to 1) of its time, revised if ``revised`` is set.

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
        """Candles as REST returns them: ascending, including the forming one.

        Args:
            symbol: ccxt symbol.
            start_ms: earliest opening time; None returns the latest ``limit`` candles.
            end_ms: latest opening time; None sets no bound.
            limit: maximum number of candles.
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
