"""How fast requests may follow each other. No I/O, no clock."""

from __future__ import annotations


class RequestPacer:
    """Lets requests go one after the other, each after the pause that the one before it costs.

    ccxt's own queue goes by the wall clock: one that is set back an hour would stop it for an hour.
    """

    def __init__(self, pause_s: float) -> None:
        """Start free.

        Args:
            pause_s: after a request of ordinary cost, seconds.
        """
        self.pause_s = pause_s
        self._free_s = float("-inf")

    def wait_s(self, now_s: float, cost: float | None) -> float:
        """Take the next turn; returns for how long to wait for it, seconds.

        Args:
            now_s: monotonic clock.
            cost: in ordinary requests; None for one.
        """
        start_s = max(now_s, self._free_s)
        self._free_s = start_s + self.pause_s * (1.0 if cost is None else cost)
        return start_s - now_s
