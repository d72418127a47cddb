"""Test the way from an empty folder to a promoted model."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.runtime.clock import SystemClock
from daemon.sandbox.exchange import SandboxExchange
from daemon.sandbox.recording import Playback, build_playback
from model.core.candle import Timeframe

MINUTE = Timeframe.parse("1m")
CONFIG = """
trading: {symbols: [S00/USDT, S01/USDT], timeframe: 1m}
model: {epochs: 1, batch_size: 256, lookback_periods: 8, lstm_units: [4, 3]}
"""


@pytest.fixture
def playback() -> Playback:
    return build_playback(2, MINUTE, MINUTE.floor(SystemClock().wall_ms()) - 2_000 * MINUTE.ms)


async def candlecast(folder: Path, rest_url: str, *argv: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "daemon", *argv, "--config", "config.yaml", cwd=folder,
        env=os.environ | {"CANDLECAST__EXCHANGE__ENDPOINT__REST": rest_url},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_an_empty_machine_gets_a_model(playback: Playback, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG, encoding="utf-8")

    async with SandboxExchange(playback) as exchange:
        url = exchange.rest_url
        code, _, err = await candlecast(tmp_path, url, "run")
        assert (code, len(err.splitlines())) == (2, 1)
        assert "candlecast fetch && candlecast train --promote" in err

        code, _, err = await candlecast(tmp_path, url, "train")
        assert (code, len(err.splitlines())) == (2, 1)
        assert "candlecast fetch" in err

        code, out, err = await candlecast(tmp_path, url, "fetch", "--days", "1")
        assert (code, err) == (0, "")
        assert len(list((tmp_path / "data").glob("S0?-USDT_1m_*_to_*.csv"))) == 2

        # The exchange began some 2,000 minutes ago.
        code, out, err = await candlecast(tmp_path, url, "fetch", "--days", "3")
        assert code == 1
        assert len([line for line in out.splitlines() if line.endswith(".csv")]) == 2
        lines = err.splitlines()
        for line, symbol in zip(lines, ("S00/USDT", "S01/USDT"), strict=False):
            assert line.startswith(f"candlecast: {symbol}: ")
            assert re.search(r" 1m candles; of the 4,3\d\d requested, the exchange lacks 2,3", line)
        assert "fetch fewer days" in lines[2]

        code, out, err = await candlecast(tmp_path, url, "train", "--promote")
        assert code == 0, err
        for symbol in ("S00/USDT", "S01/USDT"):
            assert re.search(rf"{symbol} 1m: .* 0 of them \(0 %\) filled", out)
        # Nothing but what candlecast itself logs: TensorFlow's notes stay out of sight.
        assert all(" candlecast." in line for line in err.splitlines()), err
        version = out.splitlines()[-1].removeprefix("champion: ")

        _, out, _ = await candlecast(tmp_path, url, "models", "list")
        listed, _, _, decided = out.splitlines()
        assert listed.startswith(f"{version}  champion  1m log_return, 2 symbols, trained to ")
        assert f"{version} promoted by hand (champion before: none)" in decided
        _, out, _ = await candlecast(tmp_path, url, "models", "show")
        manifest = json.loads(out)
        assert manifest["symbols"] == ["S00/USDT", "S01/USDT"]

        code, out, err = await candlecast(tmp_path, url, "evaluate", "--output", "judged")
        assert (code, err) == (0, "")
        assert out.count("filled for lack of a candle") == 2
        judged = json.loads((tmp_path / "judged" / "evaluation.json").read_text())["all"]
        # The same candles as the training's own test, by the compiled network.
        assert judged["n"] > 100
        metrics, ratio = manifest["metrics"], judged["mae_ratio"]
        assert ratio["value"] == pytest.approx(metrics["mae_ratio"], 1e-5)
        assert ratio["low"] == pytest.approx(metrics["mae_ratio_low"], 1e-5)
    assert (tmp_path / "state" / "registry" / version / "model.keras").is_file()
