"""Native libraries write their start-up notes to stderr, past every setting of theirs."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from model.errors import CandlecastError

_STDERR: Final = 2


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
