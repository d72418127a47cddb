"""SIGKILL of the real daemon: at most the candle in flight is lost, and nothing is said twice."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daemon.sandbox.tape import build_tape
from model.candle import Ohlcv, Timeframe
from model.features import Indicators
from model.history import History
from tests.integration.harness import Daemon, daemon, sample, sections, write_config
from tests.models import promote
from tests.servers import (
    SandboxProcess,
    Subscriber,
    free_port,
    mosquitto,
    mosquitto_sub,
    sandbox_process,
)

FETCHED = "candlecast_feed_backfill_candles_total"
WINDOW = Indicators().warmup + 60


class Place:
    """An exchange and a broker that stay, a daemon that is killed, and all that was heard of it."""

    def __init__(
        self, folder: Path, exchange: SandboxProcess, mqtt_port: int, heard: Subscriber
    ) -> None:
        self.timeframe = Timeframe.parse(exchange.timeframe)
        self.http_port = free_port()
        self.config = write_config(folder, sections(exchange, mqtt_port, self.http_port))
        self.tape = build_tape(
            len(exchange.symbols),
            self.timeframe,
            exchange.origin_ms,
            slice_rows=exchange.slice_rows,
        )
        self.messages: list[dict[str, Any]] = []
        self._heard = heard
        until_ms = exchange.origin_ms + WINDOW * self.timeframe.ms
        promote(
            folder / "state" / "registry",
            {s: self.tape.history(s, exchange.origin_ms, until_ms)[1] for s in self.tape.symbols},
            timeframe=exchange.timeframe,
            indicators=Indicators(),
            lookback=60,
        )

    @contextmanager
    def running(self) -> Iterator[Daemon]:
        with daemon(self.config, self.http_port) as process:
            yield process

    def hear(self, enough: Callable[[], object], within_s: float = 60.0) -> None:
        deadline = time.monotonic() + within_s
        while not enough():
            assert time.monotonic() < deadline, self.messages[-20:]
            self.messages += self._heard.received()
            time.sleep(0.001)

    def forecasts(self) -> list[dict[str, Any]]:
        return [
            json.loads(m["payload"]) for m in self.messages if m["topic"].endswith("/prediction")
        ]

    def state(self) -> str:
        """What the status topic said last."""
        said = [m["payload"] for m in self.messages if "/status/" in m["topic"]]
        return str(json.loads(said[-1])["state"]) if said else ""

    def recorded(self, symbol: str) -> dict[int, Ohlcv]:
        """What the history holds, by opening time."""
        history = History(self.config.parent / "state" / "history.sqlite")
        try:
            candles = history.candles("binance", symbol, self.timeframe.text, 10_000)
        finally:
            history.close()
        return {candle.open_ms: candle.ohlcv for candle in candles}

    def lost(self, since: int) -> dict[str, int]:
        """How many candles a forecast was heard of that are not written down, by symbol."""
        heard = {(f["symbol"], f["candle_open_ms"]) for f in self.forecasts()[since:]}
        known = {s: self.recorded(s) for s in self.tape.symbols}
        return {s: sum(o == s and at not in known[s] for o, at in heard) for s in known}

    def one_wording(self) -> None:
        """Retained forecasts may be heard again, but in the same words."""
        worded: dict[tuple[str, int], dict[str, Any]] = {}
        for forecast in self.forecasts():
            key = forecast["symbol"], forecast["target_close_ms"]
            assert worded.setdefault(key, forecast) == forecast


@contextmanager
def place_of(folder: Path, timeframe: str) -> Iterator[Place]:
    with (
        sandbox_process("--symbols", "2", "--history", "900", "--timeframe", timeframe) as exchange,
        mosquitto(folder) as broker,
        mosquitto_sub(broker.port, "candlecast/#") as heard,
    ):
        yield Place(folder, exchange, broker.port, heard)


def test_a_forecast_on_its_way_when_killed_is_not_published_in_other_words(tmp_path: Path) -> None:
    with place_of(tmp_path, "1m") as place:
        with place.running() as first:
            # The candle of before the start is forecast at once; nothing is written down yet.
            place.hear(place.forecasts)
            first.kill()
        place.hear(lambda: place.state() == "offline")
        with place.running() as second:
            second.wait_ready()
            place.hear(lambda: place.state() == "online")
            assert second.stop() == 0, second.log
        place.hear(lambda: place.state() == "offline")
        place.one_wording()


def test_killed_at_any_point_it_goes_on_from_what_is_written_down(
    tmp_path: Path, rounds: Callable[[int, int], int]
) -> None:
    draw = random.Random(rounds(5, int(time.time())))
    with place_of(tmp_path, "1s") as place:
        with place.running() as process:
            process.wait_ready()
            place.hear(lambda: len(place.forecasts()) >= 4)
            process.kill()
        for _ in range(rounds(2, 150)):
            before = len(place.forecasts())
            with place.running() as process:
                until_s = time.monotonic() + draw.uniform(0.5, 5.0)
                place.hear(lambda: time.monotonic() > until_s)  # noqa: B023 - at once
                process.kill()
            place.hear(lambda: place.state() == "offline")
            assert max(place.lost(before).values()) <= 1
            assert "Traceback" not in process.log
        enough = len(place.forecasts()) + 6
        with place.running() as process:
            process.wait_ready()
            place.hear(lambda: len(place.forecasts()) >= enough)
            fetched = sample(process.get("/metrics")[1], FETCHED)
            assert process.stop() == 0, process.log
        place.hear(lambda: place.state() == "offline")
        assert process.log.count("0 of 2 symbols go on from history") == 1
        assert fetched < WINDOW
        place.one_wording()
        for symbol in place.tape.symbols:
            for open_ms, ohlcv in place.recorded(symbol).items():
                assert ohlcv == place.tape.candle(symbol, open_ms)
