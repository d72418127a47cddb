"""Run a program on a pseudo-terminal and read its screen."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.servers import MAX_WAIT_S, program


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, command: list[str], kind: str) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 120))
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.seen = ""
        # setsid makes it the controlling terminal, so that Ctrl-C is a signal.
        self.process = subprocess.Popen(
            [program("setsid"), "--ctty", "--wait", *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES"}}
            | {"TERM": kind},
        )

    def until(self, pattern: str, within_s: float = MAX_WAIT_S) -> None:
        """Read until what is shown, colours left out, matches; forget what came before."""
        deadline = time.monotonic() + within_s
        while not (found := re.search(pattern, self.plain())):
            assert time.monotonic() < deadline, f"never saw {pattern!r} in:\n{self.plain()}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self.seen += os.read(self._ours, 65_536).decode(errors="replace")
        self.seen = self.plain()[found.end() :]

    def plain(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.seen)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def end(self) -> int:
        """Its exit code, while what it still says is read."""
        deadline = time.monotonic() + MAX_WAIT_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.plain()
            if select.select([self._ours], [], [], 0.1)[0]:
                self.seen += os.read(self._ours, 65_536).decode(errors="replace")
        return self.process.wait()

    def attributes(self) -> list[Any]:
        return termios.tcgetattr(self._theirs)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(MAX_WAIT_S)
        os.close(self._ours)
        os.close(self._theirs)


@contextmanager
def terminal(*command: str, kind: str = "xterm-256color") -> Iterator[Terminal]:
    made = Terminal([*command], kind)
    try:
        yield made
    finally:
        made.close()
