"""Kill the real daemon (SIGKILL): at most the candle in flight is lost, no forecast is repeated."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from daemon.sandbox.exchange import SandboxExchange
from daemon.sandbox.recording import build_playback
from model.core.candle import Ohlcv, Timeframe
from model.core.market import MarketKey
from model.features.definitions import Indicators
from model.history.store import History
from tests.integration.harness import (
    Daemon,
    daemon,
    promote_drawn,
    sample,
    sections,
    write_config,
)
from tests.sandbox.scaled import SECOND, second_playback
from tests.support.servers import (
    MAX_WAIT_S,
    Mosquitto,
    SandboxProcess,
    Subscriber,
    free_port,
    mosquitto,
    mosquitto_sub,
    sandbox_process,
)
from tests.support.tiny_models import promote

FETCHED = "candlecast_feed_backfill_candles_total"
WINDOW = Indicators().warmup + 60


class Deployment:
    """A running exchange and broker, a daemon that is killed, and all its messages."""

    def __init__(
        self, folder: Path, exchange: SandboxProcess, mqtt_port: int, subscriber: Subscriber
    ) -> None:
        self.timeframe = Timeframe.parse(exchange.timeframe)
        self.http_port = free_port()
        self.config = write_config(folder, sections(exchange, mqtt_port, self.http_port))
        self.playback = build_playback(
            len(exchange.symbols),
            self.timeframe,
            exchange.origin_ms,
            slice_rows=exchange.slice_rows,
        )
        self.messages: list[dict[str, Any]] = []
        self._subscriber = subscriber
        until_ms = exchange.origin_ms + WINDOW * self.timeframe.ms
        promote(
            folder / "state" / "registry",
            {
                s: self.playback.history(s, exchange.origin_ms, until_ms)[1]
                for s in self.playback.symbols
            },
            timeframe=exchange.timeframe,
            indicators=Indicators(),
            lookback=60,
        )

    @contextmanager
    def running(self) -> Iterator[Daemon]:
        with daemon(self.config, self.http_port) as process:
            yield process

    def receive(self, enough: Callable[[], object], within_s: float = 2 * MAX_WAIT_S) -> None:
        deadline = time.monotonic() + within_s
        while not enough():
            assert time.monotonic() < deadline, self.messages[-20:]
            self.messages += self._subscriber.received()
            time.sleep(0.001)

    def forecasts(self) -> list[dict[str, Any]]:
        return [
            json.loads(m["payload"]) for m in self.messages if m["topic"].endswith("/prediction")
        ]

    def state(self) -> str:
        """The last published state."""
        statuses = [m["payload"] for m in self.messages if "/status/" in m["topic"]]
        return str(json.loads(statuses[-1])["state"]) if statuses else ""

    def recorded(self, symbol: str) -> dict[int, Ohlcv]:
        """What the history holds, by opening time."""
        history = History(self.config.parent / "state" / "history.sqlite")
        try:
            candles = history.candles(
                MarketKey.parse("binance", self.timeframe.text), symbol, 10_000
            )
        finally:
            history.close()
        return {candle.open_ms: candle.ohlcv for candle in candles}

    def written(self) -> int:
        """The least number of recorded candles of any symbol; read only."""
        path = self.config.parent / "state" / "history.sqlite"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            counted = "SELECT count(*) FROM candle GROUP BY symbol"
            counts = [int(count) for (count,) in database.execute(counted)]
        return min(counts) if len(counts) == len(self.playback.symbols) else 0

    def lost(self, since: int) -> dict[str, int]:
        """The number of candles with a received forecast that are not recorded, by symbol."""
        received = {(f["symbol"], f["candle_open_ms"]) for f in self.forecasts()[since:]}
        known = {s: self.recorded(s) for s in self.playback.symbols}
        return {s: sum(o == s and at not in known[s] for o, at in received) for s in known}

    def assert_forecasts_unchanged(self) -> None:
        """Retained forecasts may be received again, but only unchanged."""
        worded: dict[tuple[str, int], dict[str, Any]] = {}
        for forecast in self.forecasts():
            key = forecast["symbol"], forecast["target_close_ms"]
            assert worded.setdefault(key, forecast) == forecast


@contextmanager
def deployment_of(folder: Path, timeframe: str) -> Iterator[Deployment]:
    with (
        sandbox_process("--symbols", "2", "--history", "900", "--timeframe", timeframe) as exchange,
        mosquitto(folder) as broker,
        mosquitto_sub(broker.port, "candlecast/#") as subscriber,
    ):
        yield Deployment(folder, exchange, broker.port, subscriber)


def test_a_forecast_in_flight_at_a_kill_is_not_published_with_other_values(tmp_path: Path) -> None:
    with deployment_of(tmp_path, "1m") as deployment:
        with deployment.running() as first:
            # The candle of before the start is forecast at once; nothing is written down yet.
            deployment.receive(deployment.forecasts)
            first.kill()
        deployment.receive(lambda: deployment.state() == "offline")
        with deployment.running() as second:
            second.wait_ready(MAX_WAIT_S)
            deployment.receive(lambda: deployment.state() == "online")
            assert second.stop() == 0, second.log
        deployment.receive(lambda: deployment.state() == "offline")
        deployment.assert_forecasts_unchanged()


def test_killed_at_any_point_the_daemon_resumes_from_its_history(
    tmp_path: Path, rounds: Callable[[int, int], int]
) -> None:
    draw = random.Random(rounds(5, int(time.time())))
    with deployment_of(tmp_path, "1s") as deployment:
        with deployment.running() as process:
            process.wait_ready(MAX_WAIT_S)
            deployment.receive(lambda: len(deployment.forecasts()) >= 4)
            # A slow machine forecasts before the window is written down.
            deployment.receive(lambda: deployment.written() >= WINDOW)
            process.kill()
        for _ in range(rounds(2, 150)):
            before = len(deployment.forecasts())
            with deployment.running() as process:
                until_s = time.monotonic() + draw.uniform(0.5, 5.0)
                deployment.receive(lambda: time.monotonic() > until_s)  # noqa: B023 - at once
                process.kill()
            deployment.receive(lambda: deployment.state() == "offline")
            assert max(deployment.lost(before).values()) <= 1
            assert "Traceback" not in process.log
        enough, before_start = len(deployment.forecasts()) + 6, len(process.log)
        with deployment.running() as process:
            process.wait_ready(MAX_WAIT_S)
            deployment.receive(lambda: len(deployment.forecasts()) >= enough)
            last_start = process.log[before_start:]
            fetched = sample(process.get("/metrics")[1], FETCHED)
            assert process.stop() == 0, process.log
        deployment.receive(lambda: deployment.state() == "offline")
        assert process.log.count("0 of 2 symbols resume from history") == 1
        assert last_start.count("2 of 2 symbols resume from history") == 1
        assert fetched < WINDOW
        deployment.assert_forecasts_unchanged()
        for symbol in deployment.playback.symbols:
            for open_ms, ohlcv in deployment.recorded(symbol).items():
                assert ohlcv == deployment.playback.candle(symbol, open_ms)


@pytest.mark.may_block("the daemon is a process; what it wrote is looked at between two candles")
async def test_after_a_kill_only_the_missing_candles_are_requested(
    tmp_path: Path,
) -> None:
    playback = second_playback(2, 900)
    promote_drawn(tmp_path, playback)
    port, broker = free_port(), Mosquitto(tmp_path)
    broker.start()
    async with SandboxExchange(playback) as exchange:
        ready = SandboxProcess(
            # The exchange runs in this process.
            process=None,  # type: ignore[arg-type]
            rest_url=exchange.rest_url,
            ws_url=exchange.ws_url,
            timeframe="1s",
            origin_ms=playback.origin_ms,
            slice_rows=playback.slice_rows,
            symbols=list(playback.symbols),
        )
        config = write_config(tmp_path, sections(ready, broker.port, port))
        try:
            with daemon(config, port) as first:
                await asyncio.to_thread(first.wait_ready, MAX_WAIT_S)
                hole_ms = SECOND.floor(time.time() * 1e3) + 2 * SECOND.ms
                exchange.faults.skipped.update((symbol, hole_ms) for symbol in playback.symbols)
                # The REST response that would close the gap before the streamed candles is missing.
                exchange.ban(429, 3_600)
                while await asyncio.to_thread(_newest_ms, tmp_path) <= hole_ms:
                    await asyncio.sleep(0.05)
                first.kill()
            exchange.faults.ban_until_ms = 0
            with daemon(config, port) as second:
                await asyncio.to_thread(second.wait_ready, MAX_WAIT_S)
                metrics = (await asyncio.to_thread(second.get, "/metrics"))[1]
                assert second.process.poll() is None
                await asyncio.to_thread(second.stop)
        finally:
            broker.kill()
    resumed = "2 of 2 symbols resume from history; 2 of them have gaps that REST fills"
    assert resumed in second.log
    assert sample(metrics, FETCHED) < WINDOW / 2
    history = History(tmp_path / "state" / "history.sqlite")
    try:
        for symbol in playback.symbols:
            candles = history.candles(MarketKey.parse("binance", "1s"), symbol, WINDOW)
            assert {c.open_ms: c.ohlcv for c in candles}[hole_ms] == playback.candle(
                symbol, hole_ms
            )
            assert len(candles) == WINDOW
    finally:
        history.close()


def _newest_ms(folder: Path) -> int:
    """Opening of the newest candle that is written down of both symbols."""
    with closing(sqlite3.connect(folder / "state" / "history.sqlite")) as database:
        newest = "SELECT min(t) FROM (SELECT max(open_s) AS t FROM candle GROUP BY symbol)"
        return 1_000 * int(database.execute(newest).fetchone()[0] or 0)
