"""Test `candlecast demo` in an empty environment on a terminal."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.servers import MAX_WAIT_S
from tests.support.terminal import terminal

DEMO = [sys.executable, "-m", "daemon", "demo"]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demo puts what it needs."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_forecasts_are_live_until_ctrl_c(temporary: Path) -> None:
    with terminal(*DEMO) as shown:
        shown.until("MQTT broker on")
        shown.until("Training Complete", within_s=4 * MAX_WAIT_S)
        shown.until("Status page: http://127")
        shown.until(r"BTCJAN/USDT .*[+-]\d+\.\d+% [✓✗]")
        shown.type("\x03")
        assert shown.end() == 0
        assert "demo is offline" in shown.plain()
        assert "Traceback" not in shown.seen
        assert shown.attributes() == shown.before
    assert list(temporary.iterdir()) == []


def test_ctrl_c_on_the_way_there_is_quick_and_quiet(temporary: Path) -> None:
    with terminal(*DEMO) as shown:
        shown.until("BTCJAN/USDT")
        shown.type("\x03")
        shown.type("\x03")
        assert shown.end() == 0
        assert shown.plain().count("interrupted") <= 1
        # It does not wait for the training to end.
        assert "Training Complete" not in shown.plain()
        assert "Traceback" not in shown.seen
    assert list(temporary.iterdir()) == []


def test_a_terminal_that_is_closed_leaves_nothing_behind(temporary: Path) -> None:
    with subprocess.Popen([*DEMO, "--headless"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "BTCJAN/USDT" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGHUP)
        assert "Training Complete" not in process.stdout.read()
        assert process.wait(MAX_WAIT_S) == 0
    assert list(temporary.iterdir()) == []
