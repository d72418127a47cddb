"""Native output on stderr is hidden unless an unexpected failure occurs."""

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


def test_native_notes_are_hidden_and_python_output_is_not() -> None:
    assert stderr_of("pass").splitlines() == ["from python", "native again", "python again"]


@pytest.mark.parametrize(
    ("end", "shown"),
    [("raise CandlecastError('x')", False), ("1 / 0", True), ("raise KeyboardInterrupt", False)],
)
def test_notes_are_shown_after_an_unexpected_failure(end: str, shown: bool) -> None:  # noqa: FBT001
    assert ("native note" in stderr_of(end)) is shown


class InterruptedFinalizer:
    """Raises KeyboardInterrupt where no exception can propagate."""

    def __del__(self) -> None:
        raise KeyboardInterrupt


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Restore Python's SIGINT handler, which pytest-xdist disables in its workers."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_that_cannot_be_raised_is_repeated() -> None:
    def drop() -> None:
        InterruptedFinalizer()
        time.sleep(10)

    with lost_interrupts_resent(), pytest.raises(KeyboardInterrupt):
        drop()
