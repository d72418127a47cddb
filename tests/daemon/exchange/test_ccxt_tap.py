"""The tap reads candles from messages, and no message makes it raise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ccxt.pro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.candles.closing import ClosingRule
from daemon.exchange import ccxt_tap
from daemon.exchange.ccxt_tap import tapped_class
from daemon.exchange.message_parsers import Channel
from daemon.runtime.clock import SystemClock
from model.core.candle import Candle, Timeframe
from tests.replay.recorded_messages import wire
from tests.replay.replay_harness import make_feed, running
from tests.support.ccxt_connection import FakeConnection
from tests.support.recording_listener import RecordingListener
from tests.support.waiting import until

MINUTE = Timeframe.parse("1m")
KLINE = {"s": "BTCUSDT", "i": "1m", "t": 60_000, "o": "1", "h": "3", "l": "0.5", "c": "2", "v": "9"}
NAMES_OF_KRAKEN = ("open", "high", "low", "close", "volume")


def event(**changes: Any) -> dict[str, Any]:
    return {"e": "kline", "s": "BTCUSDT", "k": KLINE | {"x": True} | changes}


def tapped_binance(listener: RecordingListener) -> Any:
    exchange = tapped_class(ccxt.pro.binance, listener)()
    exchange.candle_channel = Channel("1m", {"BTCUSDT": "BTC/USDT"})
    return exchange


@pytest.fixture(scope="module")
def listener() -> RecordingListener:
    return RecordingListener()


@pytest.fixture(scope="module")
def binance(listener: RecordingListener) -> Any:
    # Making an instance takes long, so that one has to do for all examples.
    return tapped_binance(listener)


@pytest.mark.parametrize("field", ["s", "i", "t", "o", "h", "l", "c", "v", "x"])
def test_a_message_without_a_field_is_counted(
    binance: Any, listener: RecordingListener, field: str
) -> None:
    message = event()
    del message["k"][field]
    updates, errors = len(listener.updates), len(listener.errors)
    binance.handle_message(FakeConnection(), message)
    assert (len(listener.updates), len(listener.errors)) == (updates, errors + 1)


def test_a_market_that_was_not_subscribed_is_counted(
    binance: Any, listener: RecordingListener
) -> None:
    errors = len(listener.errors)
    binance.handle_message(FakeConnection(), event(s="ETHUSDT"))
    assert len(listener.errors) == errors + 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
NAMES = st.sampled_from(["s", "i", "t", "o", "h", "l", "c", "v", "x"])


@given(message=JSON)
def test_no_json_value_raises(binance: Any, message: object) -> None:
    binance.handle_message(FakeConnection(), message)


@given(
    key=st.sampled_from(["data", "stream", "error", "id", "e", "result", "status", "event"]),
    value=JSON,
    other=JSON,
)
def test_no_value_of_a_field_that_ccxt_reads_raises(
    binance: Any, key: str, value: object, other: object
) -> None:
    binance.handle_message(FakeConnection(), {"e": other, key: value})


@given(data=st.dictionaries(NAMES, JSON) | JSON)
def test_any_kline_is_passed_on_or_counted(
    binance: Any, listener: RecordingListener, data: object
) -> None:
    before = len(listener.updates) + len(listener.errors)
    kline = KLINE | {"x": True} | data if isinstance(data, dict) else data
    binance.handle_message(FakeConnection(), {"e": "kline", "k": kline})
    counted = len(listener.updates) + len(listener.errors) - before
    assert counted == 1 or kline is None


FRAMES: list[str | bytes] = [
    "hello",
    "",
    "{",
    "[1,",
    '{"k": {}}',
    '{"k": 7}',
    "[]",
    "null",
    "1e999",
    "{" * 2_000,
    "[" * 100_000,
    '{"e":"kline","k":{"s":["BTCUSDT"]}}',
    '{"error":{"code":-1,"msg":"no"},"id":999}',
    b"",
    b"\x00\x01\x02",
    b"\xff\xfe{",
    b'{"k":',
]


@pytest.mark.parametrize("gunzip", [False, True])
async def test_after_garbage_on_a_real_socket_candles_still_arrive(
    monkeypatch: pytest.MonkeyPatch, *, gunzip: bool
) -> None:
    described = ccxt.pro.binance.describe

    def compressed(exchange: Any) -> Any:
        """As exchanges do that pack every binary frame."""
        return exchange.deep_extend(described(exchange), {"streaming": {"gunzip": gunzip}})

    monkeypatch.setattr(ccxt.pro.binance, "describe", compressed)
    clock = SystemClock()
    open_ms = MINUTE.floor(clock.wall_ms()) - MINUTE.ms
    async with wire(spot=["BTC/USDT"]) as exchange:
        harness = make_feed((exchange.rest_url, exchange.ws_url), ["BTC/USDT"], clock)
        async with running(harness):
            await exchange.wait_subscribed(1)
            for number, frame in enumerate(FRAMES):
                exchange.send(frame)
                exchange.send(json.dumps(event(t=open_ms - number * MINUTE.ms)))
            await until(lambda: len(harness.closed) == len(FRAMES))
            assert harness.count("feed_reconnects") == 0
        assert harness.count("feed_refused") >= 5


@pytest.fixture
def no_parsers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every exchange is parsed by ccxt, as unknown ones are."""
    monkeypatch.setattr(ccxt_tap, "MESSAGE_PARSERS", {})


