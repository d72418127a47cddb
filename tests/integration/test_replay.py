"""Recompute published forecasts from history over a kill, a nightly run and a new model."""

from __future__ import annotations

import re
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from daemon.cli.main import main
from model.registry.registry import Registry
from tests.integration.test_restart import MIN_N, Deployment, deployment
from tests.support.servers import MAX_WAIT_S, NORMAL_PRIORITY_COMMAND

__all__ = ["deployment"]

SPAN = ("--from", "2020-01-01", "--to", "2100-01-01T00:00")


def replayed(
    deployment: Deployment, capsys: pytest.CaptureFixture[str], *span: str
) -> tuple[int, list[str], str]:
    capsys.readouterr()
    code = main(["replay", "--config", str(deployment.config), *(span or SPAN)])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def change(deployment: Deployment, statement: str, *values: object) -> None:
    path: Path = deployment.config.parent / "state" / "history.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        assert database.execute(statement, values).rowcount == 1


def run_nightly_job(deployment: Deployment) -> int:
    """Run the nightly job beside the daemon; drawn weights are easily beaten."""
    config = yaml.safe_load(deployment.config.read_text())
    config["model"] = {"epochs": 2, "lstm_units": [4], "batch_size": 64}
    config["registry"], config["retrain"] = {"gate_days": 0.0025}, {"days": 0.0092}
    command = [*NORMAL_PRIORITY_COMMAND, "retrain", "--config"]
    # Beside the other one, so that both have the same state.
    beside = deployment.config.with_name("night.yaml")
    beside.write_text(yaml.safe_dump(config))
    return subprocess.run([*command, str(beside)], check=False, timeout=4 * MAX_WAIT_S).returncode


def no_candle_without_a_forecast(deployment: Deployment) -> None:
    """Of the newest daemon, the moment included at which the model changed."""
    versions = [f["model"]["version"] for f in deployment.forecasts()]
    changed = versions.index(versions[-1])
    for symbol in ("S00/USDT", "S01/USDT"):
        around = [f["seq"] for f in deployment.forecasts()[changed - 8 :] if f["symbol"] == symbol]
        assert around == list(range(around[0], around[-1] + 1))


@pytest.mark.timeout(900)
def test_published_forecasts_are_recomputed(
    deployment: Deployment,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with deployment.running() as first:
        deployment.until_forecasts(12)
        first.kill()
    with deployment.running() as second:
        deployment.until_forecasts(4)
        assert run_nightly_job(deployment) == 0
        promoted = Registry(deployment.config.parent / "state" / "registry").champion()
        deployment.until_forecasts(4)
        while deployment.forecasts()[-1]["model"]["version"] != promoted:
            deployment.until_forecasts(2)
        deployment.until_forecasts(8)
        assert second.stop() == 0, second.log
    deployment.until_offline()
    no_candle_without_a_forecast(deployment)
    stored = deployment.query("SELECT count(*) FROM forecast")[0][0]
    assert stored >= 20

    code, lines, err = replayed(deployment, capsys)
    assert (code, err) == (0, ""), lines
    assert f"{stored} forecasts computed again, with the history known at their time" in lines
    spoken = deployment.query("SELECT count(DISTINCT model) FROM forecast")
    assert spoken == [(2,)]
    differences = dict(re.findall(r"(\w+): largest difference (\S+)", "\n".join(lines)))
    assert set(differences) == {
        *("last_close", "predicted_close", "predicted_normalized", "out_of_range"),
        *("lower", "upper", "threshold", "short", "long"),
    }
    assert max(map(float, differences.values())) <= 1e-6
    assert not any("not compared" in line or "without" in line for line in lines)
    assert deployment.query("SELECT count(*) FROM forecast WHERE upper IS NOT NULL")[0][0] >= MIN_N

    # A probability that differs from the published one is reported.
    say = """UPDATE forecast SET short_ppb = short_ppb + ? WHERE (close_s, symbol) =
        (SELECT max(close_s), symbol FROM forecast WHERE short_ppb > 0)"""
    for by in (5_000, -5_000):
        change(deployment, say, by)
        code, lines, err = replayed(deployment, capsys)
        assert (code, err) == (
            (1, "candlecast: 1 values differ by more than 1e-06\n") if by > 0 else (0, "")
        )
        assert any(": short was 0." in line for line in lines) == (by > 0)

    # A revision that came after the forecast changes nothing: it was not known then.
    newest = "SELECT * FROM candle WHERE open_s = (SELECT max(close_s) - 5 FROM forecast) LIMIT 1"
    (row,) = deployment.query(newest)
    *key, delay_ms, opened, high, low, close, volume, by, filled = row
    late = (*key, delay_ms + 60_000, opened, high, low, close * 0.9999, volume, by, filled)
    change(deployment, "INSERT INTO candle VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", *late)
    assert replayed(deployment, capsys)[0] == 0

    # A revision recorded as known at that time does.
    revise = "UPDATE candle SET close = ? WHERE (market, open_s, symbol, delay_ms) = (?, ?, ?, ?)"
    change(deployment, revise, close * 1.001, *key, delay_ms)
    code, lines, err = replayed(deployment, capsys)
    assert code == 1
    assert re.fullmatch(r"candlecast: \d+ values differ by more than 1e-06\n", err)
    assert re.search(r"S0\d/USDT .* UTC: predicted_close was [\d.]+, is [\d.]+", "\n".join(lines))


def test_forecasts_that_cannot_be_compared_are_reported(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = replayed(deployment, capsys)
    assert code == 1
    assert err.startswith("candlecast: there is no history at ")
    assert replayed(deployment, capsys, "--from", "yesterday", "--to", "now")[0] == 2
    with deployment.running() as daemon:
        deployment.until_forecasts(6)
        assert daemon.stop() == 0, daemon.log
    code, _, err = replayed(deployment, capsys, "--from", "2020-01-01", "--to", "2020-01-02")
    assert code == 1
    assert "nothing to compare" in err
    older = "SELECT open_s, symbol FROM candle ORDER BY open_s DESC LIMIT 1 OFFSET 40"
    gone = deployment.query(older)[0]
    change(deployment, "DELETE FROM candle WHERE (open_s, symbol) = (?, ?)", *gone)
    code, lines, _ = replayed(deployment, capsys)
    assert any("not compared: candles are missing in history" in line for line in lines)
    change(deployment, "UPDATE model SET sha256 = 'other'")
    code, lines, _ = replayed(deployment, capsys)
    assert code == 1
    assert any("not compared: its model is not in the registry any more" in line for line in lines)
