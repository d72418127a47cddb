"""Replay recorded messages of OKX, Bybit and Kraken over a real websocket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve

from daemon.sandbox.exchange import PROTOCOLS
from daemon.sandbox.market import Faults, Market
from daemon.sandbox.recording import Playback
from daemon.sandbox.rest_server import RestApi
from tests.replay.recorded_messages import HOST, NOTHING
from tests.replay.replay_harness import make_feed, running
from tests.sandbox.scaled import MINUTE
from tests.support.manual_clock import PollingClock
from tests.support.waiting import until

OKCOIN = ("USDC/USDT", "ETH/USD", "BTC/USD", "USDT/USD")
RECORDINGS = [
    # file, ccxt class, symbols, time of the recording, candles in it, how many close
    ("okx_watchOHLCV.jsonl", "okx", ("BTC/USDT",), 1_786_538_790_000, 2, 0),
    ("okcoin_candles.jsonl", "okx", OKCOIN, 1_685_221_681_000, 12, 4),
    ("bybit_watchOHLCV.jsonl", "bybit", ("BTC/USDT",), 1_786_538_715_000, 2, 0),
    ("kraken_watchOHLCV.jsonl", "kraken", ("BTC/USD",), 1_786_562_924_000, 2, 0),
]


def received(path: Path) -> list[dict[str, Any]]:
    """The exchange's recorded messages, without other channels."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    messages = [line["data"] for line in lines if line.get("dir") == "recv"]
    swap = "BTC-USDT-SWAP"
    return [message for message in messages if message.get("arg", {}).get("instId") != swap]


@asynccontextmanager
async def playing(
    name: str, symbols: Sequence[str], messages: Sequence[dict[str, Any]], clock: PollingClock
) -> AsyncIterator[tuple[str, str]]:
    """An exchange that lists ``symbols`` and answers the first request with ``messages``."""
    playback = Playback(
        NOTHING, MINUTE, MINUTE.floor(clock.wall_ms()), dict.fromkeys(symbols, 0), 1
    )
    protocol = PROTOCOLS[name](Market(playback, Faults()))

    async def handle(connection: ServerConnection) -> None:
        await connection.recv()
        for message in messages:
            await connection.send(json.dumps(message))
        await connection.wait_closed()

    runner = web.AppRunner(RestApi(protocol, clock).app(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        async with serve(handle, HOST, 0, close_timeout=1.0) as server:
            ports = runner.addresses[0][1], next(iter(server.sockets)).getsockname()[1]
            yield f"http://{HOST}:{ports[0]}", f"ws://{HOST}:{ports[1]}"
    finally:
        await runner.cleanup()


def test_every_recording_is_replayed(shared_dir: Path) -> None:
    found = {path.name for path in (shared_dir / "fixtures" / "ws").glob("*.jsonl")}
    theirs = {name for name in found if not name.startswith("binance")}
    assert theirs == {recording[0] for recording in RECORDINGS}


@pytest.mark.parametrize(
    ("file", "name", "symbols", "now_ms", "candles", "closing"), RECORDINGS, ids=str
)
async def test_the_recorded_candles_come_in_and_the_flagged_ones_are_final(
    shared_dir: Path,
    file: str,
    name: str,
    symbols: tuple[str, ...],
    now_ms: int,
    candles: int,
    closing: int,
) -> None:
    messages = received(shared_dir / "fixtures" / "ws" / file)
    clock = PollingClock(now_ms, longest_s=60)
    async with playing(name, symbols, messages, clock) as urls:
        harness = make_feed(urls, symbols, clock, name=name)
        async with running(harness):
            await until(partial(harness.has_counted, "feed_messages", candles))
            await until(lambda: len(harness.closed) == closing)
    assert harness.count("feed_messages") == candles
    assert harness.count("feed_refused") == 0
    assert harness.count("feed_reconnects") == 0
    flagged = [
        (int(row[0]), tuple(map(float, row[1:6])))
        for message in messages
        if str(message.get("arg", {}).get("channel")).startswith("candle")
        for row in message.get("data", [])
        if row[8] == "1"
    ]
    assert [(c.open_ms, tuple(c.ohlcv)) for c in harness.closed] == flagged
    assert {candle.final_by for candle in harness.closed} <= {"exchange_flag"}
