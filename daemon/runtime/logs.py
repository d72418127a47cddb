"""Log from a thread, through a bounded queue and a rate limit, so that logging never blocks.

A record becomes a plain line on a terminal or in a file, the same line with systemd's priority
(`sd-daemon(3)`) where stderr is the journal, or one JSON object if so configured. Fields of a
record (`extra={"fields": …}`) are members of the object, and follow the message of a plain line.

The queue and its thread are written by hand although `logging.handlers` has `QueueHandler` and
`QueueListener`: the listener's `stop` waits without bound, and tried with a stderr that is not read
the process did not end within 20 seconds (here within 4); `prepare` also merges the traceback into
the message. With both corrected by subclasses the file was 44 lines longer.
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

_QUEUE_SIZE: Final = 10_000
"""Records that wait for a slow stderr; further ones are dropped, counted and reported."""

_MAX_BURST: Final = 10
_BURST_WINDOW_S: Final = 60.0
"""Records of one log call in this time beyond the burst are counted, not shown."""

_MAX_LOG_CALLS: Final = 1_000
"""Log calls that are tracked; the one unused for longest is forgotten first."""

_ROOT_LOGGER: Final = "candlecast"
_STOP_TIMEOUT_S: Final = 2.0
_PRIORITIES: Final = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


class RateLimit:
    """Limits how often events of the same kind pass, such as records of one log call."""

    def __init__(self, burst: int = _MAX_BURST, window_s: float = _BURST_WINDOW_S) -> None:
        """Start without any event.

        Args:
            burst: events of a kind that pass in each window.
            window_s: length of the window, seconds.
        """
        self._burst = burst
        self._window_s = window_s
        # Per kind: when its window began (monotonic) and the events since then.
        self._windows: dict[object, tuple[float, int]] = {}

    def admit(self, kind: object, now_s: float) -> int | None:
        """Decide whether an event passes now.

        Args:
            kind: identifies events that count together.
            now_s: monotonic seconds.

        Returns:
            None if it does not pass; else the number held back since the last one that passed.
        """
        since_s, count = self._windows.pop(kind, (now_s, 0))
        left_out = 0
        if now_s - since_s >= self._window_s:
            left_out, since_s, count = max(0, count - self._burst), now_s, 0
        self._windows[kind] = since_s, count + 1
        if len(self._windows) > _MAX_LOG_CALLS:
            del self._windows[next(iter(self._windows))]
        return left_out if count < self._burst else None


def _utc(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """Plain lines with times in UTC."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        """When a record was made."""
        del datefmt
        return _utc(record)

    def format(self, record: logging.LogRecord) -> str:
        """One record; fields follow the message."""
        text = super().format(record)
        fields = _fields(record)
        if not fields:
            return text
        first, newline, rest = text.partition("\n")
        shown = " ".join(f"{name}={value}" for name, value in fields.items())
        return f"{first} [{shown}]{newline}{rest}"


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


class BoundedQueueHandler(logging.Handler):
    """Hands records to a thread that writes them; never waits, even if the stream is blocked."""

    def __init__(
        self, write: Callable[[str], object], now_s: Callable[[], float], *, journal: bool
    ) -> None:
        """Start the thread.

        Args:
            write: takes formatted text; may be slow and may fail.
            now_s: monotonic seconds.
            journal: whether the text goes to systemd's journal.
        """
        super().__init__()
        self._write = write
        self._now_s = now_s
        self._journal = journal
        self._limit = RateLimit()
        # None ends the thread.
        self._queue: queue.Queue[logging.LogRecord | None] = queue.Queue(_QUEUE_SIZE)
        # Records dropped since the thread last reported some.
        self._dropped = 0
        self._thread = threading.Thread(target=self._write_records, name="logs", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record unless the rate limit holds it back; drop it if the queue is full."""
        held_back = 0
        if record.levelno > logging.DEBUG:
            admitted = self._limit.admit((record.name, record.lineno, record.msg), self._now_s())
            if admitted is None:
                return
            held_back = admitted
        # Formatted here, in case an argument changes before the record is written.
        record.msg, record.args = record.getMessage(), None
        if held_back:
            record.msg += f" (and {held_back} more like it before)"
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write the queued records, for a few seconds at most, and end the thread."""
        # A blocked stderr must not keep the process from ending.
        with suppress(queue.Full):
            self._queue.put(None, timeout=_STOP_TIMEOUT_S)
            self._thread.join(_STOP_TIMEOUT_S)
        super().close()

    def _write_records(self) -> None:
        while (record := self._queue.get()) is not None:
            self._write_text(record.levelno, self.format(record))
            dropped, self._dropped = self._dropped, 0
            if dropped:
                self._write_text(logging.WARNING, f"{dropped} log records were dropped")

    def _write_text(self, level: int, text: str) -> None:
        if self._journal:
            # Each line becomes an entry of its own there, and one without a priority a notice.
            priority = _priority(level)
            text = "\n".join(priority + line for line in text.splitlines())
        with suppress(OSError, ValueError):
            # There is no other place to report this failure.
            self._write(f"{text}\n")


def _priority(level: int) -> str:
    return f"<{_PRIORITIES.get(level, 6)}>"


def mark(stream: IO[str], level: int, environ: Mapping[str, str]) -> str:
    """The priority prefix of a line printed to a stream; empty unless the journal reads it."""
    return _priority(level) if is_journal(stream, environ) else ""


def is_journal(stream: IO[str], environ: Mapping[str, str]) -> bool:
    """Whether a stream goes to systemd's journal, by ``$JOURNAL_STREAM``."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _write_function(stream: IO[str]) -> Callable[[str], object]:
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return stream.write

    def write(text: str) -> None:
        # Bypasses Python's buffer: a thread blocked in it would hold its lock at exit.
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
    """Log to a stream until the end of the block, then write the queued records.

    Args:
        stream: stderr.
        level: lowest level shown.
        style: ``text`` or ``json``.
        environ: has ``JOURNAL_STREAM`` where the stream is the journal's.
        now_s: monotonic seconds.
    """
    journal = is_journal(stream, environ)
    handler = BoundedQueueHandler(_write_function(stream), now_s, journal=journal)
    # The journal keeps the time of every entry itself.
    when = "" if journal else "%(asctime)s %(levelname)s "
    handler.setFormatter(
        JsonFormatter() if style == "json" else TextFormatter(f"{when}%(name)s: %(message)s")
    )
    root = logging.getLogger()
    levels = {_ROOT_LOGGER: level} if level == "DEBUG" else {}
    # At this level libraries log everything that they send and receive.
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
