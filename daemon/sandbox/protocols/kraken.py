"""Implement Kraken's v2 websocket protocol and its REST addresses.

Candles have no closed flag. A subscription starts with a snapshot, and heartbeats are sent every
second.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar, Final

import orjson

from daemon.sandbox.market import Kline, Market
from daemon.sandbox.protocols.base import (
    CandleUpdate,
    ExchangeProtocol,
    RestRequestError,
    Route,
    Session,
    decimals,
    json_object,
    optional_int,
    parse_intervals,
)

_SNAPSHOT_ROWS: Final = 10
_MAX_ROWS: Final = 720
"""Length of the history that Kraken offers."""


class Kraken(ExchangeProtocol):
    """Kraken spot."""

    name = "kraken"
    intervals: ClassVar[Mapping[str, str]] = parse_intervals(
        "1m=1 5m=5 15m=15 30m=30 1h=60 4h=240 1d=1440"
    )
    heartbeat = b'{"channel":"heartbeat"}'
    sends_next_on_close = True

    def market_id(self, symbol: str) -> str:
        """The pair's name in the REST API, e.g. ``BTCUSDT``."""
        return symbol.replace("/", "")

    def topic(self, market_id: str) -> str:
        """Channel, interval and symbol; Kraken has no topic names of its own."""
        return f"ohlc:{self.interval}:{market_id}"

    def session(self, target: str) -> Session | None:
        """A session for a client of version 2's address."""
        return KrakenSession(self, next(self.session_numbers)) if target == "/v2" else None

    def candle_messages(self, symbol: str, update: CandleUpdate) -> list[bytes]:
        """One update per state that has trades.

        Only the first trade of the next candle shows that a candle has closed.
        """
        states = [*update.states, *([update.next_kline] if update.next_kline else [])]
        return [
            self.message("update", [self.row(symbol, kline)], update.now_ms)
            for kline in states
            if kline.trades
        ]

    def message(self, kind: str, rows: list[dict[str, object]], now_ms: int) -> bytes:
        """A message of the channel; ``kind`` is ``snapshot`` or ``update``."""
        stamp = iso(now_ms, 9)
        return orjson.dumps({"channel": "ohlc", "type": kind, "timestamp": stamp, "data": rows})

    def row(self, symbol: str, kline: Kline) -> dict[str, object]:
        """One candle as a JSON object; its timestamp is its end."""
        o, h, low, c, v = kline.ohlcv
        return {
            "symbol": symbol,
            "open": o,
            "high": h,
            "low": low,
            "close": c,
            "trades": kline.trades,
            "volume": v,
            "vwap": kline.middle,
            "interval_begin": iso(kline.open_ms, 9),
            "interval": int(self.interval),
            "timestamp": iso(kline.close_ms + 1, 6),
        }

    @property
    def routes(self) -> Mapping[str, Route]:
        """The handler of each public address."""
        return {
            "/0/public/Time": lambda _query, now_ms: _body({"unixtime": now_ms // 1_000}),
            "/0/public/Assets": lambda _query, _now_ms: _body(_assets(self.market)),
            "/0/public/AssetPairs": lambda _query, _now_ms: _body(
                {self.market_id(s): _pair(s, self.market) for s in self.market.listed}
            ),
            "/0/public/OHLC": self._klines,
        }

    def banned(self, status: int, until_ms: int) -> object:
        """The body of an error; it does not contain the end of the ban."""
        del status, until_ms
        return {"error": ["EAPI:Rate limit exceeded"]}

    def _klines(self, query: Mapping[str, str], now_ms: int) -> object:
        """Candles that opened after ``since``, ascending; the last one is forming."""
        pair = query.get("pair", "")
        unknown = _refusal("EQuery:Unknown asset pair")
        wrong = _refusal("EGeneral:Invalid arguments")
        if (symbol := self.symbol_of_id.get(pair)) is None:
            raise unknown
        if query.get("interval", "1") != self.interval:
            raise wrong
        since_s = optional_int(query, "since", wrong)
        page = self.market.klines(symbol, None, None, _MAX_ROWS, now_ms)
        last_s = page[-2].open_ms // 1_000 if len(page) > 1 else 0
        rows = [
            _rest_row(kline)
            for kline in page
            if since_s is None or kline.open_ms > since_s * 1_000 or kline is page[-1]
        ]
        return _body({pair: rows, "last": last_s})


class KrakenSession(Session):
    """One client of the candle channel."""

    def __init__(self, protocol: Kraken, number: int) -> None:
        """Start without a subscription."""
        super().__init__()
        self._protocol = protocol
        self._number = number

    def on_connect(self, now_ms: int) -> list[bytes]:
        """A status message."""
        del now_ms
        state = {
            "version": "2.0.10",
            "system": "online",
            "api_version": "v2",
            "connection_id": self._number,
        }
        return [orjson.dumps({"channel": "status", "type": "update", "data": [state]})]

    def reply(self, text: str | bytes, now_ms: int) -> list[bytes]:
        """Execute one request and return the responses, one or more per symbol."""
        request = json_object(text) or {}
        method, params = request.get("method"), request.get("params")
        if method == "ping":
            return [_answer(request, {"method": "pong"}, now_ms)]
        if method not in ("subscribe", "unsubscribe") or not isinstance(params, dict):
            return [_failed(request, "Malformed request", now_ms)]
        symbols = params.get("symbol")
        if params.get("channel") != "ohlc" or not isinstance(symbols, list):
            return [_failed(request, "Subscription name invalid", now_ms)]
        if str(params.get("interval")) != self._protocol.interval:
            return [_failed(request, "Subscription ohlc interval not supported", now_ms)]
        return [raw for symbol in symbols for raw in self._execute(request, str(symbol), now_ms)]

    def _execute(self, request: dict[str, object], symbol: str, now_ms: int) -> list[bytes]:
        protocol, method = self._protocol, request["method"]
        topic = protocol.topic(protocol.market_id(symbol))
        if protocol.subscribable(topic) != symbol:
            return [_failed(request, f"Currency pair not supported {symbol}", now_ms, symbol)]
        subscribed = method == "subscribe"
        result = {
            "channel": "ohlc",
            "interval": int(protocol.interval),
            **({"snapshot": True} if subscribed else {}),
            "symbol": symbol,
            "warnings": ["timestamp is deprecated, use interval_begin"],
        }
        done = _answer(request, {"method": method, "result": result, "success": True}, now_ms)
        if not subscribed:
            self.topics.pop(topic, None)
            return [done]
        self.topics[topic] = None
        past = protocol.market.klines(symbol, None, None, _SNAPSHOT_ROWS, now_ms)
        rows = [protocol.row(symbol, kline) for kline in past if kline.trades]
        return [done, protocol.message("snapshot", rows, now_ms)]


def iso(at_ms: int, digits: int) -> str:
    """Format a time as Kraken does, with 6 or 9 decimals of a second."""
    at = datetime.fromtimestamp(at_ms / 1_000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at_ms % 1_000:03}{'0' * (digits - 3)}Z"


def _answer(request: dict[str, object], body: dict[str, object], now_ms: int) -> bytes:
    number = {"req_id": request["req_id"]} if "req_id" in request else {}
    stamp = iso(now_ms, 6)
    return orjson.dumps({**body, **number, "time_in": stamp, "time_out": stamp})


def _failed(
    request: dict[str, object], error: str, now_ms: int, symbol: str | None = None
) -> bytes:
    body = {"error": error, "method": str(request.get("method", "")), "success": False}
    if symbol is not None:
        body["symbol"] = symbol
    return _answer(request, body, now_ms)


def _body(result: object) -> object:
    return {"error": [], "result": result}


def _refusal(error: str) -> RestRequestError:
    return RestRequestError({"error": [error]})


def _rest_row(kline: Kline) -> list[int | str]:
    o, h, low, c, v = map(decimals, kline.ohlcv)
    row: list[int | str] = [kline.open_ms // 1_000, o, h, low, c, decimals(kline.middle), v]
    return [*row, kline.trades]


def _assets(market: Market) -> dict[str, object]:
    names = {name for symbol in market.playback.symbols for name in symbol.split("/")}
    common = {"aclass": "currency", "decimals": 8, "display_decimals": 6, "status": "enabled"}
    return {name: {"altname": name, **common} for name in sorted(names)}


def _pair(symbol: str, market: Market) -> dict[str, object]:
    base, _, quote = symbol.partition("/")
    return {
        "altname": base + quote,
        "wsname": symbol,
        "aclass_base": "currency",
        "base": base,
        "aclass_quote": "currency",
        "quote": quote,
        "lot": "unit",
        "pair_decimals": market.playback.recording.decimals,
        "lot_decimals": 8,
        "lot_multiplier": 1,
        "leverage_buy": [],
        "leverage_sell": [],
        "fees": [[0, 0.4]],
        "fees_maker": [[0, 0.25]],
        "fee_volume_currency": "ZUSD",
        "margin_call": 80,
        "margin_stop": 40,
        "ordermin": "0.0001",
        "costmin": "0.5",
        "tick_size": decimals(10.0**-market.playback.recording.decimals),
        "status": "online",
    }
