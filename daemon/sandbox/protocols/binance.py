"""Implement Binance spot's public candle streams and REST addresses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final
from urllib.parse import parse_qs, urlsplit

from daemon.sandbox.market import Kline, Market
from daemon.sandbox.protocols.base import (
    CandleUpdate,
    ExchangeProtocol,
    RestRequestError,
    Route,
    Session,
    decimals,
    optional_int,
)
from daemon.sandbox.protocols.binance_session import BinanceSession

_DEFAULT_LIMIT: Final = 500
_MAX_LIMIT: Final = 1_000
_TIMEFRAMES: Final = "1s 1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 3d 1w"


class Binance(ExchangeProtocol):
    """Binance spot."""

    name = "binance"
    intervals: ClassVar[Mapping[str, str]] = {text: text for text in _TIMEFRAMES.split()}
    ping_frames = True

    def market_id(self, symbol: str) -> str:
        """E.g. ``BTCUSDT``."""
        return symbol.replace("/", "")

    def topic(self, market_id: str) -> str:
        """The stream's name, e.g. ``btcusdt@kline_1m``."""
        return f"{market_id.lower()}@kline_{self.interval}"

    def session(self, target: str) -> Session | None:
        """A client of ``/ws…`` or ``/stream…``."""
        if (address := _address(target)) is None:
            return None
        combined, names = address
        return BinanceSession(combined=combined, names=names, max_streams=self.max_streams)

    def candle_messages(self, symbol: str, update: CandleUpdate) -> list[bytes]:
        """One kline event for each state."""
        market_id, now_ms = self.market_id(symbol), update.now_ms
        return [
            event_json(kline, market_id, self.interval, now_ms, closed=update.closed)
            for kline in update.states
        ]

    @property
    def routes(self) -> Mapping[str, Route]:
        """Public spot addresses; the futures addresses return empty lists."""
        return {
            "/api/v3/ping": lambda _query, _now_ms: {},
            "/api/v3/time": lambda _query, now_ms: {"serverTime": now_ms},
            "/api/v3/exchangeInfo": lambda _query, now_ms: exchange_info(self.market, now_ms),
            "/api/v3/klines": self._klines,
            # ccxt requests the futures' markets too unless configured otherwise.
            "/fapi/v1/exchangeInfo": _no_futures,
            "/dapi/v1/exchangeInfo": _no_futures,
        }

    def banned(self, status: int, until_ms: int) -> object:
        """The body of an error; the text contains the end of a ban."""
        msg = "Too much request weight used; please use WebSocket Streams to avoid bans."
        if status == 418:  # noqa: PLR2004 - Binance's status for a banned address
            msg = f"Way too much request weight used; IP banned until {until_ms}."
        return {"code": -1003, "msg": msg}

    def _klines(self, query: Mapping[str, str], now_ms: int) -> object:
        market_id, interval = _mandatory(query, "symbol"), _mandatory(query, "interval")
        if (symbol := self.symbol_of_id.get(market_id)) is None:
            code, msg = -1121, "Invalid symbol."
            raise _rest_refusal(code, msg)
        # The sandbox serves one timeframe; any other interval is answered as invalid.
        if interval != self.interval:
            code, msg = -1120, "Invalid interval."
            raise _rest_refusal(code, msg)
        limit = _number(query, "limit")
        if limit == 0:
            code, msg = -1130, "Data sent for parameter 'limit' is not valid."
            raise _rest_refusal(code, msg)
        start, end = _number(query, "startTime"), _number(query, "endTime")
        count = min(_DEFAULT_LIMIT if limit is None else limit, _MAX_LIMIT)
        return [rest_row(k) for k in self.market.klines(symbol, start, end, count, now_ms)]


def _no_futures(_query: Mapping[str, str], now_ms: int) -> object:
    return {"timezone": "UTC", "serverTime": now_ms, "symbols": []}


def _rest_refusal(code: int, msg: str) -> RestRequestError:
    return RestRequestError({"code": code, "msg": msg}, status=400)


def _mandatory(query: Mapping[str, str], name: str) -> str:
    value = query.get(name, "")
    if not value:
        code = -1102
        msg = f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
        raise _rest_refusal(code, msg)
    return value


def _number(query: Mapping[str, str], name: str) -> int | None:
    code = -1100
    msg = f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'."
    return optional_int(query, name, _rest_refusal(code, msg))


def event_json(kline: Kline, market_id: str, interval: str, now_ms: int, *, closed: bool) -> bytes:
    """A websocket kline event, its keys in the order of the real exchange's.

    Args:
        kline: the candle.
        market_id: Binance's symbol, e.g. ``BTCUSDT``.
        interval: Binance's interval, e.g. ``1m``.
        now_ms: event time, Unix milliseconds.
        closed: the ``x`` flag.
    """
    o, h, low, c, v, quote, half, half_quote = _texts(kline)
    # Formatted by hand: a burst of 1,000 symbols takes a third of the time of a JSON library.
    return (
        f'{{"e":"kline","E":{now_ms},"s":"{market_id}","k":{{"t":{kline.open_ms},'
        f'"T":{kline.close_ms},"s":"{market_id}","i":"{interval}","f":{kline.first_id},'
        f'"L":{kline.last_id},"o":"{o}","c":"{c}","h":"{h}","l":"{low}",'
        f'"v":"{v}","n":{kline.trades},"x":{"true" if closed else "false"},'
        f'"q":"{quote}","V":"{half}","Q":"{half_quote}","B":"0"}}}}'
    ).encode()


def _texts(kline: Kline) -> list[str]:
    """Prices, volume, volume in quote currency, and the halves of both volumes."""
    v, quote = kline.ohlcv.volume, kline.quote_volume
    return [decimals(value) for value in (*kline.ohlcv, quote, v / 2, quote / 2)]


def rest_row(kline: Kline) -> list[int | str]:
    """A row of ``/api/v3/klines``."""
    o, h, low, c, v, quote, half, half_quote = _texts(kline)
    row: list[int | str] = [kline.open_ms, o, h, low, c, v, kline.close_ms, quote]
    return [*row, kline.trades, half, half_quote, "0"]


def exchange_info(market: Market, now_ms: int) -> dict[str, object]:
    """The body of ``/api/v3/exchangeInfo``, limited to the fields that candles need."""
    tick = decimals(10.0**-market.playback.recording.decimals)
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
        "symbols": [_symbol_info(symbol, tick) for symbol in market.listed],
    }


def _symbol_info(symbol: str, tick: str) -> dict[str, object]:
    base, _, quote = symbol.partition("/")
    return {
        "symbol": base + quote,
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


def _address(target: str) -> tuple[bool, list[str]] | None:
    """Parse a request target into whether it is combined, and its stream names."""
    url = urlsplit(target)
    head, *names = url.path.strip("/").split("/")
    if head == "ws":
        return False, [name for name in names if name]
    if head == "stream" and not names:
        listed = "/".join(parse_qs(url.query).get("streams", []))
        return True, [name for name in listed.split("/") if name]
    return None
