"""Test symbols that the stream never delivers: status, doctor, and forecasts from REST."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from daemon.doctor.findings import Finding
from daemon.doctor.stream_check import check_streams
from daemon.exchange.exchange_clock import ExchangeClock
from daemon.exchange.rest import RestClient
from daemon.exchange.source import MarketSource
from daemon.metrics.metrics import Metrics
from daemon.sandbox.exchange import Behaviour, SandboxExchange
from tests.faults.test_staleness import assert_true, service
from tests.integration.harness import write_config
from tests.integration.test_exchanges import daemon_config
from tests.replay.replay_harness import make_feed, running
from tests.sandbox.scaled import MINUTE, SECOND, ScaledClock, minute_playback, second_playback
from tests.support.servers import HOST, free_port, mosquitto
from tests.support.tiny_models import promote
from tests.support.waiting import until

FACTOR = 40.0


@asynccontextmanager
async def sandbox(clock: ScaledClock, symbols: int = 2) -> AsyncIterator[SandboxExchange]:
    playback = minute_playback(symbols, clock.wall_ms())
    behaviour = Behaviour(updates=4)
    async with SandboxExchange(playback, clock=clock, behaviour=behaviour) as exchange:
        yield exchange


async def examined(exchange: SandboxExchange, clock: ScaledClock) -> Finding:
    """What doctor finds about the stream of a sandbox exchange."""
    symbols = tuple(exchange.playback.symbols)
    source = MarketSource("binance", exchange.rest_url, exchange.ws_url, symbols, MINUTE)
    time = ExchangeClock(clock)
    refused: list[Exception] = []
    rest = RestClient(source, time, Metrics(1), refused.append)
    try:
        await rest.open()
        (finding,) = await check_streams(source, rest, time)
    finally:
        await rest.close()
    return finding


async def test_doctor_passes_a_working_stream() -> None:
    clock = ScaledClock(FACTOR)
    async with sandbox(clock) as exchange:
        finding = await examined(exchange, clock)
    assert finding.good is True, finding
    assert "are received by websocket" in finding.text


async def test_doctor_finds_a_stream_that_takes_the_subscription_and_stays_silent() -> None:
    clock = ScaledClock(FACTOR)
    async with sandbox(clock) as exchange:
        exchange.faults.silent = True
        finding = await examined(exchange, clock)
    assert finding.good is False
    assert all(symbol in finding.text for symbol in exchange.playback.symbols)
    assert "streams no candles of" in finding.text


async def test_doctor_finds_one_silent_symbol_among_others() -> None:
    clock = ScaledClock(FACTOR)
    async with sandbox(clock) as exchange:
        silent, other = exchange.playback.symbols
        now_ms = MINUTE.floor(clock.wall_ms())
        exchange.faults.skipped.update((silent, now_ms + at * MINUTE.ms) for at in range(-1, 30))
        finding = await examined(exchange, clock)
    assert finding.good is False
    assert silent in finding.text
    assert other not in finding.text


@pytest.mark.may_block("opening a model and a broker takes place before there is a deadline")
async def test_the_command_fails_where_nothing_is_received(tmp_path: Path) -> None:
    playback = second_playback(2)
    with mosquitto(tmp_path) as broker:
        async with SandboxExchange(playback) as exchange:
            exchange.faults.silent = True
            sections = yaml.safe_load(daemon_config(tmp_path, exchange, broker.port).read_text())
            sections["trading"]["timeframe"] = "1s"
            config = write_config(tmp_path, sections)
            now_ms = SECOND.floor(playback.origin_ms) + 1_000 * SECOND.ms
            past = {s: playback.history(s, playback.origin_ms, now_ms)[1] for s in playback.symbols}
            promote(tmp_path / "state" / "registry", past, timeframe="1s")
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "daemon", "doctor", "--config", str(config),
                stdout=pipe, stderr=pipe,
            )  # fmt: skip
            output, complaint = await process.communicate()
    assert process.returncode == 1, (output, complaint)
    assert "✗ stream" in output.decode()
    assert "1 problem found" in complaint.decode()


@pytest.mark.may_block("opening a model and a broker takes place before there is a deadline")
async def test_a_silent_stream_is_stale_though_the_history_fills_the_windows(
    tmp_path: Path,
) -> None:
    async with service("binance", tmp_path) as here:
        symbols = set(here.exchange.playback.symbols)
        here.exchange.faults.silent = True
        # On a busy machine they may be stale before that, because forecasts are late.
        silent = here.app.parts.feed.silent_symbols
        await until(lambda: silent.symbols() == symbols)
        await until(lambda: all(here.is_stale(symbol) for symbol in symbols))
        before = len(here.forecasts)
        await until(lambda: here.forecast_since(before) == symbols)
        assert here.statuses[-1]["state"] == "degraded"
        assert not here.app.parts.health.health().ready
        assert (here.gauge("feed_stale_symbols") or 0.0) == len(symbols)
        here.exchange.faults.silent = False
        await until(lambda: not any(here.is_stale(symbol) for symbol in symbols))
    assert_true(here)


async def test_symbols_of_a_stream_that_cannot_connect_are_silent() -> None:
    clock = ScaledClock(FACTOR)
    async with sandbox(clock) as exchange:
        symbols = exchange.playback.symbols
        dead = f"ws://{HOST}:{free_port()}"
        harness = make_feed((exchange.rest_url, dead), symbols, clock)
        async with running(harness):
            assert harness.feed.silent_symbols.symbols() == set()
            await until(lambda: harness.feed.silent_symbols.symbols() == set(symbols))
            assert harness.count("feed_reconnects") >= 1
