"""Logging that never stops the daemon: a bounded queue, a thread that writes, a limit.

What the program logs is a plain line on a terminal or in a file, the same with systemd's priority
(`sd-daemon(3)`) where stderr is the journal, or one JSON object per line on request. Fields that a
record carries (`extra={"fields": …}`) are part of the object, and stand behind the line elsewhere.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import IO, Any, Final

import orjson

_QUEUE: Final = 10_000
"""Records that wait for a slow stderr; further ones are dropped, counted and told of."""

_BURST: Final = 10
_WINDOW_S: Final = 60.0
"""So many records of one line of the program in so many seconds; the rest is counted."""

_KNOWN: Final = 1_000
"""Lines of the program that are remembered; the one longest silent is forgotten first."""

_OWN: Final = "candlecast"
_FAREWELL_S: Final = 2.0
_PRIORITIES: Final = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


class RateLimit:
    """Decides which records of a line of the program that repeats itself are shown."""

    def __init__(self, burst: int = _BURST, window_s: float = _WINDOW_S) -> None:
        self._burst = burst
        self._window_s = window_s
        self._seen: dict[object, tuple[float, int]] = {}

    def admit(self, line: object, now_s: float) -> int | None:
        """Whether to show a record now, and how many before it were not shown.

        Args:
            line: what identifies the line of the program.
            now_s: monotonic seconds.

        Returns:
            None if it is not to be shown; else the number left out since the last one shown.
        """
        since_s, count = self._seen.pop(line, (now_s, 0))
        left_out = 0
        if now_s - since_s >= self._window_s:
            left_out, since_s, count = max(0, count - self._burst), now_s, 0
        self._seen[line] = since_s, count + 1
        if len(self._seen) > _KNOWN:
            del self._seen[next(iter(self._seen))]
        return left_out if count < self._burst else None


def _utc(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """Plain lines, the times in UTC."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        """When a record was made."""
        del datefmt
        return _utc(record)

    def format(self, record: logging.LogRecord) -> str:
        """One record; fields stand behind the message."""
        text = super().format(record)
        fields = _fields(record)
        if not fields:
            return text
        first, newline, rest = text.partition("\n")
        said = " ".join(f"{name}={value}" for name, value in fields.items())
        return f"{first} [{said}]{newline}{rest}"


class JsonFormatter(logging.Formatter):
    """JSON objects (RFC 8259), one a line: time, level, logger, message, fields, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        document: dict[str, Any] = {
            "time": _utc(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(document, default=str).decode()


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return fields


class QueueHandler(logging.Handler):
    """Hands records to a thread that writes them; never waits, whatever becomes of the writing."""

    def __init__(
        self, write: Callable[[str], object], now_s: Callable[[], float], *, journal: bool
    ) -> None:
        """Start the thread.

        Args:
            write: takes finished text; may be slow and may fail.
            now_s: monotonic seconds.
            journal: whether what is written ends up in systemd's journal.
        """
        super().__init__()
        self._put_out = write
        self._now_s = now_s
        self._journal = journal
        self._limit = RateLimit()
        self._queue: queue.Queue[logging.LogRecord | None] = queue.Queue(_QUEUE)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="logs", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record, unless its line of the program has said enough or the queue is full."""
        left_out = 0
        if record.levelno > logging.DEBUG:
            admitted = self._limit.admit((record.name, record.lineno, record.msg), self._now_s())
            if admitted is None:
                return
            left_out = admitted
        # Put into words here, in case an argument changes before it is written.
        record.msg, record.args = record.getMessage(), None
        if left_out:
            record.msg += f" (and {left_out} more like it before)"
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what waits, for a moment at most, and end the thread."""
        # A stderr that nobody reads must not keep the process from ending.
        with suppress(queue.Full):
            self._queue.put(None, timeout=_FAREWELL_S)
            self._thread.join(_FAREWELL_S)
        super().close()

    def _write_all(self) -> None:
        while (record := self._queue.get()) is not None:
            self._write(record.levelno, self.format(record))
            dropped, self._dropped = self._dropped, 0
            if dropped:
                self._write(logging.WARNING, f"{dropped} log records were dropped")

    def _write(self, level: int, text: str) -> None:
        if self._journal:
            # Each line is an entry of its own there, and without a priority it would be a notice.
            priority = _priority(level)
            text = "\n".join(priority + line for line in text.splitlines())
        with suppress(OSError, ValueError):
            # There is nowhere to say that this failed.
            self._put_out(f"{text}\n")


def _priority(level: int) -> str:
    return f"<{_PRIORITIES.get(level, 6)}>"


def mark(stream: IO[str], level: int, environ: Mapping[str, str]) -> str:
    """What a line printed to a stream begins with, so that the journal knows how grave it is."""
    return _priority(level) if is_journal(stream, environ) else ""


def is_journal(stream: IO[str], environ: Mapping[str, str]) -> bool:
    """Whether a stream goes to systemd's journal, as ``$JOURNAL_STREAM`` says."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _writer(stream: IO[str]) -> Callable[[str], object]:
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return stream.write

    def write(text: str) -> None:
        # Past Python's buffer: a thread stuck in there would hold its lock when the process ends.
        rest = text.encode(errors="backslashreplace")
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    return write


@contextmanager
def logging_to(
    stream: IO[str],
    level: str,
    style: str,
    environ: Mapping[str, str],
    now_s: Callable[[], float],
) -> Iterator[None]:
    """Log to a stream until the end of the block, and write everything that waits then.

    Args:
        stream: stderr.
        level: the least level shown.
        style: ``text`` or ``json``.
        environ: tells whether the stream is the journal's.
        now_s: monotonic seconds.
    """
    journal = is_journal(stream, environ)
    handler = QueueHandler(_writer(stream), now_s, journal=journal)
    # The journal keeps the time of every entry itself.
    when = "" if journal else "%(asctime)s %(levelname)s "
    handler.setFormatter(
        JsonFormatter() if style == "json" else TextFormatter(f"{when}%(name)s: %(message)s")
    )
    root = logging.getLogger()
    levels = {_OWN: level} if level == "DEBUG" else {}
    # Libraries debug by writing down all that they send and receive.
    levels[""] = "INFO" if levels else level
    before = {name: logging.getLogger(name or None).level for name in levels}
    root.addHandler(handler)
    for name, value in levels.items():
        logging.getLogger(name or None).setLevel(value)
    try:
        yield
    finally:
        root.removeHandler(handler)
        for name, number in before.items():
            logging.getLogger(name or None).setLevel(number)
        handler.close()
