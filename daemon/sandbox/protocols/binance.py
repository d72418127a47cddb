"""Binance spot's public candle streams and REST addresses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import ClassVar, Final
from urllib.parse import parse_qs, urlsplit

import orjson

from daemon.sandbox.market import Kline, Market
from daemon.sandbox.protocols.base import (
    ExchangeProtocol,
    Messages,
    RestRefusal,
    Route,
    Session,
    Update,
    decimals,
    optional_int,
)

_STREAM: Final = re.compile(r"[a-z0-9]+@[A-Za-z0-9_@+:]+")
_ID: Final = re.compile(r"[A-Za-z0-9]{1,36}")
_INT64: Final = 2**63
_DEFAULT_LIMIT: Final = 500
_MAX_LIMIT: Final = 1_000
_TIMEFRAMES: Final = "1s 1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 3d 1w"


class _Refusal(Exception):  # noqa: N818 - an answer of the protocol, not a mishap
    """A stream request that is answered with Binance's error code and message."""

    def __init__(self, code: int, msg: str) -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg


class BinanceSession(Session):
    """One client's subscriptions to market streams."""

    def __init__(self, *, combined: bool, names: Iterable[str], max_streams: int) -> None:
        """Start with the streams named in the address.

        Args:
            combined: wrap every event in ``{"stream": …, "data": …}``.
            names: stream names; those that are none (ccxt connects to ``/ws/0``) stay silent.
            max_streams: streams that one connection may have.
        """
        super().__init__()
        self.combined = combined
        self.topics = dict.fromkeys(names)
        self._max_streams = max_streams

    def reply(self, text: str | bytes, now_ms: int) -> list[bytes]:
        """Carry out one request and answer it."""
        del now_ms
        request_id: object = None
        try:
            request = _parse(text)
            request_id = _checked_id(request.get("id"))
            return [orjson.dumps({"result": self._carry_out(request), "id": request_id})]
        except _Refusal as refusal:
            error: dict[str, object] = {"error": {"code": refusal.code, "msg": refusal.msg}}
            return [orjson.dumps(error if request_id is None else error | {"id": request_id})]

    def _carry_out(self, request: dict[str, object]) -> list[str] | None:
        method = request.get("method")
        if method == "LIST_SUBSCRIPTIONS":
            return list(self.topics)
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            detail = "missing field `method`" if method is None else f"unknown variant `{method}`"
            code = 2
            msg = (
                f"Invalid request: {detail}, "
                "expected one of `SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`"
            )
            raise _Refusal(code, msg)
        names = _checked_names(request.get("params"))
        if method == "UNSUBSCRIBE":
            for name in names:
                self.topics.pop(name, None)
            return None
        wanted = self.topics | dict.fromkeys(names)
        if len(wanted) > self._max_streams:
            code, msg = 4, "Too many subscriptions"
            raise _Refusal(code, msg)
        self.topics = wanted
        return None

    def select(self, messages: Messages) -> list[bytes]:
        """This session's part of a burst, wrapped where the address asked for it."""
        if not self.combined:
            return super().select(messages)
        return [
            b'{"stream":"%b","data":%b}' % (name.encode(), raw)
            for name in self.topics
            for raw in messages(name)
        ]


def _parse(text: str | bytes) -> dict[str, object]:
    try:
        request = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        code, msg = 3, f"Invalid JSON: {error}"
        raise _Refusal(code, msg) from None
    if not isinstance(request, dict):
        code, msg = 2, "Invalid request: expected an object"
        raise _Refusal(code, msg)
    return request


def _checked_id(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        legal = -_INT64 <= value < _INT64
    else:
        legal = value is None or (isinstance(value, str) and _ID.fullmatch(value) is not None)
    if not legal:
        code = 2
        msg = "Invalid request: request ID must be an integer, alphanumeric or null"
        raise _Refusal(code, msg)
    return value


def _checked_names(params: object) -> list[str]:
    if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
        code, msg = 2, "Invalid request: params must be an array of stream names"
        raise _Refusal(code, msg)
    if not all(_STREAM.fullmatch(name) for name in params):
        code, msg = 2, "Invalid request: invalid stream"
        raise _Refusal(code, msg)
    return params


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

    def events(self, symbol: str, update: Update) -> list[bytes]:
        """One kline event for each state."""
        market_id, now_ms = self.market_id(symbol), update.now_ms
        return [
            event_json(kline, market_id, self.interval, now_ms, closed=update.closed)
            for kline in update.states
        ]

    @property
    def routes(self) -> Mapping[str, Route]:
        """Public addresses of spot; those of the futures list nothing."""
        return {
            "/api/v3/ping": lambda _query, _now_ms: {},
            "/api/v3/time": lambda _query, now_ms: {"serverTime": now_ms},
            "/api/v3/exchangeInfo": lambda _query, now_ms: exchange_info(self.market, now_ms),
            "/api/v3/klines": self._klines,
            # A client that was not told to leave the futures alone asks for them too.
            "/fapi/v1/exchangeInfo": _no_futures,
            "/dapi/v1/exchangeInfo": _no_futures,
        }

    def banned(self, status: int, until_ms: int) -> object:
        """Binance names the end of a ban in its text."""
        msg = "Too much request weight used; please use WebSocket Streams to avoid bans."
        if status == 418:  # noqa: PLR2004 - Binance's status for a banned address
            msg = f"Way too much request weight used; IP banned until {until_ms}."
        return {"code": -1003, "msg": msg}

    def _klines(self, query: Mapping[str, str], now_ms: int) -> object:
        market_id, interval = _mandatory(query, "symbol"), _mandatory(query, "interval")
        if (symbol := self.symbol_of_id.get(market_id)) is None:
            code, msg = -1121, "Invalid symbol."
            raise _rest_refusal(code, msg)
        # The sandbox has one grid; any other interval is one that this exchange lacks.
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


def _rest_refusal(code: int, msg: str) -> RestRefusal:
    return RestRefusal({"code": code, "msg": msg}, status=400)


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
    # Written by hand: a burst of a thousand symbols costs a third of what a JSON library takes.
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
    """The body of ``/api/v3/exchangeInfo``, as far as candles need it."""
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
    """Read a request target: whether it is combined, and its stream names."""
    url = urlsplit(target)
    head, *names = url.path.strip("/").split("/")
    if head == "ws":
        return False, [name for name in names if name]
    if head == "stream" and not names:
        listed = "/".join(parse_qs(url.query).get("streams", []))
        return True, [name for name in listed.split("/") if name]
    return None
