"""The model at work is the promoted one: a new champion takes over while the daemon runs."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.control.standby import StandbyModel
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

_LOOK_S: Final = 1.0
"""How often the champion's pointer is read, a file of 24 bytes."""

_PATIENCE_S: Final = 10.0
"""In some markets something closes all the time."""

_RETRY_S: Final = 300.0
"""A champion that cannot be served is tried again so often: the fault may be the machine's."""


class ChampionSource(NamedTuple):
    """Where the promoted model comes from; each is called in a thread.

    Attributes:
        version: reads the promoted version.
        examine: raises what is wrong with it for symbols.
        load: makes it ready to serve symbols.
    """

    version: Callable[[], str]
    examine: Callable[[tuple[str, ...]], object]
    load: Callable[[tuple[str, ...]], ServedModel]


class HotSwap:
    """Watches the champion's pointer and swaps between two batches.

    The new model is loaded, verified and warmed in a thread and brought level with every window in
    slices; then it takes over at once, for all symbols. Whatever fails keeps the old one.

    Attributes:
        turn: held while the model changes, or the symbols.
    """

    def __init__(
        self,
        *,
        champion: ChampionSource,
        table: SymbolTable,
        scheduler: InferenceScheduler,
        pipeline: Pipeline,
        keeper: LearnedStateStore,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """Prepare; `run` watches.

        Args:
            champion: where the promoted model comes from.
            table: has the served model.
            scheduler: tells when there is idle time.
            pipeline: has its model replaced.
            keeper: saves and restores what the calibration has learnt.
            clock: the injected clock.
            metrics: which model is at work, and what became of swaps.
        """
        self._champion = champion
        self._table = table
        self._scheduler = scheduler
        self._pipeline = pipeline
        self._keeper = keeper
        self._clock = clock
        self._metrics = metrics
        self.turn = asyncio.Lock()
        self._refused: str | None = None
        self._refused_s = 0.0
        self._complaint = ""

    async def run(self) -> None:
        """Look every second until cancelled."""
        while True:
            await self.look()
            await self._clock.sleep(_LOOK_S)

    async def look(self, *, again: bool = False) -> None:
        """Serve the champion if another model is at work.

        Args:
            again: also try one that was refused not long ago.
        """
        async with self.turn:
            version = None
            if again:
                self._complaint = ""
            try:
                version = await asyncio.to_thread(self._champion.version)
                if version == self._table.served.version:
                    self._settle()
                elif again or self._is_due(version):
                    await self._swap(self._table.windows)
                    self._metrics.model.swaps.labels("done").inc()
                    self._settle()
            except Exception as error:  # noqa: BLE001 - whatever it is, the old model goes on
                self._refuse(version, error)

    async def check(self, symbols: Sequence[str]) -> None:
        """Require that the champion can serve these symbols.

        Raises:
            CandlecastError: it cannot, or there is none.
        """
        await asyncio.to_thread(self._champion.examine, tuple(symbols))

    async def seat(self, windows: Sequence[Window]) -> None:
        """Forecast from these windows from now on, out of those that the pipeline fills.

        Whoever calls it holds the turn.

        Raises:
            CandlecastError: the champion cannot serve them; nothing has changed.
        """
        await self._swap(windows)

    def _is_due(self, version: str) -> bool:
        waited_s = self._clock.monotonic() - self._refused_s
        return version != self._refused or waited_s >= _RETRY_S

    async def _swap(self, windows: Sequence[Window]) -> None:
        old = self._table.served
        # Loading is done in a moment; begun right after a burst it is over before the next one.
        await self._scheduler.wait_idle(_PATIENCE_S)
        symbols = tuple(window.symbol for window in windows)
        served = await asyncio.to_thread(self._champion.load, symbols)
        same = served.sha256 == old.sha256
        if same:
            served.adopt_scalers(old)
        await self._keeper.restore(served)
        follower = StandbyModel(
            served, windows, self._scheduler, self._clock, self._table.timeframe
        )
        await follower.level()
        await follower.try_out()
        await follower.level()
        if same:
            served.calibration.adopt(old.calibration)
        self._pipeline.replace_model(served, windows, follower.derived(), follower.tried)
        if not same:
            self._metrics.model.show(ModelInfo(served.version, served.sha256, served.target))
            log.info("model %s takes over from %s", served.version, old.version)
        await self._keeper.save(old)

    def _settle(self) -> None:
        self._refused, self._complaint = None, ""
        self._metrics.model.swap_failing.set(0)

    def _refuse(self, version: str | None, error: Exception) -> None:
        """Count a failure and say why, once for as long as it stays the same."""
        known = isinstance(error, (CandlecastError, OSError))
        complaint = str(error) if known else repr(error)
        self._metrics.model.swap_failing.set(1)
        self._refused_s = self._clock.monotonic()
        if (version, complaint) != (self._refused, self._complaint):
            self._refused, self._complaint = version, complaint
            self._metrics.model.swaps.labels("failed").inc()
            log.error(
                "model %s goes on serving, the champion cannot: %s",
                self._table.served.version,
                complaint,
                exc_info=None if known else error,
            )
