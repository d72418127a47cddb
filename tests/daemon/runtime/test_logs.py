"""Records reach stderr in their format, and no failure of stderr stops the daemon."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.runtime.logs import RateLimit, is_journal, logging_to, mark
from tests.support.manual_clock import ManualClock

log = logging.getLogger("candlecast.trial")


@contextmanager
def logged(
    style: str = "text", level: str = "INFO", now: ManualClock | None = None
) -> Iterator[list[str]]:
    """Lines as they were written; complete once the block is left."""
    stream = io.StringIO()
    lines: list[str] = []
    with logging_to(stream, level, style, {}, (now or ManualClock(0)).monotonic):
        yield lines
    lines += stream.getvalue().splitlines()


def test_lines_have_time_in_utc_level_logger_and_message() -> None:
    with logged() as lines:
        log.warning("lost %s", "it", extra={"fields": {"symbol": "A/B", "seq": 7}})
        log.debug("not shown")
    (line,) = lines
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING candlecast\.trial: lost it "
        r"\[symbol=A/B seq=7\]",
        line,
    )


def test_objects_carry_fields_and_tracebacks_in_one_line() -> None:
    with logged("json") as lines:
        log.info('said "%s"', "line\nbreak", extra={"fields": {"symbol": "A/B", "seq": 7}})
        try:
            os.stat("/nowhere")  # noqa: PTH116 - any error does
        except OSError:
            log.exception("failed")
    first, second = (json.loads(line) for line in lines)
    assert first["message"] == 'said "line\nbreak"'
    assert (first["level"], first["logger"]) == ("INFO", "candlecast.trial")
    assert (first["symbol"], first["seq"]) == ("A/B", 7)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    assert second["traceback"].startswith("Traceback (most recent call last):")
    assert "FileNotFoundError" in second["traceback"]


def test_repeated_records_are_counted() -> None:
    now = ManualClock(0)
    with logged(now=now) as lines:
        for number in range(25):
            log.warning("failed %d", number)
        log.warning("something else")
        now.now_s = 60.0
        log.warning("failed %d", 25)
        log.warning("failed %d", 26)
    shown = [line.partition(": ")[2] for line in lines]
    # The last two come from lines of the program of their own.
    assert shown == [f"failed {n}" for n in range(10)] + [
        "something else",
        "failed 25",
        "failed 26",
    ]
    now.now_s = 0.0
    with logged(now=now) as lines:
        for number in range(25):
            now.now_s = 60.0 if number == 24 else 0.0
            log.warning("failed %d", number)
    assert lines[-1].endswith("failed 24 (and 14 more like it before)")


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 3)), max_size=200))
def test_at_most_a_burst_passes_in_a_window(
    attempts: list[tuple[float, int]],
) -> None:
    limit, now_s = RateLimit(burst=3, window_s=20.0), 0.0
    shown: dict[int, list[float]] = {}
    total: dict[int, int] = {}
    left_out: dict[int, int] = {}
    for pause_s, line in attempts:
        now_s += pause_s
        total[line] = total.get(line, 0) + 1
        admitted = limit.admit(line, now_s)
        if admitted is not None:
            shown.setdefault(line, []).append(now_s)
            left_out[line] = left_out.get(line, 0) + admitted
    for line, times in shown.items():
        # Two windows may touch: six within any 20 s, three from the beginning of one.
        for start in range(len(times) - 6):
            assert times[start + 6] - times[start] >= 20.0
        assert len(times) + left_out[line] <= total[line]


def test_memory_use_is_bounded() -> None:
    limit = RateLimit()
    for line in range(5_000):
        assert limit.admit(line, 0.0) == 0
    assert len(limit._windows) == 1_000  # noqa: SLF001 - the bound is the point


def test_arguments_are_formatted_at_once() -> None:
    changing = [1]
    with logged() as lines:
        log.info("%s", changing)
        changing.append(2)
    assert lines[0].endswith(": [1]")


def test_the_journal_is_recognised_by_its_stream(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w+") as stream:
        status = os.fstat(stream.fileno())
        journal = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert is_journal(stream, journal)
        assert mark(stream, logging.ERROR, journal) == "<3>"
        assert mark(stream, logging.ERROR, {}) == ""
        assert not is_journal(stream, {"JOURNAL_STREAM": "1:2"})
        assert not is_journal(io.StringIO(), journal)
        with logging_to(stream, "INFO", "text", journal, ManualClock(0).monotonic):
            log.error("first\nsecond", extra={"fields": {"seq": 7}})
            log.info("fine")
        with logging_to(stream, "INFO", "json", journal, ManualClock(0).monotonic):
            log.warning("object")
        stream.seek(0)
        lines = stream.read().splitlines()
    assert lines[:3] == [
        "<3>candlecast.trial: first [seq=7]",
        "<3>second",
        "<6>candlecast.trial: fine",
    ]
    assert lines[3].startswith('<4>{"time":')


def test_nothing_is_left_behind() -> None:
    root = logging.getLogger()
    before = root.level, list(root.handlers), threading.active_count()
    with logged("json", "DEBUG") as lines:
        log.debug("ours")
        logging.getLogger("ccxt.base.exchange").debug("theirs, with all that was sent")
        logging.getLogger("ccxt.base.exchange").info("worth knowing")
    assert [json.loads(line)["message"] for line in lines] == ["ours", "worth knowing"]
    assert (root.level, list(root.handlers), threading.active_count()) == before


SLOW = """\
import logging, sys, time
from daemon.runtime.logs import logging_to
with logging_to(sys.stderr, "DEBUG", "text", {}, time.monotonic):
    log = logging.getLogger("candlecast")
    started = time.monotonic()
    longest = 0.0
    for number in range(30_000):
        before = time.monotonic()
        log.debug("x" * 200)
        longest = max(longest, time.monotonic() - before)
    print(time.monotonic() - started, flush=True)
print("ended", flush=True)
"""


def test_a_blocked_stderr_stops_nothing() -> None:
    started_s = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        # 6 MB of log for a pipe that takes 64 KiB.
        assert float(process.stdout.readline()) < 30.0
        assert process.stdout.readline() == "ended\n"
        assert process.wait(20) == 0
    assert time.monotonic() - started_s < 60.0


def test_dropped_records_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    class Slow(io.StringIO):
        def write(self, text: str) -> int:
            gate.wait(10)
            return super().write(text)

    monkeypatch.setattr("daemon.runtime.logs._QUEUE_SIZE", 5)
    stream = Slow()
    with logging_to(stream, "DEBUG", "text", {}, ManualClock(0).monotonic):
        for number in range(20):
            log.debug("%d", number)
        gate.set()
        while "dropped" not in stream.getvalue():
            time.sleep(0.01)
    dropped = re.findall(r"(\d+) log records were dropped", stream.getvalue())
    shown = re.findall(r"candlecast\.trial: \d+", stream.getvalue())
    assert sum(map(int, dropped)) + len(shown) == 20
    assert len(shown) in {5, 6}
