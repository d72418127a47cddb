"""Notify systemd of readiness, reloads, stopping, status and progress.

The protocol of `sd_notify(3)` is one datagram of ``KEY=value`` lines to ``$NOTIFY_SOCKET``. It is
written by hand because no library of the lock file has it, and sending one takes five lines.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from daemon.runtime.outage import Outage
from model.core.errors import ConfigError

if TYPE_CHECKING:
    from daemon.runtime.clock import Clock

log = logging.getLogger("candlecast.runtime")

_CHECKS_PER_PERIOD: Final = 4
"""Checks for progress per watchdog period; systemd advises two or more."""

_STATUS_INTERVAL_S: Final = 5.0
"""Time between two checks of the status without a watchdog."""

_MAX_STATUS_CHARS: Final = 200


class Watchdog:
    """Decides whether there has been progress since the last keep-alive.

    A plain heartbeat would only show that a timer runs. Here no keep-alive is sent while a candle
    waits and nothing has been done since the last one, and systemd restarts the daemon.
    """

    def __init__(self, now_s: float) -> None:
        # When the last keep-alive was sent, monotonic clock.
        self._last_s = now_s

    def has_progress(self, now_s: float, stuck_s: float) -> bool:
        """Whether to send a keep-alive at ``now_s``.

        Args:
            now_s: monotonic seconds.
            stuck_s: for how long something has been waiting without progress, seconds; 0 if
                nothing waits.
        """
        if now_s - stuck_s < self._last_s:
            return False
        self._last_s = now_s
        return True


class Notifier:
    """Sends notifications to the service manager that started this process, if there is one.

    Never waits or fails: the daemon continues if the service manager does not listen.

    Attributes:
        watchdog_s: systemd ends the process after this time without keep-alive; None if it does
            not.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read ``$NOTIFY_SOCKET`` and ``$WATCHDOG_USEC``.

        Raises:
            ConfigError: their values are not valid.
        """
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address and self._address[0] not in "/@":
            msg = f"$NOTIFY_SOCKET {self._address!r} is neither a path nor an abstract socket"
            raise ConfigError(msg)
        self.watchdog_s = _watchdog_s(environ)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if self._address else None
        if self._socket is not None:
            self._socket.settimeout(0)
        self._outage = Outage(log)

    @property
    def is_enabled(self) -> bool:
        """Whether a service manager wants notifications."""
        return self._socket is not None

    def send(self, *lines: str) -> None:
        """Send ``KEY=value`` lines in one datagram."""
        if self._socket is None:
            return
        # A leading @ stands for the zero byte of an abstract socket address.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            self._socket.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            self._outage.begin("the service manager does not listen: %s", error.strerror)
        else:
            self._outage.end("the service manager listens again")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self.send(f"STATUS={' '.join(text.split())[:_MAX_STATUS_CHARS]}")

    def ready(self) -> None:
        """The service has started."""
        self.send("READY=1")

    def stopping(self) -> None:
        """The service is stopping."""
        self.send("STOPPING=1", "STATUS=stopping")

    @contextmanager
    def reloading(self, clock: Clock) -> Iterator[None]:
        """Announce a reload and its end, even if it fails; `systemctl reload` waits for the end."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={int(clock.monotonic() * 1e6)}")
        try:
            yield
        finally:
            self.ready()

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    text = environ.get("WATCHDOG_USEC")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        msg = f"$WATCHDOG_USEC {text!r} is not a positive number of microseconds"
        raise ConfigError(msg)
    return int(text) / 1e6


async def report_progress(
    notifier: Notifier,
    clock: Clock,
    ping: Callable[[], Awaitable[None]],
    stuck_s: Callable[[float], float],
    status: Callable[[], str],
) -> None:
    """Send keep-alives and the status to systemd until cancelled.

    Running shows that the event loop works, an answered ``ping`` that the inference thread works,
    and ``stuck_s`` that candles are being processed. Without one of them no keep-alive is sent.

    Args:
        notifier: sends to systemd.
        clock: the injected clock.
        ping: returns once the inference thread has run it.
        stuck_s: at a monotonic time, seconds that a candle has been waiting without progress.
        status: one line for `systemctl status`.
    """
    period_s = notifier.watchdog_s
    pause_s = _STATUS_INTERVAL_S if period_s is None else period_s / _CHECKS_PER_PERIOD
    watchdog = Watchdog(clock.monotonic())
    sent_status = ""
    while True:
        await ping()
        now_s = clock.monotonic()
        if watchdog.has_progress(now_s, stuck_s(now_s)) and period_s is not None:
            notifier.send("WATCHDOG=1")
        text = status()
        if text != sent_status:
            notifier.status(text)
            sent_status = text
        await clock.sleep(pause_s)
