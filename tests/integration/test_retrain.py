"""Test `candlecast retrain` as a timer runs it: killed, continued, locked and interrupted."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.jobs.models import list_models
from daemon.jobs.retrain_job import check_span
from daemon.runtime.clock import SystemClock
from daemon.sandbox.exchange import SandboxExchange
from daemon.sandbox.recording import Playback, build_playback
from model.core.candle import Timeframe
from model.core.errors import ConfigError
from model.core.market import MarketKey
from model.history.reader import HistoryReader
from model.registry.registry import Registry
from model.shared_state.retrain_status import RetrainStatus
from tests.support.servers import NORMAL_PRIORITY_COMMAND, silent_exchange

MINUTE = Timeframe.parse("1m")
SYMBOLS = ["S00/USDT", "S01/USDT"]
SECTIONS: dict[str, dict[str, Any]] = {
    "trading": {"symbols": SYMBOLS, "timeframe": "1m"},
    "model": {"epochs": 4, "batch_size": 256, "lookback_periods": 8, "lstm_units": [3]},
    "registry": {"gate_days": 0.25, "margin": 0.5},
    "retrain": {"days": 0.75},
}


@pytest.fixture
def playback() -> Playback:
    return build_playback(2, MINUTE, MINUTE.floor(SystemClock().wall_ms()) - 1_300 * MINUTE.ms)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(SECTIONS), encoding="utf-8")
    return tmp_path


@asynccontextmanager
async def candlecast(
    folder: Path, url: str, *argv: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *NORMAL_PRIORITY_COMMAND, *argv, "--config", "config.yaml", cwd=folder,
        env=os.environ | {"CANDLECAST__EXCHANGE__ENDPOINT__REST": url},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def outcome(folder: Path, url: str, *argv: str) -> tuple[int | None, str, str]:
    async with candlecast(folder, url, *argv) as process:
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.may_block("the test looks into the registry and the history")
async def test_a_killed_retrain_continues_and_decides(playback: Playback, folder: Path) -> None:
    state = folder / "state"
    standing = state / "retrain" / "resume" / "standing.json"
    async with SandboxExchange(playback) as exchange:
        async with candlecast(folder, exchange.rest_url, "retrain") as nightly_job:
            while not standing.exists():
                assert nightly_job.returncode is None, await nightly_job.communicate()
                await asyncio.sleep(0.005)
            nightly_job.kill()
            await nightly_job.communicate()
        assert json.loads((state / "retrain" / "plan.json").read_text())["version"] is None
        assert Registry(state / "registry").list() == []

        code, out, err = await outcome(folder, exchange.rest_url, "retrain")
        assert code == 0, err
    # TensorFlow's notes stay out of sight.
    assert all(re.search(" INFO candlecast[.]", line) for line in err.splitlines()), err
    assert "going on after epoch" in out
    version = Registry(state / "registry").champion()
    *_, last = out.splitlines()
    assert last.startswith(f"champion: {version}: error ratio ")
    status = RetrainStatus.read(state)
    assert status is not None
    assert (status.version, status.promoted, status.rule) == (version, True, "first")
    assert status.error is None
    assert status.success_ms == status.finished_ms
    assert 350 <= (status.candles or 0) <= 365
    assert sorted(path.name for path in (state / "retrain").iterdir()) == [".lock"]

    listed = "\n".join(list_models(Registry(state / "registry"), status.finished_ms))
    assert f"{version} promoted by the nightly gate: error ratio" in listed
    report = state / "registry" / "reports" / f"{version}.md"
    assert f"# Model {version}\n\n**Promoted** (`first`): error ratio" in report.read_text()
    assert report.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

    archive = HistoryReader(state / "history.sqlite", MarketKey.parse("binance", "1m"))
    found = archive.revisions("S01/USDT", 0 + playback.origin_ms, status.finished_ms)
    archive.close()
    opens = [candle.open_ms for candle in found]
    assert len(opens) == 1080
    assert opens == list(range(opens[0], opens[-1] + 1, MINUTE.ms))


@pytest.mark.may_block("the test looks into what was written")
async def test_a_second_retrain_at_the_same_time_is_refused_in_one_line(folder: Path) -> None:
    lock = folder / "state" / "retrain" / ".lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("4711")
        held.flush()
        code, out, err = await outcome(folder, "http://127.0.0.1:9", "retrain")
    assert (code, out) == (1, "")
    assert err == "candlecast: another retrain is running (process 4711)\n"
    assert RetrainStatus.read(folder / "state") is None

    code, out, err = await outcome(folder, "http://127.0.0.1:9", "retrain")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "it cannot be reached" in err
    status = RetrainStatus.read(folder / "state")
    assert status is not None
    assert status.success_ms is None
    assert "it cannot be reached" in (status.error or "")


async def test_an_interrupted_retrain_shows_how_to_continue(folder: Path) -> None:
    async with (
        silent_exchange() as (url, asked),
        candlecast(folder, url, "retrain") as nightly_job,
    ):
        await asked.wait()
        nightly_job.send_signal(signal.SIGINT)
        _, err = await nightly_job.communicate()
    assert nightly_job.returncode == 1
    assert err.decode() == ("candlecast: interrupted; run candlecast retrain again to continue\n")


def test_spans_that_cannot_hold_the_gate_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"retrain\.days 5 must be more than .*gate_days 7 and"):
        check_span(5, 7, 90)
    with pytest.raises(ConfigError, match=r"at most history\.keep_days 20"):
        check_span(30, 7, 20)
    check_span(20, 7, 20)
