"""Keys of the live table: what each does is decided here, without a terminal."""

from __future__ import annotations

import codecs
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from daemon.watch.board import SORTS

if TYPE_CHECKING:
    import asyncio

_ESCAPES: Final = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1b[H": "home",
    "\x1b[F": "end",
}
_NAMES: Final = {"\x1b": "escape", "\r": "enter", "\n": "enter", "\x7f": "delete", "\b": "delete"}
_STEPS: Final = {"up": -1, "down": 1, "page up": -10, "page down": 10, "home": -(10**6)}
_LONGEST: Final = 40
_READ: Final = 1024


def keys_of(text: str) -> Iterator[str]:
    r"""Name the keys in what a terminal sent.

    >>> list(keys_of("/b\x1b[A\x1b"))
    ['/', 'b', 'up', 'escape']
    """
    while text:
        size = next((len(escape) for escape in _ESCAPES if text.startswith(escape)), 1)
        key, text = text[:size], text[size:]
        if size > 1:
            yield _ESCAPES[key]
        elif key in _NAMES:
            yield _NAMES[key]
        elif key.isprintable():
            yield key


class TableView:
    """What of a board is looked at.

    Attributes:
        pattern: rows whose name holds it.
        sort: one of `daemon.watch.board.SORTS`.
        first: place of the first row that is shown.
        typing: whether keys go into the pattern.
    """

    def __init__(self) -> None:
        """Look at everything, from the top."""
        self.pattern = ""
        self.sort = "symbol"
        self.first = 0
        self.typing = False

    def press(self, key: str) -> bool:
        """Take in one key; whether it means to quit."""
        if self.typing:
            self._type(key)
        elif key in _STEPS:
            self.first = max(0, self.first + _STEPS[key])
        elif key == "end":
            self.first = 10**6
        elif key == "/":
            self.typing = True
        elif key == "escape":
            self.pattern, self.first = "", 0
        elif key == "s":
            names = list(SORTS)
            self.sort = names[(names.index(self.sort) + 1) % len(names)]
            self.first = 0
        return key == "q" and not self.typing

    def _type(self, key: str) -> None:
        if key == "escape":
            self.pattern, self.typing = "", False
        elif key == "enter":
            self.typing = False
        elif key == "delete":
            self.pattern = self.pattern[:-1]
        elif len(key) == 1 and len(self.pattern) < _LONGEST:
            self.pattern += key
            self.first = 0

    def visible(self, rows: int, room: int) -> slice:
        """Which of ``rows`` are shown where there is ``room`` for so many."""
        self.first = min(self.first, max(0, rows - room))
        return slice(self.first, self.first + room)


@contextmanager
def pressed(loop: asyncio.AbstractEventLoop, on_key: Callable[[str], None]) -> Iterator[None]:
    """Tell of every key that is pressed; nothing happens where no terminal is at hand."""
    if not sys.stdin.isatty():
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read() -> None:
        for key in keys_of(decoder.decode(os.read(terminal, _READ))):
            on_key(key)

    # Not raw: Ctrl-C stays a signal.
    tty.setcbreak(terminal)
    loop.add_reader(terminal, read)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
