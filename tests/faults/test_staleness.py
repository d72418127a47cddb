"""Check that stale data yields no forecast and shows in status and metrics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from config import settings as configuration
from daemon.app import App, opened
from daemon.sandbox.exchange import Behaviour, SandboxExchange
from tests.integration.test_exchanges import daemon_config
from tests.replay.replay_harness import nothing_left
from tests.sandbox.scaled import MINUTE, ScaledClock, minute_playback
from tests.support.servers import Subscriber, mosquitto, mosquitto_sub
from tests.support.tiny_models import promote
from tests.support.waiting import until

FACTOR = 40.0


class Service:
    """A daemon in this process, its exchange, and what consumers get."""

    def __init__(
        self, app: App, exchange: SandboxExchange, clock: ScaledClock, live: Subscriber
    ) -> None:
        self.app = app
        self.exchange = exchange
        self.clock = clock
        self.forecasts: list[dict[str, Any]] = []
        self.statuses: list[dict[str, Any]] = []
        self._live = live

    def listen(self) -> None:
        for message in self._live.received():
            document = json.loads(message["payload"])
            if message["topic"].endswith("/prediction"):
                self.forecasts.append(document)
            elif "/status/" in message["topic"]:
                self.statuses.append(document)

    def is_stale(self, symbol: str) -> bool:
        """Whether the latest status names it; a busy machine makes others stale at times."""
        self.listen()
        last = self.statuses[-1] if self.statuses else {"state": "", "stale_symbols": []}
        assert (last["state"] == "degraded") == bool(last["stale_symbols"])
        return symbol in last["stale_symbols"]

    def has_published_state(self, state: str) -> bool:
        self.listen()
        return state in [status["state"] for status in self.statuses]

    def gauge(self, name: str) -> float | None:
        return self.app.metrics.registry.get_sample_value(f"candlecast_{name}")

    def forecast_since(self, count: int) -> set[str]:
        self.listen()
        return {forecast["symbol"] for forecast in self.forecasts[count:]}


@asynccontextmanager
async def service(name: str, folder: Path) -> AsyncIterator[Service]:
    clock = ScaledClock(FACTOR)
    playback = minute_playback(3, clock.wall_ms())
    behaviour = Behaviour(updates=2, close_delay_s=0.6)
    with mosquitto(folder) as broker, mosquitto_sub(broker.port, "candlecast/#") as live:
        async with SandboxExchange(
            playback, name=name, clock=clock, behaviour=behaviour
        ) as exchange:
            settings = configuration.load(daemon_config(folder, exchange, broker.port))
            past = {
                s: playback.history(s, playback.origin_ms, clock.wall_ms())[1]
                for s in playback.symbols
            }
            promote(settings.state_dir / "registry", past)
            stop = asyncio.Event()
            async with (
                nothing_left(),
                opened(settings) as (bundle, history),
                asyncio.TaskGroup() as group,
            ):
                app = App(settings, bundle, history, clock)
                group.create_task(app.run(stop))
                running = Service(app, exchange, clock, live)
                await until(lambda: running.has_published_state("online"))
                yield running
                stop.set()
        await until(lambda: running.has_published_state("offline"))
    assert [status["state"] for status in running.statuses[-2:]] == ["stopping", "offline"]


@pytest.mark.may_block("opening a model and a broker takes place before there is a deadline")
async def test_a_delisted_symbol_is_stale_and_gets_no_forecast(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with service("okx", tmp_path) as running:
        gone, *others = running.exchange.playback.symbols
        running.exchange.faults.delisted.add(gone)
        running.exchange.streams.abort_all()
        await until(lambda: "refuses to stream" in caplog.text)
        await running.clock.sleep(90)
        await until(lambda: running.is_stale(gone))
        assert (running.gauge("feed_stale_symbols") or 0.0) >= 1.0
        before = len(running.forecasts)
        await until(lambda: len(running.forecast_since(before)) >= 2)
        assert running.forecast_since(before) <= set(others)
        running.exchange.faults.delisted.clear()
        before = len(running.forecasts)
        await until(lambda: gone in running.forecast_since(before))
        await until(lambda: not running.is_stale(gone))
    assert_true(running)


@pytest.mark.may_block("opening a model and a broker takes place before there is a deadline")
async def test_an_incomplete_window_publishes_no_forecast(tmp_path: Path) -> None:
    """Candles are missed while the exchange bans every question: the gap stays for a while."""
    async with service("binance", tmp_path) as running:
        symbol, *others = running.exchange.playback.symbols
        now_ms = MINUTE.floor(running.clock.wall_ms())
        missed_ms = now_ms + 2 * MINUTE.ms
        running.exchange.faults.skipped.add((symbol, missed_ms))
        running.exchange.ban(429, 300)
        await until(lambda: running.is_stale(symbol))
        before = len(running.forecasts)
        await until(lambda: len(running.forecast_since(before)) >= 2)
        assert running.forecast_since(before) <= set(others)
        before = len(running.forecasts)
        await until(lambda: symbol in running.forecast_since(before))
        await until(lambda: not running.is_stale(symbol))
    mine = [f["candle_open_ms"] for f in running.forecasts if f["symbol"] == symbol]
    assert not {missed_ms + at * MINUTE.ms for at in range(2)} & set(mine)
    assert_true(running)


def assert_true(running: Service) -> None:
    """Every forecast starts from a candle that has closed, as the exchange made it."""
    for forecast in running.forecasts:
        candle = running.exchange.playback.candle(forecast["symbol"], forecast["candle_open_ms"])
        assert forecast["last_close"] == candle.close
        assert forecast["published_ms"] >= forecast["candle_close_ms"]
        assert forecast["window"]["filled"] == 0
