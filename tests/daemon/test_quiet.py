"""Native notes are hidden, unless something goes wrong that they may explain."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from daemon.quiet import interrupts_kept

CODE = """
import os, sys
from daemon.quiet import native_notes_hidden
from model.errors import CandlecastError
with native_notes_hidden():
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


def test_an_interrupt_that_cannot_be_raised_comes_again() -> None:
    def drop() -> None:
        Fragile()
        time.sleep(10)

    with interrupts_kept(), pytest.raises(KeyboardInterrupt):
        drop()
