"""Fuzz websocket frames of each message parser and of one exchange that ccxt parses itself.

Frames pass through the real ccxt class with the tap in it, as ccxt decodes them. No exception may
escape, and a candle reported as final must be possible.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import ccxt.pro

from daemon.candles.closing import ClosingRule
from daemon.exchange.ccxt_tap import tapped_class
from daemon.exchange.message_parsers import MESSAGE_PARSERS
from model.core.candle import Timeframe, check_ohlcv
from model.core.errors import BadCandle
from tests.fuzz.target import Target, as_json
from tests.support.ccxt_connection import FakeConnection

MINUTE = Timeframe.parse("1m")
NOW_MS = 1_786_538_820_500
OPEN_MS = 1_786_538_760_000
ROW = [str(OPEN_MS), "4", "4.5", "2", "3", "1", "1", "1", "0"]
KLINE = {"s": "AB", "i": "1m", "t": OPEN_MS, "o": "4", "h": "5", "l": "2", "c": "3", "v": "1"}
BAR = {"open": "4", "high": "5", "low": "2", "close": "3", "volume": "1", "turnover": "3"}

SEEDS = {
    "binance": as_json(
        {"e": "kline", "E": NOW_MS, "s": "AB", "k": KLINE | {"x": True}},
        {"stream": "ab@kline_1m", "data": {"e": "kline", "k": KLINE | {"x": False}}},
        {"result": None, "id": 1},
        {"error": {"code": 4, "msg": "Too many subscriptions"}, "id": 1},
    ),
    "okx": as_json(
        {"arg": {"channel": "candle1m", "instId": "A-B"}, "data": [ROW, [*ROW[:8], "1"]]},
        {"event": "subscribe", "arg": {"channel": "candle1m", "instId": "A-B"}, "connId": "x"},
        {"event": "error", "code": "60018", "msg": "channel:candle1m,instId:A-B doesn't exist"},
        "pong",
    ),
    "bybit": as_json(
        {"topic": "kline.1.AB", "type": "snapshot", "ts": NOW_MS,
         "data": [BAR | {"start": OPEN_MS, "interval": "1", "confirm": True},
                  BAR | {"start": OPEN_MS + 60_000, "interval": "1", "confirm": False}]},
        {"success": False, "ret_msg": "Invalid symbol :[kline.1.AB]", "req_id": "1", "op": "sub"},
        {"success": True, "ret_msg": "pong", "conn_id": "x", "req_id": "2", "op": "ping"},
    ),
    "kraken": as_json(
        {"channel": "ohlc", "type": "update", "timestamp": "2026-08-12T12:46:00.5Z",
         "data": [BAR | {"symbol": "A/B", "interval": 1, "trades": 1,
                         "interval_begin": "2026-08-12T12:46:00.000000000Z"}]},
        {"channel": "ohlc", "type": "snapshot",
         "data": [BAR | {"symbol": "A/B", "interval": 1,
                         "interval_begin": "2026-08-12T12:45:00Z"}]},
        {"method": "subscribe", "success": False, "error": "Currency pair not supported",
         "symbol": "A/B"},
        {"channel": "heartbeat"},
        {"channel": "status", "type": "update", "data": [{"version": "2.0.10"}]},
    ),
}  # fmt: skip
MARKET_IDS = {"binance": "AB", "okx": "A-B", "bybit": "AB", "kraken": "A/B"}


class CandleSink:
    """Does with candles what a connection does."""

    def __init__(self) -> None:
        self.rule = ClosingRule(MINUTE, 1_000)

    def on_raw(
        self, symbol: str, open_ms: object, values: tuple[object, ...], *, closed: bool | None
    ) -> None:
        try:
            final = self.rule.on_update(
                symbol, open_ms, values, closed=closed, now_ms=NOW_MS, now_s=0.0
            )
        except BadCandle:
            return
        except Exception as error:
            # The tap would take it for the exchange's fault.
            raise SystemError(error) from error
        if final is not None:
            assert final.symbol == symbol == "A/B"
            assert check_ohlcv(final.ohlcv) == final.ohlcv
            assert MINUTE.on_grid(final.open_ms)
            assert final.close_ms <= NOW_MS + 1_000

    def on_unusable_message(self, error: Exception) -> None:
        """Counted."""
        if isinstance(error, SystemError):
            raise error

    async def wait_turn(self, cost: float | None = None) -> None:
        """Ignore the request."""


def frames(name: str, *, direct: bool = True) -> Callable[[bytes], None]:
    """Parse frames of exchange ``name``, by its reader or by ccxt's own parser."""
    sink = CandleSink()
    made: list[tuple[Any, Any]] = []

    def make() -> None:
        with patch("daemon.exchange.ccxt_tap.MESSAGE_PARSERS", MESSAGE_PARSERS if direct else {}):
            exchange = tapped_class(getattr(ccxt.pro, name), sink)()
        market = {"id": MARKET_IDS[name], "symbol": "A/B", "base": "A", "quote": "B"}
        spot = {"type": "spot", "spot": True, "active": True}
        exchange.set_markets([exchange.safe_market_structure(market | spot)])
        exchange.options["symbolsByIds"] = {"A/B": "A/B"}
        exchange.spawn = _never
        exchange.watch_candles(["A/B"], "1m")
        made.append((exchange, FakeConnection()))

    def one_input(data: bytes) -> None:
        if not made:
            make()
        exchange, line = made[0]
        try:
            message = exchange.parse_json(data.decode())
        except UnicodeDecodeError:
            return
        sink.rule = ClosingRule(MINUTE, 1_000)
        exchange.handle_message(line, data.decode() if message is None else message)

    return one_input


def _never(method: Callable[..., Any], *args: object) -> None:
    """Subscriptions and books that a message asks ccxt to load: there is no network."""


TARGETS = {name: Target(frames(name), seeds) for name, seeds in SEEDS.items()} | {
    "ccxt": Target(frames("okx", direct=False), SEEDS["okx"])
}
