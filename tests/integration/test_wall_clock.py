"""Time as the machine tells it is set an hour forward and back, or stands still for seconds."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from daemon.sandbox.tape import Tape
from tests.integration.harness import (
    SECOND,
    daemon,
    predictions,
    promote_drawn,
    sample,
    sections,
    tape_of,
    write_config,
)
from tests.servers import (
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
    """The environment of a process whose wall clock is what the file says."""
    library = next((path for path in LIBRARIES if path.exists()), None)
    if library is None:
        pytest.skip("libfaketime is not installed")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(rc),
        "FAKETIME_NO_CACHE": "1",
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
    tape: Tape
    config: Path


@contextmanager
def surroundings(folder: Path, http_port: int) -> Iterator[Surroundings]:
    """All that a daemon needs: an exchange, a broker, a model, a configuration; and a listener."""
    with (
        sandbox_process("--symbols", "3", "--history", str(HISTORY)) as exchange,
        mosquitto(folder) as broker,
        mosquitto_sub(broker.port, "candlecast/#") as subscriber,
    ):
        tape = tape_of(exchange)
        promote_drawn(folder, tape)
        config = write_config(folder, sections(exchange, broker.port, http_port))
        yield Surroundings(exchange, subscriber, tape, config)


def offset_of(metrics: str) -> float:
    return sample(metrics, "candlecast_exchange_clock_offset_seconds")


def untold(metrics: str) -> float:
    """Candles that were not forecast because a later one came with them, or came first."""
    outcomes = [f'candlecast_predictions_total{{outcome="{o}"}}' for o in ("dropped", "skipped")]
    return sum(sample(metrics, outcome) for outcome in outcomes)


def test_a_jump_of_an_hour_makes_no_duplicate_no_skipped_and_no_false_closed_candle(
    tmp_path: Path,
) -> None:
    http_port, rc = free_port(), tmp_path / "clock"
    set_clock(rc, "+0")
    offsets: list[float] = []
    heard_at: dict[int, float] = {}
    with surroundings(tmp_path, http_port) as (_, subscriber, tape, config):
        messages: list[dict[str, Any]] = []
        with daemon(config, http_port, **faked(rc)) as process:
            process.wait_ready()
            for offset in ("+0", "+3600", "-3600", "+0"):
                set_clock(rc, offset)
                end_s = time.monotonic() + 5
                while time.monotonic() < end_s:
                    for message in subscriber.received():
                        heard_at[len(messages)] = time.time() * 1_000
                        messages.append(message)
                    time.sleep(0.02)
                offsets.append(offset_of(process.get("/metrics")[1]))
            metrics = process.get("/metrics")[1]
            assert process.stop() == 0, process.log
            log = process.log
        messages += subscriber.received()
    assert offsets == pytest.approx([0.0, -3600.0, 3600.0, 0.0], abs=1.0)
    assert "Traceback" not in log

    numbers = defaultdict(list)
    for forecast in predictions(messages):
        symbol, seq = forecast["symbol"], forecast["seq"]
        numbers[symbol].append(seq)
        candle = tape.candle(symbol, forecast["candle_open_ms"])
        # From the final values, after its close, and in time to be of use.
        assert forecast["last_close"] == candle.close
        assert 0 <= forecast["published_ms"] - forecast["candle_close_ms"] < SECOND.ms
    assert len(numbers) == 3
    missing = 0
    for sequence in numbers.values():
        assert len(sequence) > 15
        assert sequence == sorted(set(sequence))
        missing += sequence[-1] - sequence[0] + 1 - len(sequence)
    # A machine that stands still for seconds costs forecasts, each of them counted. A clock that
    # is set costs none: nothing is taken for impossible, no connection for dead.
    assert missing <= untold(metrics)
    for series in ("feed_refused", "feed_reconnects", "feed_silent_streams"):
        assert sample(metrics, f"candlecast_{series}_total") == 0
    for index, at_ms in heard_at.items():
        for forecast in predictions([messages[index]]):
            assert abs(at_ms - forecast["published_ms"]) < 5_000


def test_of_seconds_that_a_process_stood_still_every_candle_is_accounted_for(
    tmp_path: Path,
) -> None:
    http_port = free_port()
    with surroundings(tmp_path, http_port) as (exchange, subscriber, tape, config):
        with daemon(config, http_port) as process:
            process.wait_ready()
            time.sleep(1.5)
            for pid in (process.process.pid, exchange.process.pid):
                os.kill(pid, signal.SIGSTOP)
                time.sleep(2.6)
                os.kill(pid, signal.SIGCONT)
                time.sleep(2.2)
            messages = subscriber.received()
            metrics = process.get("/metrics")[1]
            assert process.stop() == 0, process.log
        assert "Traceback" not in process.log

    told = {(forecast["symbol"], forecast["seq"]): forecast for forecast in predictions(messages)}
    for (symbol, _), forecast in told.items():
        candle = tape.candle(symbol, forecast["candle_open_ms"])
        assert forecast["last_close"] == candle.close
        assert 0 <= forecast["published_ms"] - forecast["candle_close_ms"] < SECOND.ms
    missing = 0
    for symbol in exchange.symbols:
        sequence = [seq for name, seq in told if name == symbol]
        missing += sequence[-1] - sequence[0] + 1 - len(sequence)
    assert missing >= 3
    assert missing <= untold(metrics)
