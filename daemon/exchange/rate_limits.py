"""Pace requests and keep to the bans of an exchange. No I/O, no clock."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from model.core.errors import ExchangeError

if TYPE_CHECKING:
    from collections.abc import Mapping

BAN_STATUS_CODES: Final = (418, 429)
"""HTTP status codes by which exchanges demand a pause."""

_DEFAULT_BAN_S: Final = 60.0
"""For an answer without a duration: rate limits count by the minute."""

_MIN_BAN_S: Final = 1.0

_MAX_BAN_S: Final = 4 * 86_400.0
"""Binance bans for up to three days; a longer ban was misread."""

_BANNED_UNTIL: Final = re.compile(r"banned until (\d{13})\b", re.IGNORECASE)


class Banned(ExchangeError):  # noqa: N818 - named after the condition
    """The exchange accepts no requests for a while.

    Attributes:
        seconds: until requests may be sent again.
    """

    def __init__(self, name: str, seconds: float) -> None:
        """Describe a ban by the exchange ``name``."""
        super().__init__(f"{name}: it asks to slow down; no request is sent for {seconds:.0f} s")
        self.seconds = seconds


def ban_duration_s(headers: Mapping[str, Any], body: str, now_ms: int) -> float:
    """Return the pause that an answer with one of the `BAN_STATUS_CODES` demands, seconds.

    ``Retry-After`` takes precedence over "banned until", which depends on the clock.

    Args:
        headers: of the answer, names in any case.
        body: of the answer.
        now_ms: the exchange's time, Unix milliseconds.
    """
    retry_after = next((str(v) for k, v in headers.items() if k.lower() == "retry-after"), "")
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", retry_after):
        seconds = float(retry_after)
    elif found := _BANNED_UNTIL.search(body):
        seconds = (int(found[1]) - now_ms) / 1e3
    else:
        seconds = _DEFAULT_BAN_S
    return min(max(seconds, _MIN_BAN_S), _MAX_BAN_S)


class BanTimer:
    """Until when no request may be sent, on the monotonic clock."""

    def __init__(self) -> None:
        """Start without a ban."""
        self._until_s = float("-inf")

    def start_ban(self, seconds: float, now_s: float) -> None:
        """Note a ban; one that ends before a known one changes nothing."""
        self._until_s = max(self._until_s, now_s + seconds)

    def remaining_s(self, now_s: float) -> float:
        """Seconds until a request may be sent; 0 if it may be sent now."""
        return max(0.0, self._until_s - now_s)


class RequestPacer:
    """Sends requests one after the other, each after the pause that the one before it costs.

    It replaces ccxt's throttler, which goes by the wall clock: set back by an hour, it would send
    nothing for an hour.
    """

    def __init__(self, pause_s: float) -> None:
        """Start without a pause.

        Args:
            pause_s: after a request of ordinary cost, seconds.
        """
        self.pause_s = pause_s
        # When the next request may be sent, monotonic seconds.
        self._next_s = float("-inf")

    def reserve(self, now_s: float, cost: float | None) -> float:
        """Reserve the next turn; returns how long to wait for it, seconds.

        Args:
            now_s: monotonic clock.
            cost: in ordinary requests; None for one.
        """
        start_s = max(now_s, self._next_s)
        self._next_s = start_s + self.pause_s * (1.0 if cost is None else cost)
        return start_s - now_s