def generic(name: str, symbol: str, market_id: str) -> tuple[Any, RecordingListener]:
    """An exchange whose messages ccxt parses, with one market."""
    listener = RecordingListener()
    exchange = tapped_class(getattr(ccxt.pro, name), listener)()
    base, _, quote = symbol.partition("/")
    market = {"id": market_id, "symbol": symbol, "base": base, "quote": quote, "type": "spot"}
    exchange.set_markets([exchange.safe_market_structure(market | {"spot": True})])
    exchange.watch_candles([symbol], "1m")
    return exchange, listener


def received(shared_dir: Path, file: str) -> list[Any]:
    text = (shared_dir / "fixtures" / "ws" / file).read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    return [line["data"] for line in lines if line.get("dir") == "recv"]


def closed_of(listener: RecordingListener) -> list[Candle]:
    """The final candles for a listener connected since the candle before the first."""
    rule = ClosingRule(MINUTE, 1_000)
    first: list[Any] = list(listener.updates[:1])
    earlier = [(s, at - MINUTE.ms, values, closed) for s, at, values, closed in first]
    finals = [
        rule.on_update(symbol, open_ms, values, closed=closed, now_ms=1_800_000_000_000, now_s=0.0)
        for symbol, open_ms, values, closed in earlier + listener.updates
    ]
    return [final for final in finals if final is not None]


@pytest.mark.usefixtures("no_parsers")
async def test_okx_through_ccxts_own_parser(shared_dir: Path) -> None:
    exchange, listener = generic("okx", "BTC/USDT", "BTC-USDT")
    for message in received(shared_dir, "okx_watchOHLCV.jsonl"):
        exchange.handle_message(FakeConnection(), message)
    assert listener.updates == [
        ("BTC/USDT", 1786538760000, (64040.2, 64040.2, 64025.7, 64033.5, 2.16787395), None),
        ("BTC/USDT", 1786538760000, (64040.2, 64040.2, 64025.7, 64038.2, 2.25101046), None),
    ]
    # The recording's swap is not among the markets.
    assert len(listener.errors) == 2
    assert closed_of(listener) == []


@pytest.mark.usefixtures("no_parsers")
async def test_okx_format_closes_each_recorded_candle_by_its_successor(shared_dir: Path) -> None:
    exchange, listener = generic("okx", "BTC/USD", "BTC-USD")
    messages = received(shared_dir, "okcoin_candles.jsonl")
    candles = [
        row
        for message in messages
        if message.get("arg") == {"channel": "candle1m", "instId": "BTC-USD"}
        for row in message.get("data", [])
    ]
    for message in messages:
        exchange.handle_message(FakeConnection(), message)
    confirmed = [row for row in candles if row[-1] == "1"]
    assert len(confirmed) == 1
    assert [(c.open_ms, c.final_by, list(c.ohlcv)) for c in closed_of(listener)] == [
        (int(row[0]), "successor", [float(value) for value in row[1:6]]) for row in confirmed
    ]


@pytest.mark.usefixtures("no_parsers")
async def test_kraken_through_ccxts_own_parser(shared_dir: Path) -> None:
    exchange, listener = generic("kraken", "BTC/USD", "XXBTZUSD")
    messages = received(shared_dir, "kraken_watchOHLCV.jsonl")
    exchange.options["symbolsByIds"] = {"BTC/USD": "BTC/USD"}
    rows = [
        (exchange.parse8601(row["interval_begin"]), *(row[key] for key in NAMES_OF_KRAKEN))
        for message in messages
        if message.get("channel") == "ohlc"
        for row in message["data"]
    ]
    for message in messages:
        exchange.handle_message(FakeConnection(), message)
    # The first message is a snapshot: what it holds besides its newest candle is past.
    assert [(open_ms, *values) for _, open_ms, values, _ in listener.updates] == rows[1:]
    assert closed_of(listener) == []


@pytest.mark.usefixtures("no_parsers")
async def test_bybit_through_ccxts_own_parser(shared_dir: Path) -> None:
    exchange, listener = generic("bybit", "BTC/USDT", "BTCUSDT")
    for message in received(shared_dir, "bybit_watchOHLCV.jsonl"):
        exchange.handle_message(FakeConnection(), message)
    assert [update[:2] for update in listener.updates] == [("BTC/USDT", 1786538700000)] * 2
    assert listener.updates[-1][2] == (64104.5, 64104.5, 64096.4, 64096.4, 1.017302)


@pytest.mark.usefixtures("no_parsers")
@pytest.mark.parametrize("rows", [[[]], [["x"]], [None], [[None, None]], ["text"], 7, {"a": 1}])
async def test_messages_that_ccxts_parser_cannot_read_raise_nothing(rows: object) -> None:
    exchange, listener = generic("okx", "BTC/USDT", "BTC-USDT")
    arg = {"channel": "candle1m", "instId": "BTC-USDT"}
    exchange.handle_message(FakeConnection(), {"arg": arg, "data": rows})
    good = ["1786538760000", "4", "4", "2", "3", "1", "1", "1", "0"]
    exchange.handle_message(FakeConnection(), {"arg": arg, "data": [good]})
    assert listener.updates[-1] == ("BTC/USDT", 1786538760000, (4.0, 4.0, 2.0, 3.0, 1.0), None)
