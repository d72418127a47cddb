"""`candlecast retrain`: bring history up to date, train a challenger, judge it, promote it or not.

What a run has decided to do stands in `plan.json`, so that one that was killed goes on with it: the
same candles, the same training, from its last whole epoch.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from daemon.jobs.history_sync import HistorySync, Span
from daemon.jobs.low_priority import yield_at_candle_close
from daemon.jobs.rest_pages import SETTLING_MS, opened_pages
from model.core.errors import CandlecastError, ConfigError, NoChampion, Overtaken
from model.core.market import MarketKey
from model.files.candle_files import filled_share
from model.history.reader import HistoryReader, candles_as_of
from model.registry.decisions import DecisionEntry
from model.registry.registry import Registry
from model.retraining.bundle_export import bundle_parts
from model.retraining.challenger import (
    cut_for_gate,
    frame_of,
    judge,
    long_enough,
    rows_of,
    train_challenger,
)
from model.retraining.report import Page, write_report
from model.shared_state.live_trial import FOLDER, TrialFiles
from model.shared_state.retrain_request import clear_request
from model.shared_state.retrain_status import RetrainStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    import pandas as pd

    from daemon.runtime.clock import Clock
    from daemon.runtime.progress import SymbolProgress
    from model.core.candle import Candle, Timeframe
    from model.forecasts.rules import Rules
    from model.registry.registry import Bundle
    from model.retraining.challenger import Cut
    from model.stats.promotion_gate import Decision, GateRules

    Shown = Callable[[], AbstractContextManager[SymbolProgress]]

log = logging.getLogger("candlecast.jobs")

_DAY_MS: Final = 86_400_000
_PLAN: Final = "plan.json"
_STALE_MS: Final = _DAY_MS // 2
"""A run that began longer ago starts over: newer candles are worth more than old work, and what
failed in one night must not be gone on with in the next."""


@dataclass(frozen=True)
class RetrainJob:
    """What a run is to do.

    Attributes:
        config: the configuration file, whose `model` and `indicators` sections train.
        key: hash of every setting that the result depends on.
        state: folder of registry and history.
        exchange: ccxt id.
        endpoint_rest: scheme, host and port instead of the exchange's own; None keeps them.
        symbols: ccxt symbols.
        timeframe: candle length.
        days: span of candles, the gate's included.
        lookback: candles of a window.
        splits: configured shares of training and validation.
        gate: what a challenger must show.
        calibration: what intervals and probabilities shall be, for the report.
        keep: models that stay in the registry.
        warmup: candles that the indicators take to settle.
        leave_out: train without symbols that have too few candles yet, rather than not at all.
        max_filled: share of periods without a candle from which on it is warned of.
    """

    config: Path
    key: str
    state: Path
    exchange: str
    endpoint_rest: str | None
    symbols: tuple[str, ...]
    timeframe: Timeframe
    days: float
    lookback: int
    splits: tuple[float, float]
    gate: GateRules
    calibration: Rules
    keep: int
    warmup: int
    leave_out: bool
    max_filled: float

    @property
    def folder(self) -> Path:
        """Where a run keeps what it needs to go on."""
        return self.state / "retrain"

    @property
    def history(self) -> Path:
        """The database of candles."""
        return self.state / "history.sqlite"

    @property
    def rows(self) -> int:
        """Candles of the span."""
        return int(self.days * _DAY_MS) // self.timeframe.ms

    def cut(self, rows: int) -> Cut:
        """How so many candles are shared out.

        Raises:
            ConfigError: they are too few for that.
        """
        gate_rows = self.gate.candles(self.timeframe.ms)
        return cut_for_gate(rows, gate_rows, self.lookback, *self.splits)


@dataclass(frozen=True)
class _Plan:
    """What a run has decided; a later one goes on with it.

    Attributes:
        key: of the job.
        started_ms: when it began, Unix milliseconds.
        from_ms: opening of the first candle.
        until_ms: closing of the last one.
        known_ms: candles that had come by then are used; None while some are missing.
        version: the challenger, once it is in the registry.
    """

    key: str
    started_ms: int
    from_ms: int
    until_ms: int
    known_ms: int | None = None
    version: str | None = None

    def write(self, folder: Path) -> None:
        fresh = folder / f"{_PLAN}.new"
        fresh.write_text(json.dumps(asdict(self)), encoding="utf-8")
        fresh.replace(folder / _PLAN)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; whoever ends, however, lets it go.

    Raises:
        CandlecastError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            msg = f"another retrain is at work (process {lock.read(20).strip() or 'unknown'})"
            raise CandlecastError(msg) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def retrain(job: RetrainJob, clock: Clock, progress: Shown) -> RetrainStatus:
    """Run the nightly job to its decision.

    Args:
        job: what is to be done.
        clock: the machine's.
        progress: shows how far fetching and judging are; training shows itself.

    Returns:
        What was written to `retrain.json`.

    Raises:
        CandlecastError: one clear line, which `retrain.json` holds too.
        OSError: a file that cannot be used; the same.
    """
    with alone(job.folder):
        clear_request(job.state)
        begun_s = clock.monotonic()
        before = RetrainStatus.read(job.state)
        success_ms = None if before is None else before.success_ms
        try:
            status = _Run(job, clock, progress).run()
        except (CandlecastError, OSError) as error:
            spent_s = clock.monotonic() - begun_s
            RetrainStatus(clock.wall_ms(), spent_s, success_ms, str(error)).write(job.state)
            raise
        status = replace(status, duration_s=clock.monotonic() - begun_s)
        status.write(job.state)
        for leftover in job.folder.iterdir():
            if leftover.name != ".lock":
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        return status


class _Run:
    """One run, step by step."""

    def __init__(self, job: RetrainJob, clock: Clock, progress: Shown) -> None:
        self._job = job
        self._clock = clock
        self._progress = progress
        self._step_aside = partial(yield_at_candle_close, clock, job.timeframe)
        self._registry = Registry(job.state / "registry")

    def run(self) -> RetrainStatus:
        # One that cannot be opened would end the night after its training.
        self._champion()
        plan = self._plan()
        plan.write(self._job.folder)
        if plan.known_ms is None:
            plan = asyncio.run(self._complete(plan))
            plan = replace(plan, known_ms=self._clock.wall_ms())
            plan.write(self._job.folder)
        grid = self._job.timeframe.with_boundary(plan.until_ms)
        self._step_aside = partial(yield_at_candle_close, self._clock, grid)
        candles = self._candles(plan)
        if plan.version is None:
            plan = replace(plan, version=self._train(plan, candles))
            plan.write(self._job.folder)
        assert plan.version is not None  # noqa: S101 - trained just now, or before a kill
        return self._judge(plan.version, candles)

    def _plan(self) -> _Plan:
        """That of a run that was cut not long ago, or a new one."""
        job, now_ms = self._job, self._clock.wall_ms()
        try:
            raw = json.loads((job.folder / _PLAN).read_text(encoding="utf-8"))
            plan = _Plan(**raw)
            fresh = plan.key == job.key and 0 <= now_ms - plan.started_ms < _STALE_MS
        except (OSError, ValueError, TypeError):
            fresh = False
        else:
            if fresh and (plan.version is None or plan.version in self._registry.list()):
                return plan
        return _Plan(job.key, now_ms, *self._span(now_ms, job.timeframe))

    def _span(self, now_ms: int, grid: Timeframe) -> Span:
        """The newest closed candles, as many as the job asks for."""
        until_ms = grid.floor(now_ms - SETTLING_MS)
        return Span(until_ms - self._job.rows * grid.ms, until_ms)

    async def _complete(self, plan: _Plan) -> _Plan:
        """Fetch what is missing; the plan comes back on the exchange's own grid."""
        job = self._job
        market = MarketKey(job.exchange, job.timeframe)
        again = "run candlecast retrain again to go on from here"
        pages_of = opened_pages(
            job.exchange, job.endpoint_rest, job.symbols, job.timeframe, self._clock, again
        )
        with self._progress() as progress:
            supply = HistorySync(job.history, market, self._clock, progress)
            async with pages_of as pages:
                span = self._span(plan.started_ms, pages.grid.timeframe)
                await supply.complete(pages, job.symbols, span)
        return replace(plan, from_ms=span.from_ms, until_ms=span.until_ms)

    def _candles(self, plan: _Plan) -> dict[str, pd.DataFrame]:
        job, frames = self._job, {}
        archive = HistoryReader(job.history, MarketKey(job.exchange, job.timeframe))
        try:
            for symbol in job.symbols:
                # Not all symbols at once: as objects, candles take ten times as much memory.
                if known := self._known(archive, symbol, plan):
                    frames[symbol] = frame_of(known, job.timeframe)
                    self._say_filled(symbol, known)
        finally:
            archive.close()
        lacking = [symbol for symbol in job.symbols if symbol not in frames]
        if lacking and (not frames or not job.leave_out):
            msg = f"there are no {job.timeframe.text} candles of {', '.join(lacking)} in that time"
            raise CandlecastError(msg)
        return frames

    def _say_filled(self, symbol: str, known: Sequence[Candle]) -> None:
        job = self._job
        own = [candle.open_ms for candle in known if not candle.filled]
        line, share = filled_share(own or [known[0].open_ms], job.timeframe)
        level = logging.WARNING if share > job.max_filled else logging.INFO
        log.log(level, "%s %s: %s", symbol, job.timeframe.text, line)

    def _known(self, archive: HistoryReader, symbol: str, plan: _Plan) -> list[Candle]:
        revisions = archive.revisions(symbol, plan.from_ms, plan.until_ms)
        return candles_as_of(revisions, plan.known_ms)

    def _train(self, plan: _Plan, candles: Mapping[str, pd.DataFrame]) -> str:
        job = self._job
        # A market may be younger than the span, or have been closed at its end.
        cut = job.cut(rows_of(candles))
        if job.leave_out:
            candles = long_enough(candles, cut, job.lookback, job.warmup)
        trained = train_challenger(
            job.config, candles, job.timeframe, cut, job.folder, self._step_aside
        )
        return self._registry.write(bundle_parts(trained, job.folder, plan.started_ms))

    def _judge(self, version: str, candles: Mapping[str, pd.DataFrame]) -> RetrainStatus:
        job, registry = self._job, self._registry
        challenger, champion = registry.open(version), self._champion()
        now_ms = self._clock.wall_ms()
        if champion is not None and champion.version == version:
            # A run that was cut after promoting it left no more to be done than to say so.
            return _status(now_ms, version, self._decided(version))
        with self._progress() as progress:

            def judging(symbol: str, done: int, total: int) -> None:
                progress.update(symbol, done, total)
                self._step_aside()

            judged = judge(challenger, champion, candles, job.gate, now_ms, judging)
        page = Page(challenger, champion, judged, candles, job.gate, job.calibration)
        write_report(page, registry.report(version))
        try:
            registry.apply_decision(_entry(now_ms, version, champion, judged.decision))
        except Overtaken as error:
            log.info("%s: it is judged again", error)
            return self._judge(version, candles)
        # A trial takes longer than a few nights; without its challenger it would be for nothing.
        trial = TrialFiles(job.state / FOLDER).current()
        registry.prune(job.keep, None if trial is None else trial.challenger)
        return _status(now_ms, version, judged.decision)

    def _decided(self, version: str) -> Decision:
        made = [entry.gate for entry in self._registry.decisions() if entry.version == version]
        gate = made[-1] if made else None
        if gate is None:
            (self._job.folder / _PLAN).unlink()
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


def check_span(days: float, gate_days: float, keep_days: float) -> None:
    """Refuse spans that cannot hold what they must.

    Raises:
        ConfigError: naming the settings.
    """
    if not gate_days < days <= keep_days:
        msg = (
            f"retrain.days {days:g} must be more than registry.gate_days {gate_days:g} and at most "
            f"history.keep_days {keep_days:g}"
        )
        raise ConfigError(msg)
