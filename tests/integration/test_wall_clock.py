"""Set the wall clock an hour forward and back, and suspend the process for seconds."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from daemon.sandbox.recording import Playback
from tests.integration.harness import (
    SECOND,
    candles_without_forecast,
    counted_without_forecast,
    daemon,
    playback_of,
    predictions,
    promote_drawn,
    sample,
    sections,
    write_config,
)
from tests.support.servers import (
    SandboxProcess,
    Subscriber,
    free_port,
    mosquitto,
    mosquitto_sub,
    sandbox_process,
)

HISTORY = 900
LIBRARIES = [
    Path("/usr/lib") / folder / "faketime" / "libfaketimeMT.so.1"
    for folder in ("x86_64-linux-gnu", "aarch64-linux-gnu", "")
]


def faked(rc: Path) -> dict[str, str]:
    """The environment of a process whose wall clock is set by the file."""
    library = next((path for path in LIBRARIES if path.exists()), None)
    if library is None:
        pytest.skip("libfaketime is not installed")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(rc),
        # Read once a second: without a cache the file is read at every look at the clock, which
        # takes more time than everything else that the daemon does.
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }


def set_clock(rc: Path, offset: str) -> None:
    """Set the process's wall clock in one stroke."""
    fresh = rc.with_suffix(".fresh")
    fresh.write_text(f"{offset}\n")
    fresh.rename(rc)


class Surroundings(NamedTuple):
    """What a daemon is run among."""

    exchange: SandboxProcess
    subscriber: Subscriber
    playback: Playback
    config: Path


@contextmanager
def surroundings(folder: Path, http_port: int) -> Iterator[Surroundings]:
    """All that a daemon needs: an exchange, a broker, a model, a configuration; and a listener."""
    with (
        sandbox_process("--symbols", "3", "--history", str(HISTORY)) as exchange,
        mosquitto(folder) as broker,
        mosquitto_sub(broker.port, "candlecast/#") as subscriber,
    ):
        playback = playback_of(exchange)
        promote_drawn(folder, playback)
        config = write_config(folder, sections(exchange, broker.port, http_port))
        yield Surroundings(exchange, subscriber, playback, config)


def offset_of(metrics: str) -> float:
    return sample(metrics, "candlecast_exchange_clock_offset_seconds")


def fewest(messages: list[dict[str, Any]], symbols: Iterable[str]) -> int:
    """The least number of candles with a forecast of any symbol."""
    published = {(forecast["symbol"], forecast["seq"]) for forecast in predictions(messages)}
    numbers = Counter(symbol for symbol, _ in published)
    return min(numbers[symbol] for symbol in symbols)


def test_a_jump_of_an_hour_makes_no_duplicate_no_skipped_and_no_false_closed_candle(
    tmp_path: Path,
) -> None:
    http_port, rc = free_port(), tmp_path / "clock"
    set_clock(rc, "+0")
    received_at: dict[int, float] = {}
    with surroundings(tmp_path, http_port) as (_, subscriber, playback, config):
        messages: list[dict[str, Any]] = []
        with daemon(config, http_port, **faked(rc)) as process:
            process.wait_ready()
            for offset in ("+0", "+3600", "-3600", "+0"):
                set_clock(rc, offset)
                expected = pytest.approx(-float(offset), abs=1.0)
                before = fewest(messages, playback.symbols)

                def done(before: int = before, expected: Any = expected) -> bool:
                    for message in subscriber.received():
                        received_at[len(messages)] = time.time() * 1_000
                        messages.append(message)
                    enough = fewest(messages, playback.symbols) >= before + 5
                    return enough and offset_of(process.get("/metrics")[1]) == expected

                process.until(done)
            metrics = process.get("/metrics")[1]
            assert process.stop() == 0, process.log
            log = process.log
    assert "Traceback" not in log

    numbers = defaultdict(list)
    for forecast in predictions(messages):
        symbol, seq = forecast["symbol"], forecast["seq"]
        numbers[symbol].append(seq)
        candle = playback.candle(symbol, forecast["candle_open_ms"])
        # From the final values, after its close, and in time to be of use.
        assert forecast["last_close"] == candle.close
        assert 0 <= forecast["published_ms"] - forecast["candle_close_ms"] < SECOND.ms
    assert len(numbers) == 3
    for sequence in numbers.values():
        assert len(sequence) > 15
        assert sequence == sorted(set(sequence))
    # A machine stalled for seconds misses forecasts, each of them counted. A clock that
    # is set causes none: nothing counts as impossible, no connection as dead.
    missing = candles_without_forecast(predictions(messages))
    assert missing <= counted_without_forecast(metrics)
    for series in ("feed_refused", "feed_reconnects", "feed_silent_streams"):
        assert sample(metrics, f"candlecast_{series}_total") == 0
    for index, at_ms in received_at.items():
        for forecast in predictions([messages[index]]):
            assert abs(at_ms - forecast["published_ms"]) < 60_000


def test_every_candle_of_a_suspended_process_is_accounted_for(
    tmp_path: Path,
) -> None:
    http_port = free_port()
    with surroundings(tmp_path, http_port) as (exchange, subscriber, playback, config):
        with daemon(config, http_port) as process:
            process.wait_ready()
            messages: list[dict[str, Any]] = []

            def forecast_since(since_ms: float) -> bool:
                messages.extend(subscriber.received())
                published = [f for f in predictions(messages) if f["candle_open_ms"] >= since_ms]
                return {forecast["symbol"] for forecast in published} == set(exchange.symbols)

            process.until(lambda: forecast_since(0.0))
            for pid in (process.process.pid, exchange.process.pid):
                os.kill(pid, signal.SIGSTOP)
                time.sleep(2.6)
                os.kill(pid, signal.SIGCONT)
                continued_ms = time.time() * 1_000
                process.until(partial(forecast_since, continued_ms))
            metrics = process.get("/metrics")[1]
            assert process.stop() == 0, process.log
        assert "Traceback" not in process.log

    published = {
        (forecast["symbol"], forecast["seq"]): forecast for forecast in predictions(messages)
    }
    for (symbol, _), forecast in published.items():
        candle = playback.candle(symbol, forecast["candle_open_ms"])
        assert forecast["last_close"] == candle.close
        assert 0 <= forecast["published_ms"] - forecast["candle_close_ms"] < SECOND.ms
    missing = candles_without_forecast(predictions(messages))
    assert missing >= 3
    assert missing <= counted_without_forecast(metrics)
