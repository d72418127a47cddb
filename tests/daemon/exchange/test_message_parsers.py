"""Parsers read the recorded messages of exchanges; malformed ones are counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ccxt.pro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.exchange.ccxt_tap import tapped_class
from daemon.exchange.message_parsers import (
    MESSAGE_PARSERS,
    Channel,
    MarketRefused,
    MessageParser,
    RawCandle,
    parse_binance,
    parse_bybit,
    parse_kraken,
    parse_okx,
)
from model.core.errors import BadCandle
from tests.support.ccxt_connection import FakeConnection
from tests.support.recording_listener import RecordingListener

VALUES = ("1", "3", "0.5", "2", "9")
MINUTE = Channel("1m", {})
KLINE = {"s": "BTCUSDT", "i": "1m", "t": 60_000, "x": True} | dict(
    zip("ohlcv", VALUES, strict=True)
)
OKX_ARG = {"channel": "candle1m", "instId": "BTC-USDT"}
OKX_ROW = ["60000", *VALUES, "10", "11", "1"]
BYBIT_ROW = {"start": 60_000, "interval": "1", "confirm": True, "turnover": "7"} | dict(
    zip(("open", "high", "low", "close", "volume"), VALUES, strict=True)
)
BYBIT = Channel("1", {})
KRAKEN_ROW = {
    "symbol": "BTC/USD",
    "interval": 1,
    "interval_begin": "1970-01-01T00:01:00.000000000Z",
} | dict(zip(("open", "high", "low", "close", "volume"), VALUES, strict=True))
CANDLE = RawCandle("BTCUSDT", 60_000, VALUES, closed=True)


def received(shared_dir: Path, file: str) -> list[Any]:
    text = (shared_dir / "fixtures" / "ws" / file).read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    return [line["data"] for line in lines if line.get("dir") == "recv"]


def read_all(
    read: Callable[[Any, Channel], Iterable[RawCandle] | None],
    messages: Iterable[Any],
    channel: Channel,
) -> list[RawCandle]:
    return [candle for message in messages for candle in read(message, channel) or ()]


def event(**changes: Any) -> dict[str, Any]:
    return {"e": "kline", "s": "BTCUSDT", "k": KLINE | changes}


def okx(*rows: object, **more: object) -> dict[str, Any]:
    return {"arg": OKX_ARG, "data": list(rows), **more}


def bybit(*rows: object) -> dict[str, Any]:
    return {"topic": "kline.1.BTCUSDT", "type": "snapshot", "ts": 1, "data": list(rows)}


def kraken(kind: str, *rows: object) -> dict[str, Any]:
    return {"channel": "ohlc", "type": kind, "data": list(rows)}


def test_binance_raw_and_combined_messages_are_read() -> None:
    assert parse_binance(event(), MINUTE) == (CANDLE,)
    assert parse_binance({"stream": "btcusdt@kline_1m", "data": event()}, MINUTE) == (CANDLE,)
    assert parse_binance(event(x=False), MINUTE) == (CANDLE._replace(closed=False),)


@pytest.mark.parametrize("flag", [None, 1, "true", "false", []])
def test_only_a_true_flag_closes_a_candle(flag: object) -> None:
    open_candle = CANDLE._replace(closed=False)
    assert parse_binance(event(x=flag), MINUTE) == (open_candle,)
    assert read_all(parse_bybit, [bybit(BYBIT_ROW | {"confirm": flag})], BYBIT) == [open_candle]


@pytest.mark.parametrize("flag", ["0", "", 1, True, None, "1.0"])
def test_only_okxs_own_one_closes_a_candle(flag: object) -> None:
    (candle,) = read_all(parse_okx, [okx([*OKX_ROW[:8], flag])], MINUTE)
    assert candle.closed is False


def test_a_volume_in_the_place_of_okxs_flag_closes_nothing() -> None:
    with pytest.raises(IndexError):
        read_all(parse_okx, [okx([*OKX_ROW[:7], "1"])], MINUTE)


@pytest.mark.parametrize(
    "message",
    [
        {"result": None, "id": 1},
        {},
        {"data": [1]},
        {"data": None},
        {"data": {"k": None}},
        {"event": "subscribe", "arg": OKX_ARG, "connId": "a"},
        {"event": "error", "code": "60018", "arg": OKX_ARG},
        {"arg": {"channel": "tickers", "instId": "BTC-USDT"}, "data": []},
        {"success": True, "ret_msg": "pong", "op": "ping"},
        {"topic": "tickers.BTCUSDT", "data": {}},
        {"channel": "heartbeat"},
        {"channel": "status", "type": "update", "data": [{}]},
        {"method": "pong", "req_id": 7},
        {"method": "subscribe", "success": True, "result": {"channel": "ohlc"}},
    ],
)
def test_other_messages_are_left_to_ccxt(message: dict[str, Any]) -> None:
    for parser in MESSAGE_PARSERS.values():
        assert parser.parse(message, MINUTE) is None


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (parse_binance, event(i="5m")),
        (parse_okx, okx(OKX_ROW) | {"arg": OKX_ARG | {"channel": "candle5m"}}),
        (parse_bybit, bybit(BYBIT_ROW) | {"topic": "kline.5.BTCUSDT"}),
        (parse_bybit, bybit(BYBIT_ROW | {"interval": "5"})),
        (parse_kraken, kraken("update", KRAKEN_ROW | {"interval": 5})),
    ],
)
def test_another_timeframe_is_refused(
    read: Callable[[Any, Channel], Iterable[RawCandle] | None], message: dict[str, Any]
) -> None:
    with pytest.raises(BadCandle, match="instead of 1"):
        read_all(read, [message], BYBIT if read in (parse_bybit, parse_kraken) else MINUTE)


def test_the_okx_recording(shared_dir: Path) -> None:
    spot, swap = Channel("1m", {}), Channel("1m", {}, contract=True)
    messages = received(shared_dir, "okx_watchOHLCV.jsonl")
    on_spot = [m for m in messages if m["arg"]["instId"] == "BTC-USDT"]
    assert read_all(parse_okx, on_spot, spot) == [
        RawCandle(
            "BTC-USDT",
            1786538760000,
            ("64040.2", "64040.2", "64025.7", close, volume),
            closed=False,
        )
        for close, volume in (("64033.5", "2.16787395"), ("64038.2", "2.25101046"))
    ]
    # The swap's first candle came before the acknowledgement; its volume is in base currency.
    on_swap = [m for m in messages if m not in on_spot]
    assert "data" in on_swap[0]
    assert [c.values[4] for c in read_all(parse_okx, on_swap, swap)] == ["18.0361", "18.0374"]


def test_the_okcoin_recording_closes_each_market_once(shared_dir: Path) -> None:
    candles = read_all(parse_okx, received(shared_dir, "okcoin_candles.jsonl"), MINUTE)
    closed = [candle for candle in candles if candle.closed]
    assert len(candles) == 12
    assert sorted(c.market_id for c in closed) == ["BTC-USD", "ETH-USD", "USDC-USDT", "USDT-USD"]
    assert {candle.open_ms for candle in closed} == {1685221620000}


def test_the_bybit_recording(shared_dir: Path) -> None:
    candles = read_all(parse_bybit, received(shared_dir, "bybit_watchOHLCV.jsonl"), BYBIT)
    values = ("64104.5", "64104.5", "64096.4", "64096.4")
    assert candles == [
        RawCandle("BTCUSDT", 1786538700000, (*values, volume), closed=False)
        for volume in ("1.01673", "1.017302")
    ]


def test_bybits_closed_and_next_candle_in_one_message() -> None:
    following = BYBIT_ROW | {"start": 120_000, "confirm": False}
    closed, forming = read_all(parse_bybit, [bybit(BYBIT_ROW, following)], BYBIT)
    assert (closed, forming) == (CANDLE, CANDLE._replace(open_ms=120_000, closed=False))


def test_inverse_contracts_of_binance_count_base_currency() -> None:
    (candle,) = parse_binance(event(v="900", q="0.7"), MINUTE._replace(inverse=True)) or ()
    assert candle == CANDLE._replace(values=(*VALUES[:4], "0.7"))


def test_inverse_contracts_of_bybit_count_base_currency() -> None:
    (candle,) = read_all(parse_bybit, [bybit(BYBIT_ROW)], BYBIT._replace(inverse=True))
    assert candle.values == (*VALUES[:4], "7")


def test_the_kraken_recording_a_snapshot_only_primes(shared_dir: Path) -> None:
    messages = received(shared_dir, "kraken_watchOHLCV.jsonl")
    snapshot = next(m for m in messages if m.get("type") == "snapshot")
    assert len(snapshot["data"]) == 2
    assert read_all(parse_kraken, messages, BYBIT) == [
        RawCandle("BTC/USD", 1786562880000, (63301.6, 63301.6, 63297.7, *rest), closed)
        for *rest, closed in ((63297.8, 0.04006479, False), (63297.7, 0.04121249, None))
    ]


def test_the_newest_candle_of_a_snapshot_counts_at_any_position() -> None:
    older = KRAKEN_ROW | {"interval_begin": "1970-01-01T00:00:00Z"}
    other = KRAKEN_ROW | {"symbol": "ETH/USD"}
    candles = read_all(parse_kraken, [kraken("snapshot", KRAKEN_ROW, older, other)], BYBIT)
    assert {(c.market_id, c.open_ms, c.closed) for c in candles} == {
        ("BTC/USD", 60_000, False),
        ("ETH/USD", 60_000, False),
    }


@pytest.mark.parametrize("begin", ["1970-01-01T00:01:00", "yesterday", 60_000, None])
def test_a_time_that_could_mean_several_is_refused(begin: object) -> None:
    with pytest.raises((BadCandle, ValueError, TypeError)):
        read_all(parse_kraken, [kraken("update", KRAKEN_ROW | {"interval_begin": begin})], BYBIT)


def test_a_refused_kraken_subscription_is_reported() -> None:
    message = {"method": "subscribe", "success": False, "error": "Currency pair not supported"}
    with pytest.raises(MarketRefused, match="Currency pair not supported"):
        parse_kraken(message, BYBIT)


@pytest.mark.parametrize("timeframe", ["6h", "12h", "1d", "1w"])
def test_okxs_long_candles_begin_with_the_utc_day(timeframe: str) -> None:
    exchange = tapped_class(ccxt.pro.okx, RecordingListener())()
    market = {"id": "BTC-USDT", "symbol": "BTC/USDT", "base": "BTC", "quote": "USDT"}
    exchange.set_markets([exchange.safe_market_structure(market | {"type": "spot", "spot": True})])
    exchange.watch_candles(["BTC/USDT"], timeframe)
    assert exchange.candle_channel.interval.endswith("utc")
    assert exchange.timeframes[timeframe] == exchange.candle_channel.interval


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
GOOD = {
    "binance": event(),
    "okx": okx(OKX_ROW),
    "bybit": bybit(BYBIT_ROW),
    "kraken": kraken("update", KRAKEN_ROW),
}
SNAPSHOT = kraken("snapshot", KRAKEN_ROW)
ASIDE = [
    {"event": "subscribe", "arg": OKX_ARG},
    {"event": "error", "code": "60018", "msg": "no"},
    {"success": True, "ret_msg": "subscribe", "op": "subscribe", "req_id": "1"},
    {"method": "subscribe", "success": False, "error": "no", "req_id": 1},
]


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a nest of dicts and lists."""
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    return [at, *(path for key, item in inner for path in paths(item, (*at, key)))]


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], by)
    return copy


