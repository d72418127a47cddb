"""Run `candlecast retrain`: complete the history, train a challenger, judge it, promote it or not.

The decisions of a run are stored in `plan.json`, so that a run after a kill continues it with the
same candles and the same training, from its last complete epoch.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from daemon.jobs.history_sync import HistorySync, Span
from daemon.jobs.low_priority import yield_at_candle_close
from daemon.jobs.rest_pages import MIN_AGE_MS, open_pages
from daemon.jobs.retrain_plan import RetrainPlan, delete_work, discard_plan, exclusive_lock
from model.core.errors import CandlecastError, NoChampion, Overtaken
from model.files.candle_files import filled_share
from model.history.reader import HistoryReader, candles_as_of
from model.registry.decisions import DecisionEntry
from model.registry.registry import Registry
from model.retraining.bundle_export import bundle_parts
from model.retraining.challenger import frame_of, judge, long_enough, rows_of, train_challenger
from model.retraining.report import Page, write_report
from model.shared_state.live_trial import FOLDER, TrialFiles
from model.shared_state.retrain_request import clear_request
from model.shared_state.retrain_status import RetrainStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    import pandas as pd

    from daemon.jobs.retrain_job import RetrainJob
    from daemon.runtime.clock import Clock
    from daemon.runtime.progress import SymbolProgress
    from model.core.candle import Candle, Timeframe
    from model.registry.registry import Bundle
    from model.stats.promotion_gate import Decision

    ProgressFactory = Callable[[], AbstractContextManager[SymbolProgress]]

log = logging.getLogger("candlecast.jobs")


def retrain(job: RetrainJob, clock: Clock, progress: ProgressFactory) -> RetrainStatus:
    """Run the nightly job until it has decided about the challenger.

    Args:
        job: the parameters.
        clock: the system clock.
        progress: shows the progress of fetching and judging; training prints its own.

    Returns:
        The status, which is also written to `retrain.json`.

    Raises:
        CandlecastError: the run failed; `retrain.json` contains the message.
        OSError: a file is unusable; `retrain.json` contains the message.
    """
    with exclusive_lock(job.folder):
        clear_request(job.state)
        started_s = clock.monotonic()
        previous = RetrainStatus.read(job.state)
        success_ms = None if previous is None else previous.success_ms
        try:
            status = _RetrainRun(job, clock, progress).run()
        except (CandlecastError, OSError) as error:
            duration_s = clock.monotonic() - started_s
            RetrainStatus(clock.wall_ms(), duration_s, success_ms, str(error)).write(job.state)
            raise
        status = replace(status, duration_s=clock.monotonic() - started_s)
        status.write(job.state)
        delete_work(job.folder)
        return status


class _RetrainRun:
    """One run; its steps are saved in the plan."""

    def __init__(self, job: RetrainJob, clock: Clock, progress: ProgressFactory) -> None:
        self._job = job
        self._clock = clock
        self._progress = progress
        self._yield_cpu = partial(yield_at_candle_close, clock, job.timeframe)
        self._registry = Registry(job.state / "registry")

    def run(self) -> RetrainStatus:
        # Fail now rather than after the training if the champion cannot be opened.
        self._champion()
        plan = self._saved_plan() or self._new_plan()
        plan.write(self._job.folder)
        if plan.known_ms is None:
            plan = asyncio.run(self._fetch_missing(plan))
            plan = replace(plan, known_ms=self._clock.wall_ms())
            plan.write(self._job.folder)
        grid = self._job.timeframe.with_boundary(plan.until_ms)
        self._yield_cpu = partial(yield_at_candle_close, self._clock, grid)
        candles = self._candles(plan)
        if plan.version is None:
            plan = replace(plan, version=self._train(plan, candles))
            plan.write(self._job.folder)
        assert plan.version is not None  # noqa: S101 - set above or by an earlier run
        return self._judge(plan.version, candles)

    def _saved_plan(self) -> RetrainPlan | None:
        """The plan of an interrupted run that can be continued."""
        job = self._job
        plan = RetrainPlan.read(job.folder, job.key, self._clock.wall_ms())
        if plan is None or plan.version is None or plan.version in self._registry.list():
            return plan
        return None

    def _new_plan(self) -> RetrainPlan:
        now_ms = self._clock.wall_ms()
        return RetrainPlan(self._job.key, now_ms, *self._span(now_ms, self._job.timeframe))

    def _span(self, now_ms: int, grid: Timeframe) -> Span:
        """The span of the newest closed candles that the job needs."""
        until_ms = grid.floor(now_ms - MIN_AGE_MS)
        return Span(until_ms - self._job.rows * grid.ms, until_ms)

    async def _fetch_missing(self, plan: RetrainPlan) -> RetrainPlan:
        """Fetch missing candles; return the plan with a span on the exchange's grid."""
        job = self._job
        advice = "run candlecast retrain again to continue"
        opened = open_pages(
            job.exchange, job.endpoint_rest, job.symbols, job.timeframe, self._clock, advice
        )
        with self._progress() as progress:
            sync = HistorySync(job.history, job.market, self._clock, progress)
            async with opened as pages:
                span = self._span(plan.started_ms, pages.grid.timeframe)
                await sync.fetch_missing(pages, job.symbols, span)
        return replace(plan, from_ms=span.from_ms, until_ms=span.until_ms)

    def _candles(self, plan: RetrainPlan) -> dict[str, pd.DataFrame]:
        job, frames = self._job, {}
        archive = HistoryReader(job.history, job.market)
        try:
            for symbol in job.symbols:
                # One symbol at a time: candle objects take ten times the memory of a frame.
                if known := self._known(archive, symbol, plan):
                    frames[symbol] = frame_of(known, job.timeframe)
                    self._log_filled(symbol, known)
        finally:
            archive.close()
        missing = [symbol for symbol in job.symbols if symbol not in frames]
        if missing and (not frames or not job.leave_out):
            msg = f"there are no {job.timeframe.text} candles of {', '.join(missing)} in that time"
            raise CandlecastError(msg)
        return frames

    def _log_filled(self, symbol: str, known: Sequence[Candle]) -> None:
        """Log the share of filled candles, as a warning above `model.max_filled`.

        Unlike `train`, this does not refuse the symbol: the exchange had no trades in these
        periods, the daemon forecasts from the same filled candles, and by default it does not
        serve a model that lacks one of its symbols.
        """
        job = self._job
        traded = [candle.open_ms for candle in known if not candle.filled]
        line, share = filled_share(traded or [known[0].open_ms], job.timeframe)
        level = logging.WARNING if share > job.max_filled else logging.INFO
        log.log(level, "%s %s: %s", symbol, job.timeframe.text, line)

    def _known(self, archive: HistoryReader, symbol: str, plan: RetrainPlan) -> list[Candle]:
        revisions = archive.revisions(symbol, plan.from_ms, plan.until_ms)
        return candles_as_of(revisions, plan.known_ms)

    def _train(self, plan: RetrainPlan, candles: Mapping[str, pd.DataFrame]) -> str:
        job = self._job
        # A market may be younger than the span, or closed at its end.
        cut = job.cut(rows_of(candles))
        if job.leave_out:
            candles = long_enough(candles, cut, job.lookback, job.warmup)
        trained = train_challenger(
            job.config, candles, job.timeframe, cut, job.folder, self._yield_cpu
        )
        return self._registry.write(bundle_parts(trained, job.folder, plan.started_ms))

    def _judge(self, version: str, candles: Mapping[str, pd.DataFrame]) -> RetrainStatus:
        job, registry = self._job, self._registry
        challenger, champion = registry.open(version), self._champion()
        now_ms = self._clock.wall_ms()
        if champion is not None and champion.version == version:
            # An interrupted run has already promoted it; only the status is missing.
            return _status(now_ms, version, self._decision(version))
        with self._progress() as progress:

            def on_progress(symbol: str, done: int, total: int) -> None:
                progress.update(symbol, done, total)
                self._yield_cpu()

            judged = judge(challenger, champion, candles, job.gate, now_ms, on_progress)
        page = Page(challenger, champion, judged, candles, job.gate, job.calibration)
        write_report(page, registry.report(version))
        try:
            registry.apply_decision(_entry(now_ms, version, champion, judged.decision))
        except Overtaken as error:
            log.info("%s: the challenger is judged again", error)
            return self._judge(version, candles)
        # A live trial takes several nights and needs its challenger.
        trial = TrialFiles(job.state / FOLDER).current()
        registry.prune(job.keep, None if trial is None else trial.challenger)
        return _status(now_ms, version, judged.decision)

    def _decision(self, version: str) -> Decision:
        gates = [entry.gate for entry in self._registry.decisions() if entry.version == version]
        gate = gates[-1] if gates else None
        if gate is None:
            discard_plan(self._job.folder)
            msg = f"model {version} was promoted by hand while it was being judged"
            raise CandlecastError(msg)
        return gate

    def _champion(self) -> Bundle | None:
        try:
            return self._registry.open(self._registry.champion())
        except NoChampion:
            return None


def _entry(now_ms: int, version: str, champion: Bundle | None, decision: Decision) -> DecisionEntry:
    return DecisionEntry(
        at_ms=now_ms,
        action="promote" if decision.promote else "keep",
        by="retrain",
        version=version,
        champion=None if champion is None else champion.version,
        gate=decision,
    )


def _status(now_ms: int, version: str, decision: Decision) -> RetrainStatus:
    return RetrainStatus(
        finished_ms=now_ms,
        duration_s=0.0,
        success_ms=now_ms,
        error=None,
        version=version,
        promoted=decision.promote,
        rule=decision.rule,
        reason=decision.reason,
        candles=decision.candles,
        challenger_ratio=decision.challenger_ratio,
        champion_ratio=decision.champion_ratio,
        gain=decision.gain,
        standard_error=decision.standard_error,
    )
