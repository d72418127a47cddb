"""The sandbox with the unmodified ccxt.pro client over sockets."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

import ccxt
import pytest

from daemon.sandbox.exchange import SandboxExchange
from tests.sandbox.scaled import ScaledClock, binance, second_playback
from tests.support.servers import MAX_WAIT_S

SPOT = {"fetchMarkets": {"types": ["spot"]}}


@pytest.fixture
async def exchange() -> AsyncIterator[SandboxExchange]:
    async with SandboxExchange(second_playback(20), clock=ScaledClock(1.0)) as running:
        yield running


@pytest.mark.parametrize("options", [SPOT, {}], ids=["spot", "as it comes"])
async def test_markets_load(exchange: SandboxExchange, options: dict[str, object]) -> None:
    async with binance(exchange.rest_url, exchange.ws_url, **options) as client:
        markets = await client.load_markets()
        assert tuple(markets) == exchange.playback.symbols
        market = markets["S07/USDT"]
        assert (market["id"], market["type"], market["active"]) == ("S07USDT", "spot", True)
        assert market["precision"]["price"] == 0.01
        assert abs(await client.fetch_time() - exchange._clock.wall_ms()) < 5_000  # noqa: SLF001 - its time


async def test_history_comes_in_pages_and_equals_the_playback(exchange: SandboxExchange) -> None:
    playback = exchange.playback
    async with binance(exchange.rest_url, exchange.ws_url, **SPOT) as client:
        await client.load_markets()
        rows: list[list[float]] = []
        since = playback.origin_ms
        while len(rows) < 1_500:
            page = await client.fetch_ohlcv("S03/USDT", "1s", since, 700)
            assert 0 < len(page) <= 700
            rows += page
            since = int(page[-1][0]) + 1_000
    opens, ohlcv = playback.history("S03/USDT", playback.origin_ms, playback.origin_ms + 1_500_000)
    assert [row[0] for row in rows[:1_500]] == opens.tolist()
    assert [row[1:] for row in rows[:1_500]] == ohlcv.tolist()


async def test_the_last_row_is_the_forming_candle(exchange: SandboxExchange) -> None:
    async with binance(exchange.rest_url, exchange.ws_url, **SPOT) as client:
        await client.load_markets()
        *closed, forming = await client.fetch_ohlcv("S00/USDT", "1s", limit=3)
        now_ms = await client.fetch_time()
    assert all(tuple(row[1:]) == exchange.playback.candle("S00/USDT", row[0]) for row in closed)
    assert forming[0] + 1_000 > now_ms - 5_000
    assert forming[5] < exchange.playback.candle("S00/USDT", forming[0]).volume


async def test_errors_reach_the_caller_as_ccxts_own(exchange: SandboxExchange) -> None:
    async with binance(exchange.rest_url, exchange.ws_url, **SPOT) as client:
        await client.load_markets()
        with pytest.raises(ccxt.BadSymbol):
            await client.fetch_ohlcv("BTC/USDT", "1s")
        with pytest.raises(ccxt.BadRequest, match="-1120"):
            await client.fetch_ohlcv("S00/USDT", "1h")
        exchange.ban(418, 30)
        with pytest.raises(ccxt.DDoSProtection, match="418"):
            await client.fetch_ohlcv("S00/USDT", "1s")
        assert client.last_response_headers["Retry-After"] == "30"


async def test_watched_candles_form_and_close_as_on_the_playback(exchange: SandboxExchange) -> None:
    playback = exchange.playback
    seen: dict[str, dict[int, list[list[float]]]] = {s: defaultdict(list) for s in playback.symbols}
    async with binance(exchange.rest_url, exchange.ws_url, **SPOT) as client:
        wanted = [[symbol, "1s"] for symbol in playback.symbols]
        async with asyncio.timeout(MAX_WAIT_S):
            while min(map(len, seen.values())) < 4:
                await client.watch_ohlcv_for_symbols(wanted)
                # A call returns one symbol of a burst only; ccxt's cache holds them all.
                for symbol, frames in client.ohlcvs.items():
                    for row in frames["1s"]:
                        seen[symbol][row[0]].append(row[1:])
    for symbol, candles in seen.items():
        whole = sorted(candles)[1:-1]
        assert whole == list(range(whole[0], whole[-1] + 1, 1_000))
        for open_ms in whole:
            final = playback.candle(symbol, open_ms)
            assert tuple(candles[open_ms][-1]) == final
            assert all(row[4] < final.volume or tuple(row) == final for row in candles[open_ms])
            assert len(set(map(tuple, candles[open_ms]))) > 1


async def test_a_broken_connection_raises_and_the_next_call_reconnects(
    exchange: SandboxExchange,
) -> None:
    async with binance(exchange.rest_url, exchange.ws_url, **SPOT) as client:
        wanted = [["S00/USDT", "1s"]]
        await client.watch_ohlcv_for_symbols(wanted)
        exchange.streams.abort_all()
        with pytest.raises(ccxt.NetworkError):
            await client.watch_ohlcv_for_symbols(wanted)
        async with asyncio.timeout(MAX_WAIT_S):
            assert await client.watch_ohlcv_for_symbols(wanted)
