"""Somebody sets the machine's clock an hour forward and back; forecasts do not notice."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import (
    SECOND,
    daemon,
    predictions,
    promote_drawn,
    sections,
    tape_of,
    write_config,
)
from tests.servers import free_port, mosquitto, mosquitto_sub, sandbox_process

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


def offset_of(metrics: str) -> float:
    name = "candlecast_exchange_clock_offset_seconds "
    return float(next(x for x in metrics.splitlines() if x.startswith(name)).split()[1])


def test_a_jump_of_an_hour_makes_no_duplicate_no_skipped_and_no_false_closed_candle(
    tmp_path: Path,
) -> None:
    http_port, rc = free_port(), tmp_path / "clock"
    set_clock(rc, "+0")
    offsets: list[float] = []
    heard_at: dict[int, float] = {}
    with (
        sandbox_process("--symbols", "3", "--history", str(HISTORY)) as exchange,
        mosquitto(tmp_path) as broker,
        mosquitto_sub(broker.port, "candlecast/#") as subscriber,
    ):
        tape = tape_of(exchange)
        promote_drawn(tmp_path, tape)
        config = write_config(tmp_path, sections(exchange, broker.port, http_port))
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
    for sequence in numbers.values():
        assert len(sequence) > 15
        assert sequence == list(range(sequence[0], sequence[0] + len(sequence)))
    for index, at_ms in heard_at.items():
        for forecast in predictions([messages[index]]):
            assert abs(at_ms - forecast["published_ms"]) < 5_000
