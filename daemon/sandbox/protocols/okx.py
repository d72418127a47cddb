"""Implement OKX's v5 spot protocol.

Candles have a closed flag, and pings are plain text.
"""

from __future__ import annotations

from collections.abc import Mapping
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

_DEFAULT_LIMIT: Final = 100
_MAX_LIMIT: Final = 300
_RECENT_ROWS: Final = 1_440
"""Length of ``/market/candles``; older candles are at ``/market/history-candles``."""


class Okx(ExchangeProtocol):
    """OKX spot."""

    name = "okx"
    intervals: ClassVar[Mapping[str, str]] = parse_intervals(
        "1m=1m 3m=3m 5m=5m 15m=15m 30m=30m 1h=1H 2h=2H 4h=4H 6h=6Hutc 12h=12Hutc 1d=1Dutc 1w=1Wutc"
    )

    def market_id(self, symbol: str) -> str:
        """E.g. ``BTC-USDT``."""
        return symbol.replace("/", "-")

    def topic(self, market_id: str) -> str:
        """Channel and instrument, e.g. ``candle1m:BTC-USDT``."""
        return f"candle{self.interval}:{market_id}"

    def session(self, target: str) -> Session | None:
        """A session for a client of the address that has candles."""
        if target != "/ws/v5/business":
            return None
        return OkxSession(self, f"{next(self.session_numbers):08x}")

    def candle_messages(self, symbol: str, update: CandleUpdate) -> list[bytes]:
        """One message per state."""
        arg = {"channel": f"candle{self.interval}", "instId": self.market_id(symbol)}
        return [
            orjson.dumps({"arg": arg, "data": [_row(kline, closed=update.closed)]})
            for kline in update.states
        ]

    @property
    def routes(self) -> Mapping[str, Route]:
        """The handler of each public address."""
        return {
            "/api/v5/public/time": lambda _query, now_ms: _body([{"ts": str(now_ms)}]),
            "/api/v5/public/instruments": self._instruments,
            "/api/v5/market/candles": self._recent,
            "/api/v5/market/history-candles": self._past,
        }

    def banned(self, status: int, until_ms: int) -> object:
        """The body of an error; it does not contain the end of the ban."""
        del status, until_ms
        return {"code": "50011", "data": [], "msg": "Too Many Requests"}

    def _instruments(self, query: Mapping[str, str], _now_ms: int) -> object:
        kind = query.get("instType")
        empty = _refusal("50014", "Parameter instType can not be empty.")
        if not kind:
            raise empty
        tick = 10.0**-self.market.playback.recording.decimals
        listed = self.market.listed if kind == "SPOT" else ()
        return _body([_instrument(self.market_id(symbol), decimals(tick)) for symbol in listed])

    def _recent(self, query: Mapping[str, str], now_ms: int) -> object:
        frame = self.market.playback.timeframe
        earliest_ms = frame.floor(now_ms) - (_RECENT_ROWS - 1) * frame.ms
        return _body(
            [
                _row(kline, closed=kline.close_ms < now_ms)
                for kline in self._page(query, now_ms)
                if kline.open_ms >= earliest_ms
            ]
        )

    def _past(self, query: Mapping[str, str], now_ms: int) -> object:
        page = self._page(query, now_ms)
        return _body([_row(kline, closed=True) for kline in page if kline.close_ms < now_ms])

    def _page(self, query: Mapping[str, str], now_ms: int) -> list[Kline]:
        """Candles newest first; ``before`` and ``after`` are exclusive bounds of their opening."""
        unknown = _refusal("51001", "Instrument ID doesn't exist.")
        wrong = _refusal("51000", "Parameter error")
        symbol = self.symbol_of_id.get(query.get("instId", ""))
        if symbol is None:
            raise unknown
        if query.get("bar", "1m") != self.interval:
            raise wrong
        before, after, limit = (
            optional_int(query, name, wrong) for name in ("before", "after", "limit")
        )
        rows = min(_DEFAULT_LIMIT if limit is None else limit, _MAX_LIMIT)
        end_ms = None if after is None else after - 1
        page = self.market.klines(symbol, None, end_ms, rows, now_ms)
        return [kline for kline in reversed(page) if before is None or kline.open_ms > before]


class OkxSession(Session):
    """One client of the candle channels."""

    def __init__(self, protocol: Okx, conn_id: str) -> None:
        """Start without a subscription; ``conn_id`` is part of every response."""
        super().__init__()
        self._protocol = protocol
        self._conn_id = conn_id

    def reply(self, text: str | bytes, now_ms: int) -> list[bytes]:
        """Execute one request and return the responses, one or more per channel."""
        if text in ("ping", b"ping"):
            return [b"pong"]
        request = json_object(text) or {}
        op, args = request.get("op"), request.get("args")
        if op not in ("subscribe", "unsubscribe") or not isinstance(args, list) or not args:
            return [self._illegal(text)]
        return [raw for arg in args for raw in self._execute(str(op), arg, text, now_ms)]

    def _execute(self, op: str, arg: object, text: str | bytes, now_ms: int) -> list[bytes]:
        if not isinstance(arg, dict) or not {"channel", "instId"} <= arg.keys():
            return [self._illegal(text)]
        topic = f"{arg['channel']}:{arg['instId']}"
        symbol = self._protocol.subscribable(topic)
        if symbol is None:
            msg = f"Wrong URL or channel:{arg['channel']},instId:{arg['instId']} doesn't exist."
            return [self._error("60018", msg)]
        done = orjson.dumps({"event": op, "arg": arg, "connId": self._conn_id})
        if op == "unsubscribe":
            self.topics.pop(topic, None)
            return [done]
        self.topics[topic] = None
        state = CandleUpdate(
            (self._protocol.forming_kline(symbol, now_ms),), closed=False, next_kline=None, now_ms=0
        )
        # OKX sends them in either order; clients must accept the candle first.
        return [*self._protocol.candle_messages(symbol, state), done]

    def _illegal(self, text: str | bytes) -> bytes:
        shown = text.decode(errors="replace") if isinstance(text, bytes) else text
        return self._error("60012", f"Illegal request: {shown}")

    def _error(self, code: str, msg: str) -> bytes:
        return orjson.dumps({"event": "error", "code": code, "msg": msg, "connId": self._conn_id})


def _row(kline: Kline, *, closed: bool) -> list[str]:
    quote = decimals(kline.quote_volume)
    row = [str(kline.open_ms), *map(decimals, kline.ohlcv), quote, quote]
    return [*row, "1" if closed else "0"]


def _body(data: list[object] | list[list[str]] | list[dict[str, str]]) -> object:
    return {"code": "0", "msg": "", "data": data}


def _refusal(code: str, msg: str) -> RestRequestError:
    return RestRequestError({"code": code, "data": [], "msg": msg})


def _instrument(market_id: str, tick: str) -> dict[str, str]:
    base, _, quote = market_id.partition("-")
    return {
        "instType": "SPOT",
        "instId": market_id,
        "baseCcy": base,
        "quoteCcy": quote,
        "settleCcy": "",
        "state": "live",
        "tickSz": tick,
        "lotSz": "0.00000001",
        "minSz": "0.00001",
        "lever": "10",
        "listTime": "1548133413000",
        "uly": "",
        "instFamily": "",
        "ctType": "",
        "ctVal": "",
        "ctValCcy": "",
        "expTime": "",
        "optType": "",
        "stk": "",
        "alias": "",
    }
