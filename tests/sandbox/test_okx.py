"""OKX's protocol: recorded messages, limits and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.exchange.message_parsers import Channel, parse_okx
from daemon.sandbox.protocols.base import CandleUpdate, RestRequestError
from daemon.sandbox.protocols.okx import Okx
from tests.sandbox.recorded import ORIGIN_MS, form, market_of, messages
from tests.sandbox.scaled import MINUTE

NOW_MS = ORIGIN_MS + 2_000 * MINUTE.ms + 20_000
MARKET = market_of("BTC/USDT")
CANDLES, PAST = "/api/v5/market/candles", "/api/v5/market/history-candles"


def ask(request: str | bytes) -> list[Any]:
    session = Okx(MARKET).session("/ws/v5/business")
    assert session is not None
    return [a if a == b"pong" else json.loads(a) for a in session.reply(request, NOW_MS)]


def get(path: str, **query: object) -> Any:
    wanted = {"instId": "BTC-USDT", "bar": "1m"} | query
    return Okx(MARKET).routes[path]({key: str(value) for key, value in wanted.items()}, NOW_MS)


def test_requests_acknowledgements_and_candles_are_as_recorded(shared_dir: Path) -> None:
    request, *_ = messages(shared_dir, "okx_watchOHLCV", "send")
    recorded = messages(shared_dir, "okx_watchOHLCV")
    theirs = [m for m in recorded if m["arg"]["channel"] == "candle1m"]
    candle, done = ask(json.dumps(request))
    assert {form(candle)} == {form(m) for m in theirs if "data" in m}
    assert {form(done)} == {form(m) for m in theirs if "data" not in m}
    assert done["arg"] == request["args"][0]
    assert {len(row) for m in theirs for row in m.get("data", [])} == {len(candle["data"][0])}


def test_closed_candles_are_as_recorded(shared_dir: Path) -> None:
    recorded = messages(shared_dir, "okcoin_candles")
    theirs = {
        form(m)
        for m in recorded
        if str(m.get("arg", {}).get("channel")).startswith("candle") and "data" in m
    }
    kline = MARKET.kline("BTC/USDT", ORIGIN_MS, 1.0, revised=False)
    (raw,) = Okx(MARKET).candle_messages(
        "BTC/USDT", CandleUpdate((kline,), closed=True, next_kline=None, now_ms=NOW_MS)
    )
    assert {form(json.loads(raw))} == theirs
    (read,) = parse_okx(json.loads(raw), Channel("1m", {})) or ()
    assert (read.open_ms, read.closed) == (ORIGIN_MS, True)
    assert tuple(map(float, read.values)) == MARKET.playback.candle("BTC/USDT", ORIGIN_MS)


def test_a_ping_is_answered_in_plain_text() -> None:
    assert ask("ping") == [b"pong"]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"op": "subscribe", "args": [{"channel": "candle1m", "instId": "NOPE"}]}, "60018"),
        ({"op": "subscribe", "args": [{"channel": "candle5m", "instId": "BTC-USDT"}]}, "60018"),
        ({"op": "subscribe", "args": ["candle1m:BTC-USDT"]}, "60012"),
        ({"op": "subscribe", "args": []}, "60012"),
        ({"op": "login"}, "60012"),
        (["subscribe"], "60012"),
    ],
)
def test_refusals_carry_okxs_codes(request_: object, code: str) -> None:
    (answer,) = ask(json.dumps(request_))
    assert (answer["event"], answer["code"]) == ("error", code)


def test_unsubscribing_ends_it() -> None:
    session = Okx(MARKET).session("/ws/v5/business")
    assert session is not None
    arg = {"channel": "candle1m", "instId": "BTC-USDT"}
    for op, topics in (("subscribe", 1), ("unsubscribe", 0)):
        *_, done = session.reply(json.dumps({"op": op, "args": [arg]}), NOW_MS)
        assert json.loads(done)["event"] == op
        assert len(session.topics) == topics


@given(st.text() | st.binary())
def test_any_request_is_answered(text: str | bytes) -> None:
    (answer,) = ask(text)
    assert answer == b"pong" or answer["event"] == "error"


@pytest.mark.parametrize("path", ["/", "/ws/v5/public", "/ws/v5/private", "/ws/v5/business/x"])
def test_candles_have_one_address(path: str) -> None:
    assert Okx(MARKET).session(path) is None


def test_pages_are_newest_first_and_their_bounds_are_exclusive() -> None:
    opened = ORIGIN_MS + 1_900 * MINUTE.ms
    page = get(CANDLES, before=opened, after=opened + 4 * MINUTE.ms)["data"]
    assert [int(row[0]) for row in page] == [opened + k * MINUTE.ms for k in (3, 2, 1)]
    assert len(get(CANDLES)["data"]) == 100
    assert len(get(CANDLES, limit=1_000)["data"]) == 300
    newest = get(CANDLES, limit=2)["data"]
    assert [row[8] for row in newest] == ["0", "1"]


def test_old_candles_are_in_the_history_alone() -> None:
    old = ORIGIN_MS + 100 * MINUTE.ms
    assert get(CANDLES, after=old)["data"] == []
    assert len(get(PAST, after=old)["data"]) == 100
    assert {row[8] for row in get(PAST, limit=300)["data"]} == {"1"}


@pytest.mark.parametrize(
    ("path", "query", "code"),
    [
        (CANDLES, {"instId": "NOPE"}, "51001"),
        (CANDLES, {"bar": "1H"}, "51000"),
        (PAST, {"before": "x"}, "51000"),
        (PAST, {"limit": "-1"}, "51000"),
        ("/api/v5/public/instruments", {}, "50014"),
    ],
)
def test_bad_requests_get_okxs_codes(path: str, query: dict[str, str], code: str) -> None:
    with pytest.raises(RestRequestError) as caught:
        get(path, **query)
    assert caught.value.body["code"] == code  # type: ignore[index]
