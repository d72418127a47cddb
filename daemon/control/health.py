"""Looks over everything once a second, and says how it is when asked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.runtime.gc_control import GcScheduler, manual_gc
from daemon.web.server import Health

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.control.drift_monitor import DriftWatch
    from daemon.forecast.pipeline import Pipeline
    from daemon.forecast.scheduler import InferenceScheduler
    from daemon.forecast.symbol_table import SymbolTable
    from daemon.metrics.metrics import Metrics
    from daemon.mqtt.publisher import Publisher
    from daemon.runtime.clock import Clock
    from daemon.scoring.accuracy import Accuracy

_LOOK_S: Final = 1.0
_STUCK_S: Final = 10.0
_SAVE_EVERY_S: Final = 300.0
"""What a restart may cost of the days that features are looked at."""


class HealthSources(NamedTuple):
    """What is looked over.

    Attributes:
        rest_only: names the symbols whose candles come by REST alone.
    """

    pipeline: Pipeline
    table: SymbolTable
    scheduler: InferenceScheduler
    publisher: Publisher
    accuracy: Accuracy
    drift: DriftWatch
    metrics: Metrics
    rest_only: Callable[[], Sequence[str]]


class HealthMonitor:
    """Keeps the status topic, the metrics and the memory up to date.

    Args:
        overseen: what is looked over.
        ready: set once every symbol's history has been asked for and worked up.
        clock: the injected clock.
    """

    def __init__(self, overseen: HealthSources, ready: asyncio.Event, clock: Clock) -> None:
        self._overseen = overseen
        self._ready = ready
        self._clock = clock
        self._save_s = clock.monotonic() + _SAVE_EVERY_S

    async def run(self) -> None:
        """Look over it until cancelled."""
        pipeline, table, scheduler, publisher, accuracy, _, metrics, rest_only = self._overseen
        tidy = GcScheduler(self._clock.monotonic())
        now_s = self._clock.monotonic()
        await asyncio.to_thread(self._overseen.drift.resume, table.served, now_s)
        with manual_gc():
            while True:
                stale = pipeline.stale_symbols(self._clock.wall_ms())
                late = rest_only()
                state = "degraded" if stale or late else "online"
                publisher.announce(state, stale, table.served.version, late)
                metrics.feed_stale_symbols.set(len(stale))
                metrics.update_accuracy(accuracy)
                metrics.model.out_of_range.set(table.served.mean_out_of_range())
                await self._look_for_drift()
                tidy.collect(self._clock.monotonic(), idle=scheduler.is_idle)
                await self._clock.sleep(_LOOK_S)

    async def _look_for_drift(self) -> None:
        _, table, _, _, accuracy, drift, *_ = self._overseen
        now_s = self._clock.monotonic()
        alarms = drift.look(table.served, accuracy, now_s)
        if alarms:
            await asyncio.to_thread(drift.request, alarms, self._clock.wall_ms())
        if alarms or now_s >= self._save_s:
            self._save_s = now_s + _SAVE_EVERY_S
            await asyncio.to_thread(drift.save, drift.freeze(now_s))

    def summary(self) -> str:
        """How it goes, in one line for `systemctl status`."""
        pipeline, table, _, publisher, *_ = self._overseen
        stale = len(pipeline.stale_symbols(self._clock.wall_ms()))
        symbols = f"{len(table.windows)} symbols" + (f", {stale} stale" if stale else "")
        broker = "connected" if publisher.connected.is_set() else "away"
        return f"{symbols}; broker {broker}; model {table.served.version}"

    def state(self) -> dict[str, object]:
        """What the status page shows beside the symbols."""
        health = self.health()
        return {"warming_up": not self._ready.is_set(), **health.detail}

    def health(self) -> Health:
        """For `/healthz` and `/readyz`."""
        pipeline, table, scheduler, publisher, *_ = self._overseen
        stale = pipeline.stale_symbols(self._clock.wall_ms())
        connected = publisher.connected.is_set()
        return Health(
            alive=scheduler.stuck_s(self._clock.monotonic()) < _STUCK_S,
            ready=self._ready.is_set() and connected and len(stale) < len(table.windows),
            detail={
                "symbols": len(table.windows),
                "stale_symbols": stale,
                "rest_only_symbols": list(self._overseen.rest_only()),
                "withheld": pipeline.withheld(),
                "broker_connected": connected,
                "model": table.served.version,
            },
        )
