"""Run the newest challenger beside the champion, unpublished, and decide on its promotion.

It runs in slices after the champion's work is done, so it delays no forecast. A failure ends the
trial and affects nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from daemon.control.paired_forecasts import PairedForecasts
from daemon.control.standby import StandbyModel
from model.core.errors import CandlecastError, Overtaken
from model.registry.decisions import Entry
from model.registry.manifest import made_ms
from model.shared_state.live_trial import Tally, Trial, TrialFiles
from model.stats.promotion_gate import Decision, GateRules, decide

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.control.standby import AppliedCandles
    from daemon.forecast.pipeline import Pipeline
    from daemon.metrics.metrics import Metrics
    from daemon.runtime.clock import Clock
    from daemon.scoring.accuracy import Accuracy
    from model.registry.registry import Registry
    from model.serving import ServedModel
    from model.shared_state.live_trial import Records

log = logging.getLogger("candlecast.control")

_MAX_SYMBOLS: Final = 100
"""Symbols move together: more of them add work and hardly any evidence."""

_BATCH_SIZE: Final = 32
"""Whole windows in one slice of the worker thread, 2 to 4 ms."""

_CANDLE_POLL_INTERVAL_S: Final = 0.25
"""How often new candles are looked for during a trial."""

_TRIAL_POLL_INTERVAL_S: Final = 10.0
"""How often a challenger is looked for, and the evidence of a trial is saved."""

_DAY_MS: Final = 86_400_000


class Shadow:
    """Runs one trial after another, each until the gate has decided."""

    def __init__(
        self,
        registry: Registry,
        load: Callable[[str, tuple[str, ...]], ServedModel],
        files: TrialFiles,
        rules: GateRules,
        pipeline: Pipeline,
        accuracy: Accuracy,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """Prepare; `run` runs the trials.

        Args:
            registry: has the challengers, and records the decisions.
            load: makes a version ready to serve symbols; called in a thread.
            files: save the evidence of a trial.
            rules: the gate's conditions.
            pipeline: has the windows that are forecast from.
            accuracy: has the champion's forecasts.
            clock: the injected clock.
            metrics: shows the state of the trial.
        """
        self._registry = registry
        self._load = load
        self._files = files
        self._rules = rules
        self._pipeline = pipeline
        self._accuracy = accuracy
        self._clock = clock
        self._metrics = metrics
        # Challengers whose trial failed in this process.
        self._failed: set[str] = set()

    async def run(self) -> None:
        """Run trials of the challengers in the registry, until cancelled."""
        while True:
            trial = None
            try:
                trial = await asyncio.to_thread(self._choose_trial)
                if trial is not None:
                    await self._run_trial(trial)
            except Exception as error:
                is_expected = isinstance(error, (CandlecastError, OSError))
                log.warning("no live trial: %s", error, exc_info=None if is_expected else error)
                if trial is not None:
                    self._failed.add(trial.challenger)
            self._metrics.shadow.clear()
            await self._clock.sleep(_TRIAL_POLL_INTERVAL_S)

    def _choose_trial(self) -> Trial | None:
        """Return the trial under way, or begin one of the newest challenger. Blocks."""
        champion, current = self._registry.champion(), self._files.current()
        if champion != self._pipeline.served.version:
            # It is being loaded, or cannot be served: there is no champion to compare with.
            return None
        challengers = self._challengers(champion)
        symbols = tuple(window.symbol for window in self._pipeline.windows)
        if current is not None:
            is_valid = current.champion == champion and current.challenger in challengers
            if is_valid and not set(symbols).isdisjoint(current.symbols):
                return current
            # The champion has changed, the challenger has been decided on, or none of the trial's
            # symbols is left.
            self._files.end()
        if not challengers:
            return None
        symbols = symbols[:_MAX_SYMBOLS]
        trial = Trial(challengers[-1], champion, symbols)
        self._files.begin(trial)
        log.info("model %s forecasts beside %s, unpublished", trial.challenger, champion)
        return trial

    def _challengers(self, champion: str) -> list[str]:
        """Return models newer than the champion that were never champion and had no trial."""
        decided = {
            entry.version
            for entry in self._registry.decisions()
            if entry.by == "shadow" or entry.action == "promote"
        }
        excluded = decided | self._failed | {self._registry.previous()}
        return [v for v in self._registry.list() if v > champion and v not in excluded]

    async def _run_trial(self, trial: Trial) -> None:
        """Forecast beside the champion until the gate decides, or champion or symbols change."""
        champion = self._pipeline.served
        windows = {window.symbol: window for window in self._pipeline.windows}
        symbols = tuple(symbol for symbol in trial.symbols if symbol in windows)
        await self._pipeline.settled()
        served = await asyncio.to_thread(self._load, trial.challenger, symbols)
        standby = StandbyModel(
            served, [windows[symbol] for symbol in symbols], self._pipeline, self._clock
        )
        numbers = [trial.symbols.index(symbol) for symbol in symbols]
        pairs = PairedForecasts(
            symbols, numbers, self._pipeline.timeframe.ms, self._accuracy.waiting
        )
        tally = Tally(await asyncio.to_thread(self._files.losses))
        save_due_s = self._clock.monotonic()
        while self._pipeline.served is champion:
            await self._pipeline.settled()
            if (applied := await standby.catch_up()) is not None:
                pairs.on_candles(applied)
                await self._forecast(served, applied, pairs)
            else:
                await self._clock.sleep(_CANDLE_POLL_INTERVAL_S)
            if self._clock.monotonic() >= save_due_s:
                save_due_s = self._clock.monotonic() + _TRIAL_POLL_INTERVAL_S
                if await asyncio.to_thread(
                    self._save_and_decide, trial, pairs.take_records(), tally
                ):
                    return

    async def _forecast(
        self, served: ServedModel, applied: AppliedCandles, pairs: PairedForecasts
    ) -> None:
        for start in range(0, len(applied.idx), _BATCH_SIZE):
            part = slice(start, start + _BATCH_SIZE)
            idx, end_ms, last = applied.idx[part], applied.end_ms[part], applied.ohlcv[part, -1, 3]
            raw = await self._pipeline.aside(partial(served.full, served.windows(idx)))
            price = served.price(idx, raw, last)
            rows = zip(idx.tolist(), end_ms.tolist(), last.tolist(), price.tolist(), strict=True)
            now_ms = self._clock.wall_ms()
            for slot, open_ms, close, predicted in rows:
                pairs.add_challenger(slot, open_ms, close, predicted, now_ms)

    def _save_and_decide(self, trial: Trial, records: Records, tally: Tally) -> bool:
        """Save new evidence, and decide if there is enough. Blocks.

        Returns:
            Whether the trial is over.
        """
        if len(records):
            self._files.append(records)
            tally.add_losses(records)
        self._metrics.shadow.set_trial(trial.challenger, tally)
        frame_ms = self._pipeline.timeframe.ms
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
        """Record the decision, promote the challenger if it won, and end the trial."""
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
            # The daemon has not loaded the new champion yet; once it has, the trial ends.
            log.info("live trial without a decision: %s", error)
            return
        self._files.end()
        log.info("live trial of model %s: %s, %s", trial.challenger, entry.action, decision.reason)
