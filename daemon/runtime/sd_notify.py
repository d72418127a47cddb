"""What systemd is told: ready, reloading, stopping, how it goes, and that there is progress.

The protocol is that of `sd_notify(3)`: one datagram of ``KEY=value`` lines to ``$NOTIFY_SOCKET``.
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

_FEEDS: Final = 4
"""So often per watchdog period there may be progress to tell of; systemd advises two or more."""

_WITHOUT_WATCHDOG_S: Final = 5.0
"""How often the status is looked at when nobody asks for progress."""

_STATUS_CHARS: Final = 200


class Watchdog:
    """Decides whether there has been progress since systemd was last told of some.

    A heartbeat would say that a timer works. Here nothing is said while a candle waits that nobody
    has worked on since the last time, so that systemd hears of standstill by silence.
    """

    def __init__(self, now_s: float) -> None:
        self._fed_s = now_s

    def has_progress(self, now_s: float, stuck_s: float) -> bool:
        """Whether to feed systemd's watchdog at ``now_s``.

        Args:
            now_s: monotonic seconds.
            stuck_s: for how long something has been waiting without progress, seconds; 0 if
                nothing waits.
        """
        if now_s - stuck_s < self._fed_s:
            return False
        self._fed_s = now_s
        return True


class Notifier:
    """Talks to the service manager that started this process, if one did.

    Nothing here waits or fails: a service manager that does not listen is no reason to stop.

    Attributes:
        watchdog_s: systemd ends the process after so long without progress; None if it does not.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read ``$NOTIFY_SOCKET`` and ``$WATCHDOG_USEC``.

        Raises:
            ConfigError: they do not hold what systemd sets.
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
    def is_heard(self) -> bool:
        """Whether a service manager waits for notifications."""
        return self._socket is not None

    def send(self, *lines: str) -> None:
        """Send ``KEY=value`` lines in one datagram."""
        if self._socket is None:
            return
        # A name that begins with @ stands for one in the abstract name space, which begins with 0.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            self._socket.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            self._outage.begin("the service manager does not listen: %s", error.strerror)
        else:
            self._outage.end("the service manager listens again")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self.send(f"STATUS={' '.join(text.split())[:_STATUS_CHARS]}")

    def ready(self) -> None:
        """The service does what it is for."""
        self.send("READY=1")

    def stopping(self) -> None:
        """The service was told to stop and is at it."""
        self.send("STOPPING=1", "STATUS=stopping")

    @contextmanager
    def reloading(self, clock: Clock) -> Iterator[None]:
        """Around a reload, however it ends; `systemctl reload` waits for the end."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={int(clock.monotonic() * 1e6)}")
        try:
            yield
        finally:
            self.ready()

    def close(self) -> None:
        """Give the socket back."""
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


async def tell_progress(
    notifier: Notifier,
    clock: Clock,
    ping: Callable[[], Awaitable[None]],
    stuck_s: Callable[[float], float],
    status: Callable[[], str],
) -> None:
    """Tell systemd of progress and status until cancelled.

    That this runs shows that the event loop does; an answered ``ping`` that the inference thread
    does; ``stuck_s`` that candles do not pile up. One of them missing ends the telling.

    Args:
        notifier: the way to systemd.
        clock: the injected clock.
        ping: answered once the inference thread has got round to it.
        stuck_s: for how long a candle has been waiting without progress at a monotonic time.
        status: one line on how it goes.
    """
    period_s = notifier.watchdog_s
    pause_s = _WITHOUT_WATCHDOG_S if period_s is None else period_s / _FEEDS
    watchdog = Watchdog(clock.monotonic())
    said = ""
    while True:
        await ping()
        now_s = clock.monotonic()
        if watchdog.has_progress(now_s, stuck_s(now_s)) and period_s is not None:
            notifier.send("WATCHDOG=1")
        text = status()
        if text != said:
            notifier.status(text)
            said = text
        await clock.sleep(pause_s)
