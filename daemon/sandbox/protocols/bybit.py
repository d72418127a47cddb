"""Implement Bybit's v5 spot protocol.

A closed candle and the next one are sent in one message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

import orjson

from daemon.sandbox.market import Kline
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

_DEFAULT_LIMIT: Final = 200
_MAX_LIMIT: Final = 1_000
MAX_ARGS: Final = 10
"""Topics per subscribe request."""


class Bybit(ExchangeProtocol):
    """Bybit spot."""

    name = "bybit"
    intervals: ClassVar[Mapping[str, str]] = parse_intervals(
        "1m=1 3m=3 5m=5 15m=15 30m=30 1h=60 2h=120 4h=240 6h=360 12h=720 1d=D 1w=W"
    )
    sends_next_on_close = True

    def market_id(self, symbol: str) -> str:
        """E.g. ``BTCUSDT``."""
        return symbol.replace("/", "")

    def topic(self, market_id: str) -> str:
        """E.g. ``kline.1.BTCUSDT``."""
        return f"kline.{self.interval}.{market_id}"

    def session(self, target: str) -> Session | None:
        """A session for a client of the public spot address."""
        if target != "/v5/public/spot":
            return None
        return BybitSession(self, f"sandbox-{next(self.session_numbers):05x}")

    def candle_messages(self, symbol: str, update: CandleUpdate) -> list[bytes]:
        """One message per state; the last closing message also contains the next candle."""
        *before, last = [[self._row(k, update, closed=update.closed)] for k in update.states]
        if update.next_kline is not None:
            last.append(self._row(update.next_kline, update, closed=False))
        topic = self.topic(self.market_id(symbol))
        common = {"type": "snapshot", "topic": topic}
        return [
            orjson.dumps({**common, "data": data, "ts": update.now_ms}) for data in (*before, last)
        ]

    def _row(self, kline: Kline, update: CandleUpdate, *, closed: bool) -> dict[str, object]:
        o, h, low, c, v = map(decimals, kline.ohlcv)
        return {
            "start": kline.open_ms,
            "end": kline.close_ms,
            "interval": self.interval,
            "open": o,
            "close": c,
            "high": h,
            "low": low,
            "volume": v,
            "turnover": decimals(kline.quote_volume),
            "confirm": closed,
            "timestamp": update.now_ms,
        }

    @property
    def routes(self) -> Mapping[str, Route]:
        """The handler of each public address."""
        return {
            "/v5/market/time": lambda _query, now_ms: _body(
                {"timeSecond": str(now_ms // 1_000), "timeNano": f"{now_ms}000000"}, now_ms
            ),
            "/v5/market/instruments-info": self._instruments,
            "/v5/market/kline": self._klines,
        }

    def banned(self, status: int, until_ms: int) -> object:
        """The body of an error; it does not contain the end of the ban."""
        del status, until_ms
        return {"retCode": 10006, "retMsg": "Too many visits!", "result": {}, "retExtInfo": {}}

    def _instruments(self, query: Mapping[str, str], now_ms: int) -> object:
        category = query.get("category", "")
        tick = 10.0**-self.market.playback.recording.decimals
        listed: Iterable[str] = self.market.listed if category == "spot" else ()
        rows = [_instrument(symbol, decimals(tick)) for symbol in listed]
        return _body({"category": category, "list": rows}, now_ms)

    def _klines(self, query: Mapping[str, str], now_ms: int) -> object:
        """Candles from ``start`` on or up to ``end``, newest first, at most ``limit``."""
        wrong = _refusal("params error", now_ms)
        symbol = self.symbol_of_id.get(query.get("symbol", ""))
        if symbol is None or query.get("category") != "spot":
            raise wrong
        if query.get("interval") != self.interval:
            raise wrong
        start, end, limit = (optional_int(query, name, wrong) for name in ("start", "end", "limit"))
        rows = min(_DEFAULT_LIMIT if limit is None else limit, _MAX_LIMIT)
        page = self.market.klines(symbol, start, end, rows, now_ms)
        data = [
            [str(k.open_ms), *map(decimals, k.ohlcv), decimals(k.quote_volume)]
            for k in reversed(page)
        ]
        result = {"symbol": query["symbol"], "category": "spot", "list": data}
        return _body(result, now_ms)


class BybitSession(Session):
    """One client of the kline topics."""

    def __init__(self, protocol: Bybit, conn_id: str) -> None:
        """Start without a subscription; ``conn_id`` is part of every response."""
        super().__init__()
        self._protocol = protocol
        self._conn_id = conn_id

    def reply(self, text: str | bytes, now_ms: int) -> list[bytes]:
        """Execute one request and return the responses."""
        request = json_object(text) or {}
        op, args = request.get("op"), request.get("args")
        if op == "ping":
            return [self._answer(request, "pong")]
        if op not in ("subscribe", "unsubscribe") or not isinstance(args, list):
            return [self._answer(request, "error:invalid op", success=False)]
        if len(args) > MAX_ARGS:
            return [self._answer(request, f"args size >{MAX_ARGS}", success=False)]
        if unknown := [topic for topic in args if self._protocol.subscribable(topic) is None]:
            return [self._answer(request, f"Invalid symbol :[{unknown[0]}]", success=False)]
        done = self._answer(request, str(op))
        if op == "unsubscribe":
            for topic in args:
                self.topics.pop(topic, None)
            return [done]
        self.topics |= dict.fromkeys(args)
        return [*self._states(args, now_ms), done]

    def _states(self, topics: list[str], now_ms: int) -> Iterable[bytes]:
        """The forming candles; Bybit sends them before or after its acknowledgement."""
        for topic in topics:
            symbol = self._protocol.symbol_of_topic[topic]
            kline = self._protocol.forming_kline(symbol, now_ms)
            yield from self._protocol.candle_messages(
                symbol, CandleUpdate((kline,), closed=False, next_kline=None, now_ms=now_ms)
            )

    def _answer(self, request: dict[str, object], msg: str, *, success: bool = True) -> bytes:
        body = {"success": success, "ret_msg": msg, "conn_id": self._conn_id}
        # Bybit returns the id as text.
        if "req_id" in request:
            body["req_id"] = str(request["req_id"])
        return orjson.dumps({**body, "op": str(request.get("op", ""))})


def _body(result: object, now_ms: int) -> object:
    return {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": now_ms}


def _refusal(msg: str, now_ms: int) -> RestRequestError:
    body = {"retCode": 10001, "retMsg": msg, "result": {}, "retExtInfo": {}, "time": now_ms}
    return RestRequestError(body)


def _instrument(symbol: str, tick: str) -> dict[str, object]:
    base, _, quote = symbol.partition("/")
    return {
        "symbol": base + quote,
        "baseCoin": base,
        "quoteCoin": quote,
        "innovation": "0",
        "status": "Trading",
        "marginTrading": "none",
        "lotSizeFilter": {
            "basePrecision": "0.000001",
            "quotePrecision": "0.00000001",
            "minOrderQty": "0.00001",
            "maxOrderQty": "9000",
            "minOrderAmt": "1",
            "maxOrderAmt": "1000000",
        },
        "priceFilter": {"tickSize": tick},
    }
