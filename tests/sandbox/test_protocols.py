"""Every protocol with the unmodified ccxt.pro class of its exchange."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import ccxt
import pytest

from daemon.sandbox.exchange import PROTOCOLS, Behaviour, SandboxExchange
from model.core.errors import CandlecastError
from tests.sandbox.scaled import MINUTE, ccxt_client, minute_playback, minutes, second_playback
from tests.support.manual_clock import ManualClock
from tests.support.servers import MAX_WAIT_S

NAMES = ["okx", "bybit", "kraken"]
KEEP_ALIVE_MS = 150
NOW_MS = 1_795_435_200_000


def client(name: str, exchange: SandboxExchange, **config: Any) -> Any:
    return ccxt_client(name, exchange.rest_url, exchange.ws_url, **config)


@pytest.mark.parametrize("name", NAMES)
async def test_markets_load_as_they_come(name: str) -> None:
    async with minutes(name, 3) as exchange, client(name, exchange) as ours:
        markets = await ours.load_markets()
        assert tuple(markets) == exchange.playback.symbols
        market = markets["S01/USDT"]
        assert (market["type"], market["active"]) == ("spot", True)
        assert market["precision"]["price"] == 0.01
        assert await ours.fetch_time() > ours.milliseconds() - 5_000


@pytest.mark.parametrize("name", NAMES)
async def test_a_page_of_history_equals_the_playback_and_ends_with_the_forming_candle(
    name: str,
) -> None:
    async with minutes(name, 2) as exchange, client(name, exchange) as ours:
        await ours.load_markets()
        *closed, forming = await ours.fetch_ohlcv("S01/USDT", "1m", limit=50)
        assert all(tuple(row[1:]) == exchange.playback.candle("S01/USDT", row[0]) for row in closed)
        opens = [row[0] for row in (*closed, forming)]
        assert opens == list(range(opens[0], opens[0] + 50 * MINUTE.ms, MINUTE.ms))
        assert forming[5] < exchange.playback.candle("S01/USDT", forming[0]).volume
        since_ms = closed[-20][0]
        page = await ours.fetch_ohlcv("S01/USDT", "1m", since_ms, 10)
        assert [row[0] for row in page] == [since_ms + k * MINUTE.ms for k in range(10)]


@pytest.mark.parametrize("name", NAMES)
async def test_ccxt_recognises_a_ban(name: str) -> None:
    async with minutes(name, 1) as exchange, client(name, exchange) as ours:
        await ours.load_markets()
        exchange.ban(429, 300)
        with pytest.raises((ccxt.RateLimitExceeded, ccxt.DDoSProtection)):
            await ours.fetch_ohlcv("S00/USDT", "1m")
        assert 0 < int(ours.last_response_headers["Retry-After"]) <= 300


@pytest.mark.parametrize("name", NAMES)
async def test_watched_candles_form_and_close_as_on_the_playback(name: str) -> None:
    seen: dict[int, list[list[float]]] = defaultdict(list)
    async with minutes(name, 1) as exchange, client(name, exchange) as ours:
        async with asyncio.timeout(MAX_WAIT_S):
            while len(seen) < 5:
                for row in await ours.watch_ohlcv("S00/USDT", "1m"):
                    seen[row[0]].append(row[1:])
        playback = exchange.playback
    # The first ones may be of a snapshot, the last one is forming.
    for open_ms in sorted(seen)[:-1]:
        assert tuple(seen[open_ms][-1]) == playback.candle("S00/USDT", open_ms)


@pytest.mark.parametrize("name", NAMES)
async def test_a_subscription_before_a_closing_message_shows_the_candle_that_closes(
    name: str,
) -> None:
    clock = ManualClock(NOW_MS)
    playback = minute_playback(1, NOW_MS)
    late = Behaviour(updates=2, close_delay_s=1.0)
    boundary_ms = NOW_MS + MINUTE.ms
    async with (
        SandboxExchange(playback, name=name, clock=clock, behaviour=late) as exchange,
        client(name, exchange) as ours,
    ):
        await ours.load_markets()
        clock.move_to(boundary_ms + 300)
        *_, forming = await ours.watch_ohlcv("S00/USDT", "1m")
        assert forming[0] == NOW_MS
        clock.move_to(boundary_ms + 1_000)
        rows = {row[0]: row[1:] for row in await ours.watch_ohlcv("S00/USDT", "1m")}
        assert tuple(rows[NOW_MS]) == playback.candle("S00/USDT", NOW_MS)
        clock.move_to(boundary_ms + MINUTE.ms // 3)
        *_, forming = await ours.watch_ohlcv("S00/USDT", "1m")
        assert forming[0] == boundary_ms


@pytest.mark.parametrize("name", NAMES)
async def test_pings_of_the_exchanges_own_keep_the_connection(name: str) -> None:
    # ccxt gives a connection up after so many pings without a pong. Its usual two are a third of a
    # second here; a busy machine may stand still for longer.
    misses = 1_000 * MAX_WAIT_S / KEEP_ALIVE_MS
    config = {"streaming": {"keepAlive": KEEP_ALIVE_MS, "maxPingPongMisses": misses}}
    async with minutes(name, 1) as exchange, client(name, exchange, **config) as ours:
        await ours.watch_ohlcv("S00/USDT", "1m")
        (connection,) = ours.clients.values()
        exchange.faults.silent = True
        # Twenty of its pings are answered.
        for _ in range(20):
            before_ms = connection.lastPong
            async with asyncio.timeout(MAX_WAIT_S):
                while connection.lastPong == before_ms:
                    assert connection.isConnected
                    await asyncio.sleep(0.005)
        assert connection.isConnected
        assert exchange.streams.clients == 1


async def test_kraken_sends_heartbeats_while_the_market_is_silent() -> None:
    async with minutes("kraken", 1) as exchange, client("kraken", exchange) as ours:
        await ours.watch_ohlcv("S00/USDT", "1m")
        exchange.faults.silent = True
        (connection,) = ours.clients.values()
        beats = asyncio.Event()
        handle = ours.handle_message

        def handle_message(of: Any, message: Any) -> None:
            if message == {"channel": "heartbeat"}:
                beats.set()
            handle(of, message)

        connection.on_message_callback = handle_message
        await asyncio.wait_for(beats.wait(), MAX_WAIT_S)


@pytest.mark.parametrize("name", NAMES)
async def test_a_refused_symbol_raises_in_ccxt(name: str) -> None:
    async with minutes(name, 1) as exchange, client(name, exchange) as ours:
        await ours.load_markets()
        gone = dict(ours.markets["S00/USDT"]) | {"symbol": "NO/USDT", "id": "NOUSDT"}
        ours.set_markets([gone])
        if name == "kraken":
            # ccxt leaves its caller waiting; the tap counts the refusal.
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ours.watch_ohlcv("NO/USDT", "1m"), 1)
        else:
            with pytest.raises(ccxt.ExchangeError):
                await asyncio.wait_for(ours.watch_ohlcv("NO/USDT", "1m"), MAX_WAIT_S)


@pytest.mark.parametrize("name", NAMES)
def test_a_timeframe_that_the_exchange_lacks_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(CandlecastError, match=rf"^{name} has no candles of 1s; allowed: 1m"):
        SandboxExchange(second_playback(1), name=name)


def test_every_protocol_names_timeframes_as_ccxt_does() -> None:
    for name, protocol in PROTOCOLS.items():
        theirs = getattr(ccxt, name)().timeframes
        for timeframe, own in protocol.intervals.items():
            assert str(theirs[timeframe]).removesuffix("utc") == own.removesuffix("utc")