@pytest.fixture(scope="module")
def exchanges() -> dict[str, tuple[Any, RecordingListener]]:
    """A tapped instance of every kind; making one takes long, so they serve all examples."""
    made = {}
    for name in GOOD:
        listener = RecordingListener()
        exchange = tapped_class(getattr(ccxt.pro, name), listener)()
        interval = "1" if name in ("bybit", "kraken") else "1m"
        names = ("BTCUSDT", "BTC-USDT", "BTC/USD")
        exchange.candle_channel = Channel(interval, dict.fromkeys(names, "BTC/USDT"))
        made[name] = exchange, listener
    return made


@pytest.mark.parametrize("name", GOOD)
async def test_a_valid_message_is_passed_on(
    exchanges: dict[str, tuple[Any, RecordingListener]], name: str
) -> None:
    exchange, listener = exchanges[name]
    updates, errors = len(listener.updates), len(listener.errors)
    exchange.handle_message(FakeConnection(), GOOD[name])
    assert (len(listener.updates), len(listener.errors)) == (updates + 1, errors)


@pytest.mark.parametrize("name", GOOD)
@given(data=st.data())
def test_no_value_anywhere_in_a_message_raises(
    exchanges: dict[str, tuple[Any, RecordingListener]], name: str, data: st.DataObject
) -> None:
    exchange, _ = exchanges[name]
    message = data.draw(st.sampled_from([GOOD[name], SNAPSHOT, *ASIDE]))
    path = data.draw(st.sampled_from(paths(message)))
    exchange.handle_message(FakeConnection(), replaced(message, path, data.draw(JSON)))


@pytest.mark.parametrize("name", GOOD)
@given(data=st.data())
def test_a_candle_that_lacks_a_field_is_passed_on_or_counted(
    exchanges: dict[str, tuple[Any, RecordingListener]], name: str, data: st.DataObject
) -> None:
    exchange, listener = exchanges[name]
    rows = [path for path in paths(GOOD[name]) if path[-1:] in (("k",), (0,))]
    path = data.draw(st.sampled_from(rows))
    before = len(listener.updates) + len(listener.errors)
    changed = data.draw(JSON.filter(lambda value: value is not None))
    exchange.handle_message(FakeConnection(), replaced(GOOD[name], path, changed))
    assert len(listener.updates) + len(listener.errors) == before + 1


def test_every_parser_belongs_to_a_watchable_exchange() -> None:
    for name, parser in MESSAGE_PARSERS.items():
        assert isinstance(parser, MessageParser)
        assert getattr(ccxt.pro, name)().has["watchOHLCV"]
