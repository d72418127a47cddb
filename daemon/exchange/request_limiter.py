"""Send REST requests at the exchange's pace, and none while it bans this address."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from daemon.exchange.rate_limits import (
    BAN_STATUS_CODES,
    Banned,
    BanTimer,
    RequestPacer,
    ban_duration_s,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemon.metrics.metrics import Metrics
    from daemon.runtime.clock import Clock

log = logging.getLogger("candlecast.exchange")


class RequestLimiter:
    """Paces the requests of all ccxt clients of one exchange and keeps to its bans.

    Attributes:
        last_request_s: when the last answered request was sent and answered, monotonic seconds.
    """

    def __init__(self, name: str, clock: Clock, metrics: Metrics) -> None:
        """Start without a pause and without a ban.

        Args:
            name: ccxt exchange id.
            clock: its wall time is the exchange's.
            metrics: counts bans.
        """
        self.last_request_s = 0.0, 0.0
        self._name = name
        self._clock = clock
        self._metrics = metrics
        self._bans = BanTimer()
        self._pacer = RequestPacer(0.0)

    @property
    def pause_s(self) -> float:
        """Pause between two requests of ordinary cost, seconds."""
        return self._pacer.pause_s

    def set_pause(self, pause_s: float) -> None:
        """Set the pause between two requests of ordinary cost, seconds."""
        self._pacer = RequestPacer(pause_s)

    async def wait_turn(self, cost: float | None) -> None:
        """Wait until the next request may be sent.

        Args:
            cost: of the request, in ordinary ones; None for one.
        """
        if wait_s := self._pacer.reserve(self._clock.monotonic(), cost):
            await self._clock.sleep(wait_s)

    def check_ban(self) -> None:
        """Check that requests may be sent.

        Raises:
            Banned: they must not.
        """
        if remaining_s := self.ban_remaining_s():
            raise Banned(self._name, remaining_s)

    def ban_remaining_s(self) -> float:
        """Seconds until requests may be sent; 0 if they may be sent now."""
        return self._bans.remaining_s(self._clock.monotonic())

    def start_ban(self, headers: Mapping[str, Any], body: str) -> Banned:
        """Send nothing for as long as an answer with one of the `BAN_STATUS_CODES` demands."""
        seconds = ban_duration_s(headers or {}, body or "", self._clock.wall_ms())
        self._bans.start_ban(seconds, self._clock.monotonic())
        self._metrics.feed.bans.inc()
        self._metrics.feed.ban_end.set(self._clock.wall_ms() / 1e3 + seconds)
        ban = Banned(self._name, seconds)
        log.warning("%s", ban)
        return ban

    def limited_class(self, base: type[Any]) -> type[Any]:
        """Make a subclass of a ccxt class that keeps to the pace and to bans."""
        import ccxt

        limiter, clock = self, self._clock

        async def throttle(_exchange: Any, cost: float | None = None) -> None:  # noqa: ANN401
            await limiter.wait_turn(cost)

        async def fetch(exchange: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            limiter.check_ban()
            sent_s = clock.monotonic()
            answer = await base.fetch(exchange, *args, **kwargs)
            limiter.last_request_s = sent_s, clock.monotonic()
            return answer

        def handle_errors(exchange: Any, code: int, *details: Any) -> Any:  # noqa: ANN401
            headers, body = details[3], details[4]
            if code in BAN_STATUS_CODES:
                raise limiter.start_ban(headers, body)
            try:
                return base.handle_errors(exchange, code, *details)
            except (ccxt.DDoSProtection, ccxt.RateLimitExceeded):
                raise limiter.start_ban(headers, body) from None

        methods = {"throttle": throttle, "fetch": fetch, "handle_errors": handle_errors}
        return type(base.__name__, (base,), methods)
