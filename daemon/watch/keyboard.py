"""Read keys from the terminal and filter, sort and scroll the live table with them."""

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

_ESCAPE_SEQUENCES: Final = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1b[H": "home",
    "\x1b[F": "end",
}
_KEY_NAMES: Final = {
    "\x1b": "escape",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "delete",
    "\b": "delete",
}
_SCROLL_ROWS: Final = {"up": -1, "down": 1, "page up": -10, "page down": 10, "home": -(10**6)}
_MAX_PATTERN_CHARS: Final = 40
_READ_BYTES: Final = 1024


def parse_keys(text: str) -> Iterator[str]:
    r"""Yield the names of the keys in a terminal's input.

    >>> list(parse_keys("/b\x1b[A\x1b"))
    ['/', 'b', 'up', 'escape']
    """
    while text:
        size = next((len(escape) for escape in _ESCAPE_SEQUENCES if text.startswith(escape)), 1)
        key, text = text[:size], text[size:]
        if size > 1:
            yield _ESCAPE_SEQUENCES[key]
        elif key in _KEY_NAMES:
            yield _KEY_NAMES[key]
        elif key.isprintable():
            yield key


class TableView:
    """Which rows of a board are shown, and in which order.

    Attributes:
        pattern: the shown rows contain it in their name.
        sort: one of `daemon.watch.board.SORTS`.
        first: index of the first row that is shown.
        typing: whether keys are added to the pattern.
    """

    def __init__(self) -> None:
        """Show all rows from the top."""
        self.pattern = ""
        self.sort = "symbol"
        self.first = 0
        self.typing = False

    def press(self, key: str) -> bool:
        """Handle one key; returns whether it means to quit."""
        if self.typing:
            self._edit_pattern(key)
        elif key in _SCROLL_ROWS:
            self.first = max(0, self.first + _SCROLL_ROWS[key])
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

    def _edit_pattern(self, key: str) -> None:
        if key == "escape":
            self.pattern, self.typing = "", False
        elif key == "enter":
            self.typing = False
        elif key == "delete":
            self.pattern = self.pattern[:-1]
        elif len(key) == 1 and len(self.pattern) < _MAX_PATTERN_CHARS:
            self.pattern += key
            self.first = 0

    def visible(self, rows: int, height: int) -> slice:
        """Return which of ``rows`` are shown on ``height`` lines."""
        self.first = min(self.first, max(0, rows - height))
        return slice(self.first, self.first + height)


@contextmanager
def read_keys(loop: asyncio.AbstractEventLoop, on_key: Callable[[str], None]) -> Iterator[None]:
    """Call ``on_key`` for every key that is pressed; without a terminal there are none."""
    if not sys.stdin.isatty():
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read() -> None:
        for key in parse_keys(decoder.decode(os.read(terminal, _READ_BYTES))):
            on_key(key)

    # Not raw mode: Ctrl-C has to stay a signal.
    tty.setcbreak(terminal)
    loop.add_reader(terminal, read)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
