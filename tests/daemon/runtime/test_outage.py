"""An outage is logged once when it begins and once when it ends."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.runtime.outage import Outage

NAME = "candlecast.test"


def test_each_change_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", NAME)
    outage = Outage(logging.getLogger(NAME))
    outage.end("works")
    assert not caplog.records
    for attempt in range(3):
        outage.begin("attempt %d failed", attempt)
    assert outage.ongoing
    outage.end("works after %d", 3)
    outage.end("works after %d", 4)
    outage.begin("attempt %d failed", 9)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "attempt 0 failed"),
        ("INFO", "works after 3"),
        ("WARNING", "attempt 9 failed"),
    ]
    # The rate limit of the log distinguishes log calls by their place in the code.
    assert {record.filename for record in caplog.records} == {"test_outage.py"}


@given(st.lists(st.booleans()))
def test_lines_alternate_after_any_events(failures: list[bool]) -> None:
    lines: list[tuple[str, int]] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append((record.levelname, int(record.getMessage())))

    logger, handler = logging.getLogger(NAME), Lines()
    logger.setLevel("INFO")
    logger.addHandler(handler)
    outage = Outage(logger)
    for number, failed in enumerate(failures):
        (outage.begin if failed else outage.end)("%d", number)
        assert outage.ongoing is failed
    logger.removeHandler(handler)
    before = [False, *failures]
    assert lines == [
        ("WARNING" if failed else "INFO", number)
        for number, failed in enumerate(failures)
        if failed != before[number]
    ]
