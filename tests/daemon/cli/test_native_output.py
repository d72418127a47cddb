"""Native notes are hidden, unless something goes wrong that they may explain."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from daemon.cli.native_output import lost_interrupts_resent

CODE = """
import os, sys
from daemon.cli.native_output import native_stderr_hidden
from model.core.errors import CandlecastError
with native_stderr_hidden():
    os.write(2, b'native note\\n')
    print('from python', file=sys.stderr)
    {end}
os.write(2, b'native again\\n')
print('python again', file=sys.stderr)
"""


def stderr_of(end: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", CODE.format(end=end)], capture_output=True, text=True, check=False
    ).stderr


def test_notes_are_hidden_and_python_is_not() -> None:
    assert stderr_of("pass").splitlines() == ["from python", "native again", "python again"]


@pytest.mark.parametrize(
    ("end", "shown"),
    [("raise CandlecastError('x')", False), ("1 / 0", True), ("raise KeyboardInterrupt", False)],
)
def test_notes_are_shown_when_nobody_expected_the_failure(end: str, shown: bool) -> None:  # noqa: FBT001
    assert ("native note" in stderr_of(end)) is shown


class Fragile:
    """Is interrupted just where nothing can be raised."""

    def __del__(self) -> None:
        raise KeyboardInterrupt


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C counts also in a worker, which leaves it to whoever runs the workers."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_that_cannot_be_raised_comes_again() -> None:
    def drop() -> None:
        Fragile()
        time.sleep(10)

    with lost_interrupts_resent(), pytest.raises(KeyboardInterrupt):
        drop()
