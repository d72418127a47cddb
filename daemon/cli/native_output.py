"""Libraries that get in between: they write notes to stderr, and swallow a Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from model.core.errors import CandlecastError

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_STDERR: Final = 2
_AGAIN_S: Final = 0.02


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """Raise a Ctrl-C again that came where nothing can be, as in JAX's garbage collection."""
    before = sys.unraisablehook

    def again(lost: UnraisableHookArgs) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            # Not yet: here nothing can be raised either.
            threading.Timer(_AGAIN_S, os.kill, (os.getpid(), signal.SIGINT)).start()
        else:
            before(lost)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def native_notes_hidden() -> Iterator[None]:
    """Hide what C and C++ write to stderr; Python's own stderr goes on as before.

    When the block fails unexpectedly, the notes are shown after all: they may say why. To be
    entered before logging is set up, since a handler keeps the stream it was made with.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as notes:
        terminal = os.dup(_STDERR)
        python = os.fdopen(os.dup(terminal), "w", buffering=1, encoding="utf-8", closefd=False)
        before, sys.stderr = sys.stderr, python
        os.dup2(notes.fileno(), _STDERR)
        try:
            yield
        except CandlecastError:
            raise
        except Exception:
            notes.seek(0)
            os.write(terminal, notes.read())
            raise
        finally:
            os.dup2(terminal, _STDERR)
            os.close(terminal)
            sys.stderr = before
