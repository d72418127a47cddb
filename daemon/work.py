"""Commands that are work of their own: from settings to a job, and what is said at its end."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from daemon.clock import SystemClock
from daemon.progress import candles_progress
from daemon.retrain import RetrainJob, be_modest, check_span, retrain
from model.calibration import Rules
from model.candle import Timeframe
from model.errors import CandlecastError
from model.gate import GateRules

if TYPE_CHECKING:
    from pathlib import Path

    from config.settings import Settings

_KEY_SECTIONS = {"exchange", "trading", "model", "indicators", "retrain", "registry"}


def run_retrain(settings: Settings, config: Path, rules: Rules) -> str:
    """`candlecast retrain`.

    Args:
        settings: the checked configuration.
        config: its file, which the reference classes read for themselves.
        rules: what intervals and probabilities shall be.

    Returns:
        What was decided, in one line.

    Raises:
        CandlecastError: one clear line; what was done so far is kept for the next run.
    """
    check_span(settings.retrain.days, settings.registry.gate_days, settings.history.keep_days)
    be_modest(settings.retrain.nice, settings.retrain.threads)
    try:
        with candles_progress() as progress:
            status = retrain(_retrain_job(settings, config, rules), SystemClock(), progress)
    except KeyboardInterrupt:
        msg = "interrupted; run candlecast retrain again to go on from here"
        raise CandlecastError(msg) from None
    return f"{'champion' if status.promoted else 'not promoted'}: {status.version}: {status.reason}"


def _retrain_job(settings: Settings, config: Path, rules: Rules) -> RetrainJob:
    decisive = settings.model_dump(mode="json", include=_KEY_SECTIONS)
    registry, model = settings.registry, settings.model
    return RetrainJob(
        config=config,
        key=hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest(),
        state=settings.state_dir,
        exchange=settings.exchange.name,
        endpoint_rest=settings.exchange.endpoint.rest,
        symbols=settings.trading.symbols,
        timeframe=Timeframe.parse(settings.trading.timeframe),
        days=settings.retrain.days,
        lookback=model.lookback_periods,
        splits=(model.train_split, model.val_split),
        gate=GateRules(registry.gate_days, registry.margin, registry.max_age),
        calibration=rules,
        keep=registry.keep,
    )
