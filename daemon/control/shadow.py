"""The newest challenger forecasts beside the champion, unpublished, and is judged by what came.

Its work begins when the champion's is done and is done in slices, so it delays no forecast.
Whatever goes wrong with it ends its trial and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.control.paired_forecasts import PairedForecasts
from daemon.control.standby import StandbyModel
from model.core.errors import CandlecastError, Overtaken
from model.registry.decisions import Entry
from model.registry.manifest import made_ms
from model.shared_state.live_trial import Tally, Trial, TrialFiles
from model.stats.promotion_gate import Decision, GateRules, decide

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.control.standby import Taken
    from daemon.forecast.scheduler import InferenceScheduler
    from daemon.forecast.symbol_table import SymbolTable
    from daemon.metrics.metrics import Metrics
    from daemon.runtime.clock import Clock
    from daemon.scoring.accuracy import Accuracy
    from model.registry.registry import Registry
    from model.serving import ServedModel
    from model.shared_state.live_trial import Records

log = logging.getLogger("candlecast.control")

_MOST_SYMBOLS: Final = 100
"""Symbols move together: more of them add work and hardly any evidence."""

_TOGETHER: Final = 32
"""Whole windows in one slice of the worker thread, 2 to 4 ms."""

_PAUSE_S: Final = 0.25
_LOOK_S: Final = 10.0
_DAY_MS: Final = 86_400_000


class TrialSources(NamedTuple):
    """What a live trial reads and writes.

    Attributes:
        registry: where challengers come from and decisions go.
        load: makes a version ready to serve symbols; called in a thread.
        files: keep what has been gathered.
        rules: what the gate asks for.
    """

    registry: Registry
    load: Callable[[str, tuple[str, ...]], ServedModel]
    files: TrialFiles
    rules: GateRules


class Shadow:
    """Tries one challenger after another, each until the gate has decided."""

    def __init__(
        self,
        *,
        sources: TrialSources,
        table: SymbolTable,
        scheduler: InferenceScheduler,
        accuracy: Accuracy,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """Prepare; `run` tries.

        Args:
            sources: what a trial reads and writes.
            table: whose windows are forecast from.
            scheduler: tells when there is idle time.
            accuracy: knows what the champion has forecast.
            clock: the injected clock.
            metrics: how the trial goes.
        """
        self._registry, self._load, self._files, self._rules = sources
        self._table = table
        self._scheduler = scheduler
        self._accuracy = accuracy
        self._clock = clock
        self._metrics = metrics
        self._unfit: set[str] = set()

    async def run(self) -> None:
        """Try whatever challenger there is, until cancelled."""
        while True:
            trial = None
            try:
                trial = await asyncio.to_thread(self._choose)
                if trial is not None:
                    await self._try(trial)
            except Exception as error:
                known = isinstance(error, (CandlecastError, OSError))
                log.warning("no live trial: %s", error, exc_info=None if known else error)
                if trial is not None:
                    self._unfit.add(trial.challenger)
            self._metrics.shadow.clear()
            await self._clock.sleep(_LOOK_S)

    def _choose(self) -> Trial | None:
        """The trial that was under way, or one of the newest challenger; in a thread."""
        champion, current = self._registry.champion(), self._files.current()
        if champion != self._table.served.version:
            # It is being loaded, or cannot be served: there is nobody to forecast beside.
            return None
        open_to_trial = self._challengers(champion)
        symbols = tuple(window.symbol for window in self._table.windows)
        if current is not None:
            goes_on = current.champion == champion and current.challenger in open_to_trial
            if goes_on and not set(symbols).isdisjoint(current.symbols):
                return current
            # Its champion is none any more, its challenger has been decided upon, or none of its
            # symbols is left.
            self._files.end()
        if not open_to_trial:
            return None
        symbols = symbols[:_MOST_SYMBOLS]
        trial = Trial(open_to_trial[-1], champion, symbols)
        self._files.begin(trial)
        log.info("model %s forecasts beside %s, unpublished", trial.challenger, champion)
        return trial

    def _challengers(self, champion: str) -> list[str]:
        """Models newer than the champion that were never champion and have had no trial."""
        decided = {
            entry.version
            for entry in self._registry.decisions()
            if entry.by == "shadow" or entry.action == "promote"
        }
        closed = decided | self._unfit | {self._registry.previous()}
        return [v for v in self._registry.list() if v > champion and v not in closed]

    async def _try(self, trial: Trial) -> None:
        """Forecast beside the champion until it is decided, or the champion or symbols change."""
        beside = self._table.served
        windows = {window.symbol: window for window in self._table.windows}
        symbols = tuple(symbol for symbol in trial.symbols if symbol in windows)
        await self._scheduler.wait_idle()
        served = await asyncio.to_thread(self._load, trial.challenger, symbols)
        follower = StandbyModel(
            served,
            [windows[symbol] for symbol in symbols],
            self._scheduler,
            self._clock,
            self._table.timeframe,
        )
        numbers = [trial.symbols.index(symbol) for symbol in symbols]
        slate = PairedForecasts(symbols, numbers, self._table.timeframe.ms, self._accuracy.waiting)
        tally = Tally(await asyncio.to_thread(self._files.losses))
        due_s = self._clock.monotonic()
        while self._table.served is beside:
            await self._scheduler.wait_idle()
            if (taken := await follower.catch_up()) is not None:
                slate.answer(taken)
                await self._forecast(served, taken, slate)
            else:
                await self._clock.sleep(_PAUSE_S)
            if self._clock.monotonic() >= due_s:
                due_s = self._clock.monotonic() + _LOOK_S
                if await asyncio.to_thread(self._note, trial, slate.take_records(), tally):
                    return

    async def _forecast(self, served: ServedModel, taken: Taken, slate: PairedForecasts) -> None:
        for start in range(0, len(taken.idx), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            idx, end_ms, last = taken.idx[part], taken.end_ms[part], taken.ohlcv[part, -1, 3]
            raw = await self._scheduler.run_when_idle(partial(served.full, served.windows(idx)))
            price = served.price(idx, raw, last)
            rows = zip(idx.tolist(), end_ms.tolist(), last.tolist(), price.tolist(), strict=True)
            now_ms = self._clock.wall_ms()
            for slot, open_ms, close, predicted in rows:
                slate.note(slot, open_ms, close, predicted, now_ms)

    def _note(self, trial: Trial, records: Records, tally: Tally) -> bool:
        """Write down what has been gathered, and decide if it is enough; in a thread.

        Returns:
            Whether it is over.
        """
        if len(records):
            self._files.append(records)
            tally.add(records)
        self._metrics.shadow.show(trial.challenger, tally)
        frame_ms = self._table.timeframe.ms
        if tally.candles < self._rules.candles(frame_ms):
            return False
        losses = self._files.losses()
        now_ms = self._clock.wall_ms()
        age_days = (now_ms - made_ms(trial.champion)) / _DAY_MS
        decision = decide(losses, self._rules, frame_ms, age_days, trial.symbols)
        if decision.rule == "too_few":
            return False
        self._conclude(trial, decision)
        return True

    def _conclude(self, trial: Trial, decision: Decision) -> None:
        """Promote or not, once; the next one gets its turn."""
        entry = Entry(
            at_ms=self._clock.wall_ms(),
            action="promote" if decision.promote else "keep",
            by="shadow",
            version=trial.challenger,
            champion=trial.champion,
            gate=decision,
        )
        try:
            self._registry.conclude(entry)
        except Overtaken as error:
            # The daemon has not seen that champion yet; when it has, the trial is over.
            log.info("live trial without a decision: %s", error)
            return
        self._files.end()
        log.info("live trial of model %s: %s, %s", trial.challenger, entry.action, decision.reason)
