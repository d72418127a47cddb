"""Kraken's protocol: recorded messages, limits and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.exchange.message_parsers import Channel, parse_kraken
from daemon.sandbox.market import Kline
from daemon.sandbox.protocols.base import CandleUpdate, RestRequestError
from daemon.sandbox.protocols.kraken import Kraken, iso
from model.core.candle import Ohlcv
from tests.sandbox.recorded import ORIGIN_MS, form, market_of, messages
from tests.sandbox.scaled import MINUTE

NOW_MS = ORIGIN_MS + 2_000 * MINUTE.ms + 20_000
MARKET = market_of("BTC/USD")
SUBSCRIBE: dict[str, Any] = {
    "method": "subscribe",
    "params": {"channel": "ohlc", "symbol": ["BTC/USD"], "interval": 1},
}


def ask(request: str | bytes) -> list[Any]:
    session = Kraken(MARKET).session("/v2")
    assert session is not None
    return [json.loads(answer) for answer in session.reply(request, NOW_MS)]


def get(**query: object) -> Any:
    wanted = {"pair": "BTCUSD", "interval": "1"} | query
    text = {key: str(value) for key, value in wanted.items()}
    return Kraken(MARKET).routes["/0/public/OHLC"](text, NOW_MS)


def test_greeting_acknowledgement_snapshot_update_and_heartbeat_are_as_recorded(
    shared_dir: Path,
) -> None:
    (request,) = messages(shared_dir, "kraken_watchOHLCV", "send")
    status, done, snapshot, update, heartbeat = messages(shared_dir, "kraken_watchOHLCV")
    protocol = Kraken(MARKET)
    session = protocol.session("/v2")
    assert session is not None
    assert [form(json.loads(raw)) for raw in session.on_connect(NOW_MS)] == [form(status)]
    our_done, our_snapshot = ask(json.dumps(request))
    # The order of an answer's keys differs; their names and types do not.
    assert set(form(our_done)) == set(form(done))
    assert form(our_snapshot) == form(snapshot)
    kline = protocol.forming_kline("BTC/USD", NOW_MS)
    (raw,) = protocol.candle_messages(
        "BTC/USD", CandleUpdate((kline,), closed=False, next_kline=None, now_ms=NOW_MS)
    )
    assert form(json.loads(raw)) == form(update)
    assert json.loads(protocol.heartbeat) == heartbeat


def test_times_are_written_as_recorded() -> None:
    assert iso(1_786_562_880_000, 9) == "2026-08-12T19:28:00.000000000Z"
    assert iso(1_786_562_880_012, 6) == "2026-08-12T19:28:00.012000Z"


def test_the_snapshot_ends_with_the_forming_candle() -> None:
    _, snapshot = ask(json.dumps(SUBSCRIBE))
    begins = [row["interval_begin"] for row in snapshot["data"]]
    assert begins == [iso(ORIGIN_MS + k * MINUTE.ms, 9) for k in range(1_991, 2_001)]


def test_a_candle_closes_with_the_first_trade_of_the_next_and_no_flag() -> None:
    closed = MARKET.kline("BTC/USD", ORIGIN_MS, 1.0, revised=False)
    following = MARKET.kline("BTC/USD", ORIGIN_MS + MINUTE.ms, 0.01, revised=False)
    update = CandleUpdate((closed,), closed=True, next_kline=following, now_ms=NOW_MS)
    read = [
        candle
        for raw in Kraken(MARKET).candle_messages("BTC/USD", update)
        for candle in parse_kraken(json.loads(raw), Channel("1", {})) or ()
    ]
    assert [(c.open_ms, c.closed) for c in read] == [
        (ORIGIN_MS, None),
        (ORIGIN_MS + MINUTE.ms, None),
    ]
    assert read[0].values == MARKET.playback.candle("BTC/USD", ORIGIN_MS)


def test_without_a_trade_there_is_no_update() -> None:
    quiet = Kline(ORIGIN_MS, ORIGIN_MS + MINUTE.ms - 1, Ohlcv(1, 1, 1, 1, 0), -1, -1, 0)
    assert (
        Kraken(MARKET).candle_messages(
            "BTC/USD", CandleUpdate((quiet,), closed=True, next_kline=quiet, now_ms=NOW_MS)
        )
        == []
    )


def test_a_ping_is_answered_under_its_number() -> None:
    (answer,) = ask('{"method":"ping","req_id":7}')
    assert (answer["method"], answer["req_id"]) == ("pong", 7)
    assert "req_id" not in ask('{"method":"ping"}')[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"symbol": ["NOPE/USD"]}, "Currency pair not supported NOPE/USD"),
        ({"symbol": "BTC/USD"}, "Subscription name invalid"),
        ({"channel": "trades"}, "Subscription name invalid"),
        ({"interval": 5}, "interval not supported"),
        ({"interval": None}, "interval not supported"),
    ],
)
def test_refusals_give_a_reason(change: dict[str, Any], says: str) -> None:
    (answer,) = ask(json.dumps(SUBSCRIBE | {"params": SUBSCRIBE["params"] | change}))
    assert answer["success"] is False
    assert says in answer["error"]


def test_unsubscribing_ends_it() -> None:
    session = Kraken(MARKET).session("/v2")
    assert session is not None
    for method, topics in (("subscribe", 1), ("unsubscribe", 0)):
        done, *_ = session.reply(json.dumps(SUBSCRIBE | {"method": method}), NOW_MS)
        assert (json.loads(done)["method"], json.loads(done)["success"]) == (method, True)
        assert len(session.topics) == topics


@given(st.text() | st.binary())
def test_any_request_is_answered(text: str | bytes) -> None:
    (answer,) = ask(text)
    assert answer["success"] is False


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/x"])
def test_the_second_version_has_one_address(path: str) -> None:
    assert Kraken(MARKET).session(path) is None


def test_history_is_720_candles_ascending_and_ends_with_the_forming_one() -> None:
    rows = get(since=0)["result"]["BTCUSD"]
    newest_s = (ORIGIN_MS + 2_000 * MINUTE.ms) // 1_000
    assert [row[0] for row in rows] == [newest_s - 60 * k for k in range(719, -1, -1)]
    later = get(since=newest_s - 120)["result"]
    assert [row[0] for row in later["BTCUSD"]] == [newest_s - 60, newest_s]
    assert later["last"] == newest_s - 60
    assert [row[0] for row in get(since=newest_s + 600)["result"]["BTCUSD"]] == [newest_s]


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"pair": "NOPE"}, "EQuery:Unknown asset pair"),
        ({"interval": "7"}, "EGeneral:Invalid arguments"),
        ({"since": "x"}, "EGeneral:Invalid arguments"),
    ],
)
def test_bad_requests_get_krakens_errors(query: dict[str, str], error: str) -> None:
    with pytest.raises(RestRequestError) as caught:
        get(**query)
    assert caught.value.body == {"error": [error]}
