"""Hide what native libraries write to stderr, and restore interrupts that they discard."""

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
_RESEND_DELAY_S: Final = 0.02


@contextmanager
def lost_interrupts_resent() -> Iterator[None]:
    """Send a SIGINT again if its KeyboardInterrupt could not be raised.

    This happens in callbacks and finalizers, such as JAX's during a garbage collection.
    """
    previous_hook = sys.unraisablehook

    def resend(unraisable: UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            # Delayed, because an interrupt inside this hook cannot be raised either.
            threading.Timer(_RESEND_DELAY_S, os.kill, (os.getpid(), signal.SIGINT)).start()
        else:
            previous_hook(unraisable)

    sys.unraisablehook = resend
    try:
        yield
    finally:
        sys.unraisablehook = previous_hook


@contextmanager
def native_stderr_hidden() -> Iterator[None]:
    """Hide what native code writes to stderr; Python's own stderr still works.

    If the block fails unexpectedly, the hidden output is printed, since it may explain the
    failure. Enter this before logging is set up, because a log handler keeps its stream.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as hidden:
        terminal = os.dup(_STDERR)
        python = os.fdopen(os.dup(terminal), "w", buffering=1, encoding="utf-8", closefd=False)
        previous_stderr, sys.stderr = sys.stderr, python
        os.dup2(hidden.fileno(), _STDERR)
        try:
            yield
        except CandlecastError:
            raise
        except Exception:
            hidden.seek(0)
            os.write(terminal, hidden.read())
            raise
        finally:
            os.dup2(terminal, _STDERR)
            os.close(terminal)
            sys.stderr = previous_stderr
