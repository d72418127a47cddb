"""Replace the served model with a newly promoted champion while the daemon runs."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.control.standby import StandbyModel
from daemon.forecast.scheduler import MAX_IDLE_WAIT_S
from model.core.errors import CandlecastError
from model.forecasts.forecast import ModelInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.candles.window import Window
    from daemon.forecast.pipeline import Pipeline
    from daemon.forecast.scheduler import InferenceScheduler
    from daemon.forecast.symbol_table import SymbolTable
    from daemon.metrics.metrics import Metrics
    from daemon.persistence.learned_state import LearnedStateStore
    from daemon.runtime.clock import Clock
    from model.serving import ServedModel

log = logging.getLogger("candlecast.control")

_POLL_INTERVAL_S: Final = 1.0
"""How often the champion's pointer is read, a file of 24 bytes."""

_RETRY_INTERVAL_S: Final = 300.0
"""A champion that cannot be served is tried again: the cause may be a fault of the machine."""


class ChampionSource(NamedTuple):
    """Reads, checks and loads the promoted model; each function is called in a thread.

    Attributes:
        version: returns the promoted version.
        check: raises if it cannot serve these symbols.
        load: returns it ready to serve these symbols.
    """

    version: Callable[[], str]
    check: Callable[[tuple[str, ...]], object]
    load: Callable[[tuple[str, ...]], ServedModel]


class HotSwap:
    """Polls the champion's pointer and swaps the served model between two batches.

    The new model is loaded, verified and warmed in a thread, and its state is computed from every
    window in slices. Then it replaces the old one for all symbols at once. If any step fails, the
    old model stays.

    Attributes:
        change_lock: held while the model or the symbols change.
    """

    def __init__(
        self,
        *,
        champion: ChampionSource,
        table: SymbolTable,
        scheduler: InferenceScheduler,
        pipeline: Pipeline,
        learned_state: LearnedStateStore,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """Prepare; `run` polls.

        Args:
            champion: where the promoted model comes from.
            table: has the served model and the windows.
            scheduler: tells when the pipeline is idle.
            pipeline: its model is replaced.
            learned_state: saves and restores the calibration.
            clock: the injected clock.
            metrics: shows the served model and counts swaps by outcome.
        """
        self._champion = champion
        self._table = table
        self._scheduler = scheduler
        self._pipeline = pipeline
        self._learned_state = learned_state
        self._clock = clock
        self._metrics = metrics
        self.change_lock = asyncio.Lock()
        # The champion that could not be served, when it was last tried (monotonic), and why.
        self._failed_version: str | None = None
        self._failed_s = 0.0
        self._failure = ""

    async def run(self) -> None:
        """Poll every second until cancelled."""
        while True:
            await self.poll()
            await self._clock.sleep(_POLL_INTERVAL_S)

    async def poll(self, *, retry: bool = False) -> None:
        """Serve the champion if another model is served.

        Args:
            retry: also try one that failed less than `_RETRY_INTERVAL_S` ago.
        """
        async with self.change_lock:
            version = None
            if retry:
                self._failure = ""
            try:
                version = await asyncio.to_thread(self._champion.version)
                if version == self._table.served.version:
                    self._clear_failure()
                elif retry or self._is_due(version):
                    await self._swap(self._table.windows)
                    self._metrics.model.swaps.labels("done").inc()
                    self._clear_failure()
            except Exception as error:  # noqa: BLE001 - after any failure the old model stays
                self._report_failure(version, error)

    async def require_servable(self, symbols: Sequence[str]) -> None:
        """Raise if the champion cannot serve these symbols.

        Raises:
            CandlecastError: it cannot, or there is none.
        """
        await asyncio.to_thread(self._champion.check, tuple(symbols))

    async def change_windows(self, windows: Sequence[Window]) -> None:
        """Serve the champion for these windows, some of those that the pipeline fills.

        The caller holds `change_lock`.

        Raises:
            CandlecastError: the champion cannot serve them; nothing has changed.
        """
        await self._swap(windows)

    def _is_due(self, version: str) -> bool:
        waited_s = self._clock.monotonic() - self._failed_s
        return version != self._failed_version or waited_s >= _RETRY_INTERVAL_S

    async def _swap(self, windows: Sequence[Window]) -> None:
        old = self._table.served
        # Loading takes a moment; begun right after a burst it ends before the next one.
        await self._scheduler.wait_idle(MAX_IDLE_WAIT_S)
        symbols = tuple(window.symbol for window in windows)
        served = await asyncio.to_thread(self._champion.load, symbols)
        is_same_model = served.sha256 == old.sha256
        if is_same_model:
            served.adopt_scalers(old)
        await self._learned_state.restore(served)
        standby = StandbyModel(served, windows, self._scheduler, self._clock, self._table.timeframe)
        await standby.synchronise()
        await standby.check_forecasts()
        await standby.synchronise()
        if is_same_model:
            served.calibration.adopt(old.calibration)
        self._pipeline.replace_model(served, windows, standby.revisions(), standby.checked)
        if not is_same_model:
            self._metrics.model.set_served(ModelInfo(served.version, served.sha256, served.target))
            log.info("model %s takes over from %s", served.version, old.version)
        await self._learned_state.save(old)

    def _clear_failure(self) -> None:
        self._failed_version, self._failure = None, ""
        self._metrics.model.swap_failing.set(0)

    def _report_failure(self, version: str | None, error: Exception) -> None:
        """Count and log a failure, once while version and reason stay the same."""
        is_expected = isinstance(error, (CandlecastError, OSError))
        failure = str(error) if is_expected else repr(error)
        self._metrics.model.swap_failing.set(1)
        self._failed_s = self._clock.monotonic()
        if (version, failure) != (self._failed_version, self._failure):
            self._failed_version, self._failure = version, failure
            self._metrics.model.swaps.labels("failed").inc()
            log.error(
                "the champion cannot be served, model %s stays: %s",
                self._table.served.version,
                failure,
                exc_info=None if is_expected else error,
            )
