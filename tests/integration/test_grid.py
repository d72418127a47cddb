"""Test fetching, training and forecasting on candles that begin at an unusual time."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.runtime.clock import SystemClock
from daemon.sandbox.exchange import SandboxExchange
from daemon.sandbox.recording import Playback, build_playback
from model.core.candle import Timeframe
from model.core.market import MarketKey
from model.history.reader import HistoryReader
from tests.faults.fault_harness import FaultHarness
from tests.faults.schedule import Fault
from tests.sandbox.scaled import RECORDING

MINUTE = Timeframe.parse("1m")
HOUR = Timeframe.parse("1h")
LATER_MS = 20_000
"""Minutes begin so long after those of the clock."""

SECTIONS: dict[str, dict[str, Any]] = {
    "trading": {"symbols": ["S00/USDT", "S01/USDT"], "timeframe": "1h"},
    "model": {"epochs": 1, "batch_size": 256, "lookback_periods": 8, "lstm_units": [3]},
    "registry": {"gate_days": 10, "margin": 0.5},
    "retrain": {"days": 50},
}


def playback_of(frame: Timeframe, phase_ms: int, candles: int) -> Playback:
    now_ms = SystemClock().wall_ms()
    origin_ms = frame.floor(now_ms) - candles * frame.ms + phase_ms
    return build_playback(2, frame, origin_ms, recording=RECORDING)


async def candlecast(folder: Path, url: str, *argv: str) -> tuple[str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "daemon", *argv, "--config", "config.yaml", cwd=folder,
        env=os.environ | {"CANDLECAST__EXCHANGE__ENDPOINT__REST": url},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode(), err.decode()


@pytest.mark.may_block("the test looks into files")
async def test_hours_that_begin_at_half_past_are_fetched_trained_on_and_judged(
    tmp_path: Path,
) -> None:
    half_ms = HOUR.ms // 2
    playback = playback_of(HOUR, half_ms, 1_500)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(SECTIONS), encoding="utf-8")
    async with SandboxExchange(playback) as exchange:
        url = exchange.rest_url
        _, err = await candlecast(tmp_path, url, "fetch", "--days", "50")
        assert "binance opens a 1h candle at" in err
        for path in (tmp_path / "data").glob("*.csv"):
            opens = [int(line.split(",")[0]) for line in path.read_text().splitlines()[1:]]
            assert len(opens) in range(1_195, 1_225)
            assert {at % HOUR.ms for at in opens} == {half_ms}
        await candlecast(tmp_path, url, "train", "--promote")
        await candlecast(tmp_path, url, "evaluate", "--output", "judged")
        assert json.loads((tmp_path / "judged" / "evaluation.json").read_text())["all"]["n"] > 100
        out, _ = await candlecast(tmp_path, url, "retrain")
        assert "promoted" in out or "champion" in out
    archive = HistoryReader(tmp_path / "state" / "history.sqlite", MarketKey.parse("binance", "1h"))
    try:
        found = archive.revisions("S01/USDT", playback.origin_ms, SystemClock().wall_ms())
    finally:
        archive.close()
    opens = [candle.open_ms for candle in found]
    assert len(opens) == 1_200
    assert opens == list(range(opens[0], opens[-1] + 1, HOUR.ms))
    assert opens[0] % HOUR.ms == half_ms
    assert found[-1].close_ms <= SystemClock().wall_ms()


@pytest.mark.may_block("opening a model and a broker takes place before there is a deadline")
async def test_minutes_that_begin_later_are_forecast_and_resumed_after_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    harness = FaultHarness(tmp_path, playback_of(MINUTE, LATER_MS, 1_500), 30.0)

    def closes(since: int) -> set[tuple[str, int]]:
        documents = [json.loads(published.payload) for published in harness.published[since:]]
        for forecast in documents:
            assert forecast["candle_close_ms"] % MINUTE.ms == LATER_MS
            assert forecast["seq"] == forecast["candle_close_ms"] // MINUTE.ms
            assert forecast["window"]["filled"] == 0
        return {(forecast["symbol"], forecast["seq"]) for forecast in documents}

    async with harness.running():
        await harness.until(lambda: len(closes(0)) >= 8)
        since = len(harness.published)
        await harness.play([Fault(0.0, "restart daemon", "", 0.0, 0.0)])
        await harness.until(lambda: "2 of 2 symbols resume from history" in caplog.text)
        await harness.until(lambda: len(closes(since)) >= 8)
        metrics = harness.app.metrics.registry if harness.app else None
        assert metrics is not None
        assert metrics.get_sample_value("candlecast_feed_off_grid_total") == 0
        assert metrics.get_sample_value("candlecast_feed_refused_total") == 0
        assert metrics.get_sample_value("candlecast_feed_stale_symbols") == 0
        by_symbol = [
            sorted(seq for s, seq in closes(0) if s == name) for name in harness.playback.symbols
        ]
        for seqs in by_symbol:
            # The daemon was away for some candles at most once.
            assert sum(after - before > 1 for before, after in pairwise(seqs)) <= 1
    assert "binance opens a 1m candle at" in caplog.text
