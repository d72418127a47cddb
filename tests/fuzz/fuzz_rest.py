"""Fuzz REST answers (candles and the time) through the real ccxt class."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import ccxt.pro

from daemon.exchange.exchange_clock import ExchangeClock, Reading
from daemon.exchange.rate_limits import ban_duration_s
from daemon.exchange.rest import RestClient
from daemon.exchange.source import MarketSource
from daemon.metrics.metrics import Metrics
from model.core.candle import Timeframe, check_ohlcv
from model.core.errors import ExchangeError
from tests.fuzz.target import Target, as_json
from tests.support.manual_clock import ManualClock

MINUTE = Timeframe.parse("1m")
NOW_MS = 1_786_538_820_500
T = MINUTE.floor(NOW_MS) - 3 * MINUTE.ms
BACK = 5
SEEDS = {
    "binance": as_json(
        [[T, "4", "5", "2", "3", "1", T + 59_999, "3", 1, "1", "3", "0"],
         [T + 60_000, "4", "5", "2", "3", "0", T + 119_999, "0", 0, "0", "0", "0"]],
        [],
        {"serverTime": NOW_MS},
        {"code": -1003, "msg": f"IP banned until {NOW_MS + 9_000}."},
    ),
    "okx": as_json(
        {"code": "0", "data": [[str(T), "4", "5", "2", "3", "1", "1", "1", "1"]], "msg": ""},
        {"code": "51001", "data": [], "msg": "Instrument ID doesn't exist."},
    ),
    "bybit": as_json(
        {"retCode": 0, "retMsg": "OK", "result": {"symbol": "AB", "category": "spot",
         "list": [[str(T), "4", "5", "2", "3", "1", "3"]]}, "time": NOW_MS},
        {"retCode": 10001, "retMsg": "params error", "result": {}},
    ),
    "kraken": as_json(
        {"error": [], "result": {"AB": [[T // 1_000, "4", "5", "2", "3", "3", "1", 1]],
                                 "last": T // 1_000}},
        {"error": ["EQuery:Unknown asset pair"]},
    ),
}  # fmt: skip
MARKET_IDS = {"binance": "AB", "okx": "A-B", "bybit": "AB", "kraken": "AB"}
HEADER = (b"", b"\0", b"9", b"nan", b"99999999999", b"Wed, 21 Oct 2026 07:28:00 GMT")


def answering(name: str) -> tuple[Any, list[bytes]]:
    """A ccxt class to which every request is answered with the bytes in the list."""
    body = [b""]

    class Answering(getattr(ccxt.pro, name)):  # type: ignore[misc]
        async def fetch(self, *_args: object, **_more: object) -> object:
            text = body[0].decode(errors="replace")
            answer = self.parse_json(text)
            self.handle_errors(200, "", "", "GET", {}, text, answer, {}, "")
            return text if answer is None else answer

        async def throttle(self, cost: object = None) -> None:
            """Send at once."""

    exchange = Answering({"enableRateLimit": False})
    market = {"id": MARKET_IDS[name], "symbol": "A/B", "base": "A", "quote": "B"}
    spot = {"type": "spot", "spot": True, "active": True}
    exchange.set_markets([exchange.safe_market_structure(market | spot)])
    return exchange, body


async def ask(rest: RestClient) -> None:
    """All that is asked of an exchange by REST."""
    candles = await rest.history("A/B", MINUTE.floor(NOW_MS) - BACK * MINUTE.ms)
    assert len(candles) <= BACK
    for candle in candles:
        assert check_ohlcv(candle.ohlcv) == candle.ohlcv
        assert candle.close_ms < NOW_MS
    assert all(a.close_ms == b.open_ms for a, b in pairwise(candles))
    await rest.last_trade("A/B")
    await rest.measure_time()


def answers(name: str) -> Callable[[bytes], None]:
    """Ask exchange ``name`` for candles and the time, and have it answer with the input."""
    made: list[Any] = []

    def one_input(data: bytes) -> None:
        if not made:
            made.extend((*answering(name), Metrics(), asyncio.new_event_loop()))
        exchange, body, metrics, loop = made
        body[0] = data
        clock = ExchangeClock(ManualClock(NOW_MS, 1_000.0, auto_advance=True))
        for _ in range(3):
            clock.add_reading(Reading(999.9, 1_000.0, NOW_MS))
        source = MarketSource(name, None, None, ("A/B",), MINUTE)
        rest = RestClient(source, clock, metrics, lambda error: None)  # noqa: ARG005
        rest.exchange = exchange
        with suppress(ExchangeError):
            loop.run_until_complete(ask(rest))

    return one_input


def ban(data: bytes) -> None:
    """A ban as an exchange announces it, in a header or in the body."""
    header, _, body = data.partition(b"\0")
    headers = {"Retry-After": header.decode(errors="replace")} if header else {}
    assert 1.0 <= ban_duration_s(headers, body.decode(errors="replace"), NOW_MS) <= 4 * 86_400.0


TARGETS = {f"{name}-rest": Target(answers(name), seeds) for name, seeds in SEEDS.items()} | {
    "ban": Target(ban, (*HEADER, b"\0banned until 1786538829500"))
}
