"""Ask the exchange for its time at an interval and keep its clock up to date."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from daemon.exchange.ccxt_client import UNREADABLE_ERRORS, network_errors
from daemon.exchange.exchange_clock import ExchangeClock, Reading
from daemon.exchange.rate_limits import Banned
from daemon.runtime.outage import Outage
from model.core.candle import EARLIEST_MS, LATEST_MS
from model.core.errors import BadCandle

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.exchange.request_limiter import RequestLimiter
    from daemon.metrics.metrics import Metrics

log = logging.getLogger("candlecast.exchange")

_READINGS_PER_MEASUREMENT: Final = 3
_MEASUREMENT_INTERVAL_S: Final = 180.0
_RETRY_INTERVAL_S: Final = 10.0
"""After a failed measurement, and between two that a jumping wall clock causes."""

_POLL_INTERVAL_S: Final = 2.0
_MAX_SILENT_OFFSET_S: Final = 1.0
"""A wall clock that is off by more is logged."""


class TimeSync:
    """Measures the exchange's time and reports the state of its clock."""

    def __init__(
        self,
        name: str,
        clock: ExchangeClock,
        metrics: Metrics,
        limiter: RequestLimiter,
        on_unusable_message: Callable[[Exception], None],
    ) -> None:
        """Prepare; `measure` asks for the time.

        Args:
            name: ccxt exchange id.
            clock: receives the readings.
            metrics: offset, error and trust of the clock.
            limiter: knows when the last request was sent and answered.
            on_unusable_message: called with an impossible time.
        """
        self._name = name
        self._clock = clock
        self._metrics = metrics
        self._limiter = limiter
        self._on_unusable_message = on_unusable_message
        # The last reported state; None before the first report.
        self._reported_trusted: bool | None = None
        self._clock_off = Outage(log)

    async def run(self, exchange: Any) -> None:  # noqa: ANN401 - ccxt's classes are untyped
        """Measure every few minutes, and soon after a clock jumped, until cancelled."""
        due_s = self._clock.monotonic() + _MEASUREMENT_INTERVAL_S
        while True:
            await self._clock.sleep(_POLL_INTERVAL_S)
            now_s = self._clock.monotonic()
            retry_s = due_s - _MEASUREMENT_INTERVAL_S + _RETRY_INTERVAL_S
            if now_s >= due_s or (self._clock.wall_clock_jumped and now_s >= retry_s):
                succeeded = await self.measure(exchange)
                due_s = now_s + (_MEASUREMENT_INTERVAL_S if succeeded else _RETRY_INTERVAL_S)
            self._report()

    async def measure(self, exchange: Any) -> bool:  # noqa: ANN401
        """Ask the exchange for its time; returns whether it answered every request."""
        if not exchange.has.get("fetchTime"):
            if self._reported_trusted is None:
                log.warning("%s has no request for its time", self._name)
            self._report()
            return False
        succeeded = True
        for _ in range(_READINGS_PER_MEASUREMENT):
            succeeded = succeeded and await self._read_time(exchange)
        self._report()
        return succeeded

    async def _read_time(self, exchange: Any) -> bool:  # noqa: ANN401
        try:
            exchange_ms = await exchange.fetch_time()
        except network_errors():
            return False
        except (Banned, *UNREADABLE_ERRORS):
            return False
        if isinstance(exchange_ms, int) and EARLIEST_MS < exchange_ms < LATEST_MS:
            self._clock.add_reading(Reading(*self._limiter.last_request_s, exchange_ms))
            return True
        self._on_unusable_message(BadCandle(f"the exchange's time is said to be {exchange_ms!r}"))
        return False

    def _report(self) -> None:
        """Set the metrics; log when the clock becomes trusted, untrusted, off or right again."""
        clock, metrics, name = self._clock, self._metrics, self._name
        trusted = clock.trusted
        metrics.clock.trusted.set(trusted)
        if clock.measured:
            metrics.clock.offset.set(clock.offset_s)
            metrics.clock.error.set(clock.error_ms / 1e3)
        if trusted != self._reported_trusted:
            self._reported_trusted = trusted
            if trusted:
                log.info("the time of %s is known to %.0f ms", name, clock.error_ms)
            else:
                log.warning("the time of %s is not known: no candle is closed by it", name)
        line = "%s is %.1f s ahead of this machine's clock"
        if clock.measured and abs(clock.offset_s) > _MAX_SILENT_OFFSET_S:
            self._clock_off.begin(f"{line}; its time is used", name, clock.offset_s)
        elif clock.measured:
            self._clock_off.end(f"{line} again", name, clock.offset_s)
