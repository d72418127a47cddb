"""When the exchange says stop: until when, from whatever it says. No I/O, no clock."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from model.core.errors import ExchangeError

if TYPE_CHECKING:
    from collections.abc import Mapping

BANNING: Final = (418, 429)
"""HTTP status codes by which exchanges ask for silence."""

_UNTOLD_S: Final = 60.0
"""For an exchange that does not say how long: rate limits count by the minute."""

_LONGEST_S: Final = 4 * 86_400.0
"""Binance bans for up to three days; what is longer is a misunderstanding."""

_UNTIL: Final = re.compile(r"banned until (\d{13})\b", re.IGNORECASE)


class Banned(ExchangeError):  # noqa: N818 - the condition, not the mishap, is the name
    """The exchange does not want to be asked for a while.

    Attributes:
        seconds: for so long.
    """

    def __init__(self, name: str, seconds: float) -> None:
        """Say who and for how long."""
        super().__init__(f"{name}: it asks to slow down; nothing is asked for {seconds:.0f} s")
        self.seconds = seconds


def ban_s(headers: Mapping[str, Any], body: str, now_ms: int) -> float:
    """For how long an answer with one of the `BANNING` codes asks for silence, seconds.

    ``Retry-After`` counts before "banned until": it needs no clock.

    Args:
        headers: of the answer, names in any case.
        body: of the answer.
        now_ms: the exchange's time, Unix milliseconds.
    """
    told = next((str(v) for k, v in headers.items() if k.lower() == "retry-after"), "")
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", told):
        seconds = float(told)
    elif found := _UNTIL.search(body):
        seconds = (int(found[1]) - now_ms) / 1e3
    else:
        seconds = _UNTOLD_S
    return min(max(seconds, 1.0), _LONGEST_S)


class BanTimer:
    """Until when nothing may be asked, on the monotonic clock."""

    def __init__(self) -> None:
        """Start without a ban."""
        self._until_s = float("-inf")

    def begin(self, seconds: float, now_s: float) -> None:
        """Note a ban; a shorter one within a longer one changes nothing."""
        self._until_s = max(self._until_s, now_s + seconds)

    def left_s(self, now_s: float) -> float:
        """Seconds until something may be asked; 0 when it may now."""
        return max(0.0, self._until_s - now_s)
