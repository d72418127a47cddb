"""Check the daemon's health once a second, publish it, and report it to the web server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.runtime.gc_control import GcScheduler, manual_gc
from daemon.web.server import Health

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.control.drift_monitor import DriftMonitor
    from daemon.forecast.pipeline import Pipeline
    from daemon.metrics.metrics import Metrics
    from daemon.mqtt.publisher import Publisher
    from daemon.runtime.clock import Clock
    from daemon.scoring.accuracy import Accuracy

_CHECK_INTERVAL_S: Final = 1.0

_MAX_STALL_S: Final = 10.0
"""A pipeline without progress for longer counts as not alive."""

_DRIFT_SAVE_INTERVAL_S: Final = 300.0
"""A kill loses at most this much of the days of the feature drift test."""


class HealthSources(NamedTuple):
    """The parts of the daemon whose state makes up its health.

    Attributes:
        pipeline: has the windows and the served model.
        publisher: has the connection to the broker, and publishes the status topic.
        accuracy: has the rolling figures.
        drift: tests for drift.
        metrics: updated at each check.
        rest_only: returns the symbols whose candles come by REST alone.
    """

    pipeline: Pipeline
    publisher: Publisher
    accuracy: Accuracy
    drift: DriftMonitor
    metrics: Metrics
    rest_only: Callable[[], Sequence[str]]


class HealthMonitor:
    """Keeps the status topic and the metrics up to date, and collects garbage in idle moments.

    Args:
        sources: the parts of the daemon to check.
        ready: set once every symbol's history has been fetched and processed.
        clock: the injected clock.
    """

    def __init__(self, sources: HealthSources, ready: asyncio.Event, clock: Clock) -> None:
        self._sources = sources
        self._ready = ready
        self._clock = clock
        # When the drift monitor's state is saved next, monotonic.
        self._drift_save_s = clock.monotonic() + _DRIFT_SAVE_INTERVAL_S

    async def run(self) -> None:
        """Check every second until cancelled."""
        pipeline, publisher, accuracy, drift, metrics, rest_only = self._sources
        gc_scheduler = GcScheduler(self._clock.monotonic())
        now_s = self._clock.monotonic()
        await asyncio.to_thread(drift.restore, pipeline.served, now_s)
        with manual_gc():
            while True:
                stale = pipeline.stale_symbols(self._clock.wall_ms())
                rest_symbols = rest_only()
                state = "degraded" if stale or rest_symbols else "online"
                publisher.announce(state, stale, pipeline.served.version, rest_symbols)
                metrics.feed.stale_symbols.set(len(stale))
                metrics.update_accuracy(accuracy)
                metrics.model.out_of_range.set(pipeline.served.mean_out_of_range())
                await self._check_drift()
                gc_scheduler.collect(self._clock.monotonic(), idle=pipeline.is_idle)
                await self._clock.sleep(_CHECK_INTERVAL_S)

    async def _check_drift(self) -> None:
        pipeline, _, accuracy, drift, *_ = self._sources
        now_s = self._clock.monotonic()
        alarms = drift.check(pipeline.served, accuracy, now_s)
        if alarms:
            await asyncio.to_thread(drift.request_retrain, alarms, self._clock.wall_ms())
        if alarms or now_s >= self._drift_save_s:
            self._drift_save_s = now_s + _DRIFT_SAVE_INTERVAL_S
            await asyncio.to_thread(drift.save, drift.snapshot(now_s))

    def summary(self) -> str:
        """Return one line for `systemctl status`."""
        pipeline, publisher, *_ = self._sources
        stale = len(pipeline.stale_symbols(self._clock.wall_ms()))
        symbols = f"{len(pipeline.windows)} symbols" + (f", {stale} stale" if stale else "")
        broker = "connected" if publisher.connected.is_set() else "disconnected"
        return f"{symbols}; broker {broker}; model {pipeline.served.version}"

    def state(self) -> dict[str, object]:
        """Return what the status page shows beside the symbols."""
        health = self.health()
        return {"warming_up": not self._ready.is_set(), **health.detail}

    def health(self) -> Health:
        """Return the answer of `/healthz` and `/readyz`."""
        pipeline, publisher, *_ = self._sources
        stale = pipeline.stale_symbols(self._clock.wall_ms())
        connected = publisher.connected.is_set()
        return Health(
            alive=pipeline.stuck_s(self._clock.monotonic()) < _MAX_STALL_S,
            ready=self._ready.is_set() and connected and len(stale) < len(pipeline.windows),
            detail={
                "symbols": len(pipeline.windows),
                "stale_symbols": stale,
                "rest_only_symbols": list(self._sources.rest_only()),
                "withheld": pipeline.withheld(),
                "broker_connected": connected,
                "model": pipeline.served.version,
            },
        )
