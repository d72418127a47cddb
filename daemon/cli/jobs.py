"""Run `candlecast retrain` and `candlecast replay` from the settings, and word their results."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from daemon.factories import gate_of, indicators_of
from daemon.jobs.low_priority import NICENESS, lower_priority
from daemon.jobs.retrain import retrain
from daemon.jobs.retrain_job import RetrainJob, check_span
from daemon.runtime.clock import SystemClock
from daemon.runtime.progress import candles_progress
from model.core.candle import Timeframe
from model.core.errors import CandlecastError, ConfigError
from model.core.market import MarketKey
from model.forecasts.rules import Rules
from model.history.reader import HistoryReader
from model.registry.registry import Registry
from model.replay.replay import TOLERANCE, Replayed, replay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from config.settings import Settings

_MAX_SHOWN_DIFFERENCES: Final = 20
_KEY_SECTIONS: Final = {"exchange", "trading", "model", "indicators", "retrain", "registry"}
"""Sections that a training depends on; a run under others starts over."""


def run_retrain(settings: Settings, config: Path, rules: Rules) -> str:
    """Run `candlecast retrain`.

    Args:
        settings: the checked configuration.
        config: its file, which the reference classes read themselves.
        rules: settings of intervals and probabilities.

    Returns:
        The decision, in one line.

    Raises:
        CandlecastError: the run failed; its work is kept for the next run.
    """
    job = retrain_job(settings, config, rules)
    lower_priority(NICENESS, settings.retrain.threads)
    try:
        status = retrain(job, SystemClock(), candles_progress)
    except KeyboardInterrupt:
        msg = "interrupted; run candlecast retrain again to continue"
        raise CandlecastError(msg) from None
    return f"{'champion' if status.promoted else 'not promoted'}: {status.version}: {status.reason}"


def run_replay(settings: Settings, start: str, end: str) -> Iterator[str]:
    """Run `candlecast replay`: compute forecasts again, with the history known at their time.

    Args:
        settings: the checked configuration.
        start: start of the span, as `parse_time_ms` reads it.
        end: end of the span, exclusive.

    Yields:
        Lines that list what was compared and what was different.

    Raises:
        CandlecastError: a value was different, or there was nothing to compare.
    """
    span = parse_time_ms(start), parse_time_ms(end)
    timeframe = Timeframe.parse(settings.trading.timeframe)
    market = MarketKey(settings.exchange.name, timeframe)
    archive = HistoryReader(settings.state_dir / "history.sqlite", market)
    try:
        with candles_progress() as progress:
            registry = Registry(settings.registry_dir)
            found = replay(archive, registry, timeframe.ms, *span, progress.update)
    finally:
        archive.close()
    yield from _replayed_lines(found)
    if found.differences:
        msg = f"{len(found.differences)} values differ by more than {TOLERANCE:g}"
        raise CandlecastError(msg)
    if not found.compared:
        msg = "nothing to compare: the history has no forecasts of this market in that time"
        raise CandlecastError(msg)


def parse_time_ms(text: str) -> int:
    """Parse a date or a time in ISO 8601, UTC by default.

    Returns:
        Unix milliseconds.

    Raises:
        ConfigError: it is neither.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        msg = f"{text!r} is not a time; write 2026-11-23 or 2026-11-23T02:00 (UTC)"
        raise ConfigError(msg) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _replayed_lines(found: Replayed) -> Iterator[str]:
    yield f"{found.compared} forecasts computed again, with the history known at their time"
    for reason, count in found.without.items():
        yield f"{count} of them without interval and probabilities: {reason}"
    for field, difference in found.largest.items():
        yield f"{field}: largest difference {difference:.1e}"
    for reason, count in found.skipped.items():
        yield f"{count} not compared: {reason}"
    for one in found.differences[:_MAX_SHOWN_DIFFERENCES]:
        at = datetime.fromtimestamp(one.forecast.candle_close_ms / 1000, UTC)
        was, now = ("null" if v is None else repr(v) for v in (one.published, one.computed))
        yield f"{one.forecast.symbol} {at:%Y-%m-%d %H:%M:%S} UTC: {one.field} was {was}, is {now}"


def retrain_job(settings: Settings, config: Path, rules: Rules) -> RetrainJob:
    """Create the job of `candlecast retrain` from the settings.

    Raises:
        ConfigError: the configured spans are too short or too long.
    """
    check_span(settings.retrain.days, settings.registry.gate_days, settings.history.keep_days)
    key_settings = settings.model_dump(mode="json", include=_KEY_SECTIONS)
    registry, model = settings.registry, settings.model
    job = RetrainJob(
        config=config,
        key=hashlib.sha256(json.dumps(key_settings, sort_keys=True).encode()).hexdigest(),
        state=settings.state_dir,
        exchange=settings.exchange.name,
        endpoint_rest=settings.exchange.endpoint.rest,
        symbols=settings.trading.symbols,
        timeframe=Timeframe.parse(settings.trading.timeframe),
        days=settings.retrain.days,
        lookback=model.lookback_periods,
        splits=(model.train_split, model.val_split),
        gate=gate_of(settings),
        calibration=rules,
        keep=registry.keep,
        warmup=indicators_of(settings).warmup,
        leave_out=model.unknown_symbols == "fit_on_warmup",
        max_filled=model.max_filled,
    )
    job.cut(job.rows)
    return job
