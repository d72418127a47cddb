"""What the sandbox exchange knows at an instant, and how Binance writes it down.

Pure: every answer takes the time as an argument. REST and websocket both ask here, so they can
never disagree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from daemon.sandbox.tape import Tape
from model.candle import Ohlcv

_TRADES_PER_CANDLE: Final = 100_000
"""Trade ids reserved per candle, so that a later candle's ids are higher."""
_TRADES_PER_UNIT: Final = 10.0


@dataclass
class Faults:
    """What goes wrong on purpose. Tests change it while the exchange runs.

    Candles are named by (ccxt symbol, opening in Unix milliseconds).

    Attributes:
        silent: connections live and answer, but no candle is streamed.
        close_delay_s: seconds added to the delay of every closing message.
        skipped: candles of which the stream says nothing; REST has them.
        duplicated: candles whose closing message is streamed twice.
        revised: candles whose close changes after the closing message, to the given price.
        ban_status: HTTP status (418 or 429) of every REST answer until ``ban_until_ms``.
        ban_until_ms: end of that ban, Unix milliseconds.
    """

    silent: bool = False
    close_delay_s: float = 0.0
    skipped: set[tuple[str, int]] = field(default_factory=set)
    duplicated: set[tuple[str, int]] = field(default_factory=set)
    revised: dict[tuple[str, int], float] = field(default_factory=dict)
    ban_status: int = 429
    ban_until_ms: int = 0


class Kline(NamedTuple):
    """One candle with all that Binance reports about it.

    Attributes:
        open_ms: opening, Unix milliseconds.
        close_ms: last millisecond of the candle (Binance's convention).
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
        return self.ohlcv.volume * (self.ohlcv.high + self.ohlcv.low) / 2


class Market:
    """The listed symbols and their candles as of any instant."""

    def __init__(self, tape: Tape, faults: Faults) -> None:
        """Trade what ``tape`` plays, with ``faults`` applied."""
        self.tape = tape
        self.faults = faults
        self.interval = tape.timeframe.text
        self.symbol_of_id = {symbol.replace("/", ""): symbol for symbol in tape.symbols}
        self.symbol_of_stream = {
            f"{market_id.lower()}@kline_{self.interval}": symbol
            for market_id, symbol in self.symbol_of_id.items()
        }

    def kline(self, symbol: str, open_ms: int, fraction: float, *, revised: bool) -> Kline:
        """The candle after ``fraction`` of its time; with ``revised``, a correction shows.

        Raises:
            KeyError: unknown symbol.
            ValueError: no candle opens at ``open_ms``.
        """
        ohlcv = self.tape.forming(symbol, open_ms, fraction)
        if revised and (close := self.faults.revised.get((symbol, open_ms))) is not None:
            high, low = max(ohlcv.high, close), min(ohlcv.low, close)
            ohlcv = ohlcv._replace(high=high, low=low, close=close)
        trades = min(math.ceil(ohlcv.volume * _TRADES_PER_UNIT), _TRADES_PER_CANDLE)
        first = self.tape.index(open_ms) * _TRADES_PER_CANDLE + 1 if trades else -1
        last = first + trades - 1 if trades else -1
        close_ms = open_ms + self.tape.timeframe.ms - 1
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
        step, origin = self.tape.timeframe.ms, self.tape.origin_ms
        last = (min(now_ms, now_ms if end_ms is None else end_ms) - origin) // step
        first = 0
        if start_ms is not None:
            first = max(-(-(start_ms - origin) // step), 0)
            last = min(last, first + limit - 1)
        else:
            first = max(last - limit + 1, 0)
        opens = (origin + index * step for index in range(first, last + 1))
        return [
            self.kline(symbol, t, (now_ms - t) / step, revised=now_ms - t >= step) for t in opens
        ]


def event_json(kline: Kline, market_id: str, interval: str, now_ms: int, *, closed: bool) -> bytes:
    """A websocket kline event, its keys in the order of the real exchange's.

    Args:
        kline: the candle.
        market_id: Binance's symbol, e.g. ``BTCUSDT``.
        interval: Binance's interval, e.g. ``1m``.
        now_ms: event time, Unix milliseconds.
        closed: the ``x`` flag.
    """
    o, h, low, c, v = kline.ohlcv
    quote = kline.quote_volume
    # Written by hand: a burst of a thousand symbols costs a third of what a JSON library takes.
    return (
        f'{{"e":"kline","E":{now_ms},"s":"{market_id}","k":{{"t":{kline.open_ms},'
        f'"T":{kline.close_ms},"s":"{market_id}","i":"{interval}","f":{kline.first_id},'
        f'"L":{kline.last_id},"o":"{o:.8f}","c":"{c:.8f}","h":"{h:.8f}","l":"{low:.8f}",'
        f'"v":"{v:.8f}","n":{kline.trades},"x":{"true" if closed else "false"},'
        f'"q":"{quote:.8f}","V":"{v / 2:.8f}","Q":"{quote / 2:.8f}","B":"0"}}}}'
    ).encode()


def rest_row(kline: Kline) -> list[int | str]:
    """A row of ``/api/v3/klines``."""
    o, h, low, c, v = (f"{value:.8f}" for value in kline.ohlcv)
    quote, half = kline.quote_volume, kline.ohlcv.volume / 2
    row: list[int | str] = [kline.open_ms, o, h, low, c, v, kline.close_ms, f"{quote:.8f}"]
    return [*row, kline.trades, f"{half:.8f}", f"{quote / 2:.8f}", "0"]


def exchange_info(market: Market, now_ms: int) -> dict[str, object]:
    """The body of ``/api/v3/exchangeInfo``, as far as candles need it."""
    tick = f"{10.0**-market.tape.recording.decimals:.8f}"
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "rateLimits": [
            {
                "rateLimitType": "REQUEST_WEIGHT",
                "interval": "MINUTE",
                "intervalNum": 1,
                "limit": 6000,
            }
        ],
        "exchangeFilters": [],
        "symbols": [
            _symbol_info(market_id, symbol, tick)
            for market_id, symbol in market.symbol_of_id.items()
        ],
    }


def _symbol_info(market_id: str, symbol: str, tick: str) -> dict[str, object]:
    base, _, quote = symbol.partition("/")
    return {
        "symbol": market_id,
        "status": "TRADING",
        "baseAsset": base,
        "baseAssetPrecision": 8,
        "quoteAsset": quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "orderTypes": ["LIMIT", "MARKET"],
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": tick,
                "maxPrice": "1000000.00000000",
                "tickSize": tick,
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": "0.00001000",
                "maxQty": "9000.00000000",
                "stepSize": "0.00001000",
            },
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
    }
