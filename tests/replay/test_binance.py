"""Replay recorded Binance messages over a real websocket through the real client."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.replay.recorded_messages import wire
from tests.replay.replay_harness import make_feed, running
from tests.support.manual_clock import PollingClock
from tests.support.waiting import until

QUOTES = ("USDT", "BUSD", "BTC", "BRL")

RECORDINGS = [
    ("binance_us_candles.jsonl", "binanceus", "", 1),
    ("binance_tr_candles.jsonl", "binance", "", 4),
    ("binance_futures_candles.jsonl", "binanceusdm", ":USDT", 4),
]


def read(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Each received message with the time at which it came, Unix milliseconds."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        (round(line["received_s"] * 1_000), line["data"]) for line in lines if line["dir"] == "recv"
    ]


def pair(market_id: str) -> str:
    """ccxt's name of a recorded market."""
    quote = next(quote for quote in QUOTES if market_id.endswith(quote))
    return f"{market_id.removesuffix(quote)}/{quote}"


def test_every_binance_recording_is_replayed(shared_dir: Path) -> None:
    found = {path.name for path in (shared_dir / "fixtures" / "ws").glob("binance*.jsonl")}
    assert found == {recording[0] for recording in RECORDINGS}


@pytest.mark.parametrize("combined", [True, False], ids=["combined", "raw"])
@pytest.mark.parametrize(("file", "name", "settled", "count"), RECORDINGS)
async def test_the_recorded_closed_candles_come_out_each_once(
    shared_dir: Path, file: str, name: str, settled: str, count: int, *, combined: bool
) -> None:
    messages = read(shared_dir / "fixtures" / "ws" / file)
    klines = [message["data"]["k"] for _, message in messages]
    pairs = sorted({pair(kline["s"]) for kline in klines})
    clock = PollingClock(messages[0][0], longest_s=60)
    listed = {"linear": pairs} if settled else {"spot": pairs}
    async with wire(**listed) as exchange:
        harness = make_feed(
            (exchange.rest_url, exchange.ws_url), [p + settled for p in pairs], clock, name=name
        )
        async with running(harness):
            await exchange.wait_subscribed(len(pairs))
            for sent, (received_ms, message) in enumerate(messages, 1):
                clock.move_to(received_ms)
                exchange.send(json.dumps(message if combined else message["data"]))
                await until(partial(harness.has_counted, "feed_messages", sent))
    assert harness.count("feed_refused") == 0
    closing = [(at, m["data"]["k"]) for at, m in messages if m["data"]["k"]["x"]]
    assert len(closing) == count
    assert [(c.symbol, c.open_ms, c.close_ms, *c.ohlcv) for c in harness.closed] == [
        (pair(k["s"]) + settled, k["t"], k["T"] + 1, *(float(k[key]) for key in "ohlcv"))
        for _, k in closing
    ]
    assert [c.received_ms for c in harness.closed] == [max(at, messages[0][0]) for at, _ in closing]
    assert {c.final_by for c in harness.closed} == {"exchange_flag"}
    # Only the requested kind of market is loaded.
    kind = "fapi/v1" if settled else "api/v3"
    assert exchange.asked == [f"/{kind}/exchangeInfo"]


async def test_spot_and_swap_with_one_name_stay_separate() -> None:
    clock = PollingClock(1_700_000_160_000, longest_s=60)
    symbols = ("BTC/USDT", "BTC/USDT:USDT")
    async with wire(spot=["BTC/USDT"], linear=["BTC/USDT"]) as exchange:
        harness = make_feed((exchange.rest_url, exchange.ws_url), symbols, clock)
        async with running(harness):
            await exchange.wait_subscribed(2)
            assert len(exchange.subscribed) == 2
            kline = {"s": "BTCUSDT", "i": "1m", "t": 1_700_000_100_000, "x": True}
            kline |= dict.fromkeys("ohlcv", "1")
            exchange.send(json.dumps({"e": "kline", "k": kline}))
            await until(lambda: len(harness.closed) == 2)
    assert {candle.symbol for candle in harness.closed} == set(symbols)
    assert sorted(exchange.asked) == ["/api/v3/exchangeInfo", "/fapi/v1/exchangeInfo"]
