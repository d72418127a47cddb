"""Bybit's protocol: recorded messages, limits and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.exchange.message_parsers import Channel, parse_bybit
from daemon.sandbox.protocols.base import CandleUpdate, RestRequestError
from daemon.sandbox.protocols.bybit import Bybit
from tests.sandbox.recorded import ORIGIN_MS, form, market_of, messages
from tests.sandbox.scaled import MINUTE

NOW_MS = ORIGIN_MS + 2_000 * MINUTE.ms + 20_000
MARKET = market_of("BTC/USDT")


def ask(request: str | bytes) -> list[Any]:
    session = Bybit(MARKET).session("/v5/public/spot")
    assert session is not None
    return [json.loads(answer) for answer in session.reply(request, NOW_MS)]


def get(**query: object) -> Any:
    wanted = {"category": "spot", "symbol": "BTCUSDT", "interval": "1"} | query
    text = {key: str(value) for key, value in wanted.items()}
    return Bybit(MARKET).routes["/v5/market/kline"](text, NOW_MS)


def opens(**query: object) -> list[int]:
    return [int(row[0]) for row in get(**query)["result"]["list"]]


def test_requests_acknowledgements_and_candles_are_as_recorded(shared_dir: Path) -> None:
    (request,) = messages(shared_dir, "bybit_watchOHLCV", "send")
    done, *candles = messages(shared_dir, "bybit_watchOHLCV")
    our_candle, our_done = ask(json.dumps(request))
    assert {form(our_candle)} == {form(candle) for candle in candles}
    assert form(our_done) == form(done)
    assert our_done["req_id"] == "1"


def test_the_closed_candle_and_the_next_one_come_in_one_message() -> None:
    closed = MARKET.kline("BTC/USDT", ORIGIN_MS, 1.0, revised=False)
    following = MARKET.kline("BTC/USDT", ORIGIN_MS + MINUTE.ms, 0.01, revised=False)
    update = CandleUpdate((closed,), closed=True, next_kline=following, now_ms=NOW_MS)
    (raw,) = Bybit(MARKET).candle_messages("BTC/USDT", update)
    first, second = parse_bybit(json.loads(raw), Channel("1", {})) or ()
    assert (first.open_ms, first.closed) == (ORIGIN_MS, True)
    assert (second.open_ms, second.closed) == (ORIGIN_MS + MINUTE.ms, False)
    assert tuple(map(float, first.values)) == MARKET.playback.candle("BTC/USDT", ORIGIN_MS)


def test_a_ping_is_answered_under_its_number() -> None:
    (answer,) = ask('{"req_id":"7","op":"ping"}')
    assert (answer["ret_msg"], answer["req_id"], answer["success"]) == ("pong", "7", True)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"op": "subscribe", "args": ["kline.1.NOPE"]}, "Invalid symbol :[kline.1.NOPE]"),
        ({"op": "subscribe", "args": ["kline.5.BTCUSDT"]}, "Invalid symbol"),
        ({"op": "subscribe", "args": [["kline.1.BTCUSDT"]]}, "Invalid symbol"),
        ({"op": "subscribe", "args": ["kline.1.BTCUSDT"] * 11}, "args size >10"),
        ({"op": "subscribe", "args": "kline.1.BTCUSDT"}, "error:invalid op"),
        ({"op": "auth"}, "error:invalid op"),
        ([], "error:invalid op"),
    ],
)
def test_refusals_give_a_reason(request_: object, says: str) -> None:
    (answer,) = ask(json.dumps(request_))
    assert answer["success"] is False
    assert says in answer["ret_msg"]


def test_unsubscribing_ends_it() -> None:
    session = Bybit(MARKET).session("/v5/public/spot")
    assert session is not None
    for op, topics in (("subscribe", 1), ("unsubscribe", 0)):
        *_, done = session.reply(json.dumps({"op": op, "args": ["kline.1.BTCUSDT"]}), NOW_MS)
        assert (json.loads(done)["op"], json.loads(done)["success"]) == (op, True)
        assert len(session.topics) == topics


@given(st.text() | st.binary())
def test_any_request_is_answered(text: str | bytes) -> None:
    (answer,) = ask(text)
    assert answer["success"] is False


@pytest.mark.parametrize("path", ["/", "/v5/public/linear", "/v5/public/spot/x"])
def test_spot_has_one_address(path: str) -> None:
    assert Bybit(MARKET).session(path) is None


def test_pages_are_newest_first_from_their_start_or_up_to_their_end() -> None:
    start = ORIGIN_MS + 900 * MINUTE.ms
    assert opens(start=start, limit=3) == [start + k * MINUTE.ms for k in (2, 1, 0)]
    newest = ORIGIN_MS + 2_000 * MINUTE.ms
    assert opens(limit=2) == [newest, newest - MINUTE.ms]
    assert opens(end=start, limit=1) == [start]
    assert len(opens()) == 200
    assert len(opens(limit=5_000)) == 1_000


@pytest.mark.parametrize(
    "query",
    [{"symbol": "NOPE"}, {"category": "linear"}, {"interval": "5"}, {"start": "x"}, {"limit": "-"}],
)
def test_bad_requests_get_bybits_code(query: dict[str, str]) -> None:
    with pytest.raises(RestRequestError) as caught:
        get(**query)
    assert caught.value.body["retCode"] == 10001  # type: ignore[index]
