"""A retrain run: continued after an interruption, judged, decided and recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from daemon.jobs.retrain import retrain
from daemon.jobs.retrain_job import RetrainJob
from model.core.candle import Candle, Ohlcv, Timeframe
from model.core.errors import CandlecastError
from model.core.market import MarketKey
from model.forecasts.rules import Rules
from model.history.store import History
from model.registry.registry import Registry
from model.shared_state.live_trial import FOLDER, Trial, TrialFiles
from model.shared_state.retrain_status import RetrainStatus
from model.stats.promotion_gate import GateRules
from tests.support.manual_clock import ManualClock
from tests.support.tiny_models import promote, random_candles, write

QUARTER = Timeframe.parse("15m")
ROWS = 1_000
START_MS = 1_776_859_200_000
END_MS = START_MS + ROWS * QUARTER.ms
SYMBOL = "BTC/USDT"


class Silent:
    def update(self, symbol: str, done: int, total: int) -> None:
        pass


def silent() -> AbstractContextManager[Silent]:
    return nullcontext(Silent())


def filled(state: Path) -> None:
    ohlcv = random_candles(ROWS, 3)
    rows = (Ohlcv(*values) for values in ohlcv.tolist())
    history = History(state / "history.sqlite")
    history.add_candles(
        MarketKey.parse("binance", "15m"),
        [
            Candle(SYMBOL, at, at + QUARTER.ms, row, at + QUARTER.ms + 5, 0.0, "exchange_flag")
            for at, row in zip(range(START_MS, END_MS, QUARTER.ms), rows, strict=True)
        ],
    )
    history.close()
    for seed in (3, 4):
        promote(
            state / "registry",
            {SYMBOL: random_candles(ROWS, seed)},
            timeframe="15m",
            trained_to_ms=START_MS + 200 * QUARTER.ms,
        )


@pytest.fixture
def job(tmp_path: Path) -> RetrainJob:
    filled(tmp_path)
    return RetrainJob(
        max_filled=0.05,
        config=tmp_path / "config.yaml",
        key="settings",
        state=tmp_path,
        exchange="binance",
        # Nothing listens there, so that a request for candles fails.
        endpoint_rest="http://127.0.0.1:9",
        symbols=(SYMBOL,),
        timeframe=QUARTER,
        days=ROWS / 96,
        lookback=8,
        splits=(0.7, 0.15),
        gate=GateRules(gate_days=5, margin=0.5, max_age_days=30),
        calibration=Rules(),
        keep=10,
        warmup=40,
        leave_out=False,
    )


def planned(job: RetrainJob, version: str, more: Mapping[str, Any] = MappingProxyType({})) -> None:
    plan: dict[str, Any] = {
        "key": job.key,
        "started_ms": END_MS,
        "from_ms": START_MS,
        "until_ms": END_MS,
    }
    plan |= {"known_ms": END_MS + 60_000, "version": version}
    job.folder.mkdir(exist_ok=True)
    (job.folder / "plan.json").write_text(json.dumps(plan | dict(more)))


def test_a_trained_model_is_judged_without_training_or_fetching_again(job: RetrainJob) -> None:
    registry, clock = Registry(job.state / "registry"), ManualClock(END_MS + 60_000)
    champion, challenger = registry.champion(), registry.previous()
    assert challenger is not None
    planned(job, challenger)
    status = retrain(job, clock, silent)
    (entry,) = registry.decisions()
    assert entry.gate is not None
    assert (entry.by, entry.version, entry.champion) == ("retrain", challenger, champion)
    assert status == RetrainStatus.read(job.state)
    assert status.version == challenger
    assert status.promoted == (registry.champion() == challenger) == entry.gate.promote
    assert registry.report(challenger).exists()
    assert [path.name for path in job.folder.iterdir()] == [".lock"]


@pytest.mark.parametrize(("max_filled", "level"), [(0.05, "WARNING"), (0.2, "INFO")])
def test_the_share_that_is_filled_is_logged(
    job: RetrainJob, caplog: pytest.LogCaptureFixture, max_filled: float, level: str
) -> None:
    job.history.unlink()
    history = History(job.history)
    rows = (Ohlcv(*values) for values in random_candles(ROWS, 3).tolist())
    whole = [
        Candle(SYMBOL, at, at + QUARTER.ms, row, at + QUARTER.ms + 5, 0.0, "rest")
        for at, row in zip(range(START_MS, END_MS, QUARTER.ms), rows, strict=True)
    ]
    # Some are stored as filled, others are missing.
    unlike = [candle._replace(filled=True) for candle in whole[50:110]]
    history.add_candles(MarketKey.parse("binance", "15m"), [*whole[:50], *unlike, *whole[150:]])
    history.close()
    version = Registry(job.state / "registry").previous()
    assert version is not None
    planned(job, version)
    caplog.set_level("INFO", "candlecast.jobs")
    retrain(replace(job, max_filled=max_filled), ManualClock(END_MS + 60_000), silent)
    (warning,) = [record for record in caplog.records if "filled for lack" in record.message]
    assert warning.levelname == level
    assert warning.message.startswith("BTC/USDT 15m: 1,000 periods from 2026-04-22 12:00 to ")
    assert "100 of them (10 %) filled for lack of a candle" in warning.message


def test_a_model_on_live_trial_is_not_pruned(job: RetrainJob) -> None:
    registry = Registry(job.state / "registry")
    challenger = registry.previous()
    assert challenger is not None
    market = {SYMBOL: random_candles(ROWS, 5)}
    made = [write(registry.root, market, timeframe="15m", seed=n).version for n in range(4)]
    tried, *others = sorted(made)
    TrialFiles(job.state / FOLDER).begin(Trial(tried, registry.champion(), (SYMBOL,)))
    planned(job, challenger)
    retrain(replace(job, keep=0), ManualClock(END_MS + 60_000), silent)
    left = registry.list()
    assert tried in left
    assert not set(others) & set(left)


def test_a_symbol_without_candles_ends_the_run_unless_it_may_be_left_out(
    job: RetrainJob,
) -> None:
    registry = Registry(job.state / "registry")
    challenger = registry.previous()
    assert challenger is not None
    young = replace(job, symbols=("NEW/USDT", SYMBOL))
    planned(job, challenger)
    with pytest.raises(CandlecastError, match="there are no 15m candles of NEW/USDT"):
        retrain(young, ManualClock(END_MS + 60_000), silent)
    with pytest.raises(CandlecastError, match="there are no 15m candles of NEW/USDT"):
        retrain(
            replace(young, leave_out=True, symbols=("NEW/USDT",)),
            ManualClock(END_MS + 60_000),
            silent,
        )
    status = retrain(replace(young, leave_out=True), ManualClock(END_MS + 60_000), silent)
    assert status.version == challenger
    assert status.candles is not None


def test_a_champion_promoted_during_the_judging_is_the_one_to_beat(job: RetrainJob) -> None:
    registry = Registry(job.state / "registry")
    beaten, challenger = registry.champion(), registry.previous()
    assert challenger is not None
    market = {SYMBOL: random_candles(ROWS, 5)}
    better = write(
        registry.root, market, timeframe="15m", trained_to_ms=START_MS + 200 * QUARTER.ms
    ).version
    planned(job, challenger)

    class Meanwhile(Silent):
        def update(self, symbol: str, done: int, total: int) -> None:
            super().update(symbol, done, total)
            registry.promote(better)

    retrain(job, ManualClock(END_MS + 60_000), lambda: nullcontext(Meanwhile()))
    (entry,) = registry.decisions()
    assert entry.champion == better != beaten
    assert registry.champion() == (challenger if entry.action == "promote" else better)


def test_a_run_interrupted_after_promoting_reports_it(job: RetrainJob) -> None:
    registry, clock = Registry(job.state / "registry"), ManualClock(END_MS + 60_000)
    challenger = registry.previous()
    assert challenger is not None
    planned(job, challenger)
    retrain(job, clock, silent)
    (entry,) = registry.decisions()
    assert entry.gate is not None
    # The state after a power loss between the promotion and `retrain.json`.
    registry.record_decision(
        replace(entry, action="promote", gate=replace(entry.gate, promote=True))
    )
    registry.promote(challenger)
    planned(job, challenger)
    status = retrain(job, clock, silent)
    assert status.promoted
    assert status.reason == entry.gate.reason
    assert len(registry.decisions()) == 2
    assert registry.champion() == challenger


def test_a_challenger_promoted_by_hand_meanwhile_is_reported(job: RetrainJob) -> None:
    registry = Registry(job.state / "registry")
    planned(job, registry.champion())
    with pytest.raises(CandlecastError, match="was promoted by hand while it was being judged"):
        retrain(job, ManualClock(END_MS + 60_000), silent)
    status = RetrainStatus.read(job.state)
    assert status is not None
    assert "by hand" in (status.error or "")
    # The next run has no plan to continue.
    assert not (job.folder / "plan.json").exists()


@pytest.mark.parametrize(
    "changed",
    # The timer's runs are 23.5 to 24.5 hours apart.
    [{"key": "other settings"}, {"started_ms": END_MS - 84_600_000}, {"started_ms": END_MS + 10**9},
     {"version": "20260101T000000Z-000000"}, {"surprise": 1}],
)  # fmt: skip
def test_a_plan_that_is_old_or_of_other_settings_is_not_resumed(
    job: RetrainJob, changed: dict[str, Any]
) -> None:
    challenger = Registry(job.state / "registry").previous()
    assert challenger is not None
    planned(job, challenger, changed)
    # A new plan begins with a request for missing candles.
    with pytest.raises(CandlecastError, match="it cannot be reached"):
        retrain(job, ManualClock(END_MS + 60_000), silent)
    plan = json.loads((job.folder / "plan.json").read_text())
    assert plan["version"] is plan["known_ms"] is None
    assert asdict(job)["key"] == plan["key"] == "settings"


def test_a_damaged_champion_is_reported_before_anything_is_fetched_or_trained(
    job: RetrainJob,
) -> None:
    registry = Registry(job.state / "registry")
    (registry.root / registry.champion() / "step.onnx").write_bytes(b"rotten")
    with pytest.raises(CandlecastError, match=r"step\.onnx: has changed since it was written"):
        retrain(job, ManualClock(END_MS + 60_000), silent)


def test_a_file_that_cannot_be_written_is_reported_like_any_other_failure(job: RetrainJob) -> None:
    (job.folder / "plan.json" / "in the way").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        retrain(job, ManualClock(END_MS + 60_000), silent)
    status = RetrainStatus.read(job.state)
    assert status is not None
    assert "Is a directory" in (status.error or "")


def test_a_failure_keeps_the_time_of_the_last_success(job: RetrainJob) -> None:
    RetrainStatus(END_MS - 5, 1.0, END_MS - 5, None).write(job.state)
    with pytest.raises(CandlecastError):
        retrain(job, ManualClock(END_MS + 60_000), silent)
    status = RetrainStatus.read(job.state)
    assert status is not None
    assert (status.success_ms, status.finished_ms) == (END_MS - 5, END_MS + 60_000)
