"""Recompute published forecasts from history over a kill, a night and a new model."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from daemon.cli.main import main
from model.registry.registry import Registry
from tests.integration.test_restart import MIN_N, Place, place
from tests.support.servers import MAX_WAIT_S

__all__ = ["place"]

SPAN = ("--from", "2020-01-01", "--to", "2100-01-01T00:00")


def replayed(
    place: Place, capsys: pytest.CaptureFixture[str], *span: str
) -> tuple[int, list[str], str]:
    capsys.readouterr()
    code = main(["replay", "--config", str(place.config), *(span or SPAN)])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def change(place: Place, statement: str, *values: object) -> None:
    path: Path = place.config.parent / "state" / "history.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        assert database.execute(statement, values).rowcount == 1


def night(place: Place) -> int:
    """Run the nightly job beside the daemon; drawn weights are easily beaten."""
    config = yaml.safe_load(place.config.read_text())
    config["model"] = {"epochs": 2, "lstm_units": [4], "batch_size": 64}
    config["registry"], config["retrain"] = {"gate_days": 0.0025}, {"days": 0.0092}
    command = [sys.executable, "-m", "daemon", "retrain", "--config"]
    # Beside the other one, so that both have the same state.
    beside = place.config.with_name("night.yaml")
    beside.write_text(yaml.safe_dump(config))
    return subprocess.run([*command, str(beside)], check=False, timeout=4 * MAX_WAIT_S).returncode


def no_candle_without_a_forecast(place: Place) -> None:
    """Of the newest daemon, the moment included at which the model changed."""
    versions = [f["model"]["version"] for f in place.forecasts()]
    changed = versions.index(versions[-1])
    for symbol in ("S00/USDT", "S01/USDT"):
        around = [f["seq"] for f in place.forecasts()[changed - 8 :] if f["symbol"] == symbol]
        assert around == list(range(around[0], around[-1] + 1))


@pytest.mark.timeout(900)
def test_what_was_published_comes_out_again(
    place: Place,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with place.running() as first:
        place.until_forecasts(12)
        first.kill()
    with place.running() as second:
        place.until_forecasts(4)
        assert night(place) == 0
        promoted = Registry(place.config.parent / "state" / "registry").champion()
        place.until_forecasts(4)
        while place.forecasts()[-1]["model"]["version"] != promoted:
            place.until_forecasts(2)
        place.until_forecasts(8)
        assert second.stop() == 0, second.log
    place.until_offline()
    no_candle_without_a_forecast(place)
    stored = place.query("SELECT count(*) FROM forecast")[0][0]
    assert stored >= 20

    code, lines, err = replayed(place, capsys)
    assert (code, err) == (0, ""), lines
    assert f"{stored} forecasts computed again, with the history known at their time" in lines
    spoken = place.query("SELECT count(DISTINCT model) FROM forecast")
    assert spoken == [(2,)]
    differences = dict(re.findall(r"(\w+): largest difference (\S+)", "\n".join(lines)))
    assert set(differences) == {
        *("last_close", "predicted_close", "predicted_normalized", "out_of_range"),
        *("lower", "upper", "threshold", "short", "long"),
    }
    assert max(map(float, differences.values())) <= 1e-6
    assert not any("not compared" in line or "without" in line for line in lines)
    assert place.query("SELECT count(*) FROM forecast WHERE upper IS NOT NULL")[0][0] >= MIN_N

    # Whoever reads that a probability was another one than was published is told.
    say = """UPDATE forecast SET short_ppb = short_ppb + ? WHERE (close_s, symbol) =
        (SELECT max(close_s), symbol FROM forecast WHERE short_ppb > 0)"""
    for by in (5_000, -5_000):
        change(place, say, by)
        code, lines, err = replayed(place, capsys)
        assert (code, err) == (
            (1, "candlecast: 1 values differ by more than 1e-06\n") if by > 0 else (0, "")
        )
        assert any(": short was 0." in line for line in lines) == (by > 0)

    # A revision that came after the forecast changes nothing: it was not known then.
    newest = "SELECT * FROM candle WHERE open_s = (SELECT max(close_s) - 5 FROM forecast) LIMIT 1"
    (row,) = place.query(newest)
    *key, delay_ms, opened, high, low, close, volume, by, filled = row
    late = (*key, delay_ms + 60_000, opened, high, low, close * 0.9999, volume, by, filled)
    change(place, "INSERT INTO candle VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", *late)
    assert replayed(place, capsys)[0] == 0

    # One that is said to have been known then does.
    revise = "UPDATE candle SET close = ? WHERE (market, open_s, symbol, delay_ms) = (?, ?, ?, ?)"
    change(place, revise, close * 1.001, *key, delay_ms)
    code, lines, err = replayed(place, capsys)
    assert code == 1
    assert re.fullmatch(r"candlecast: \d+ values differ by more than 1e-06\n", err)
    assert re.search(r"S0\d/USDT .* UTC: predicted_close was [\d.]+, is [\d.]+", "\n".join(lines))


def test_what_cannot_be_compared_is_said(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = replayed(place, capsys)
    assert code == 1
    assert err.startswith("candlecast: there is no history at ")
    assert replayed(place, capsys, "--from", "yesterday", "--to", "now")[0] == 2
    with place.running() as daemon:
        place.until_forecasts(6)
        assert daemon.stop() == 0, daemon.log
    code, _, err = replayed(place, capsys, "--from", "2020-01-01", "--to", "2020-01-02")
    assert code == 1
    assert "nothing to compare" in err
    older = "SELECT open_s, symbol FROM candle ORDER BY open_s DESC LIMIT 1 OFFSET 40"
    gone = place.query(older)[0]
    change(place, "DELETE FROM candle WHERE (open_s, symbol) = (?, ?)", *gone)
    code, lines, _ = replayed(place, capsys)
    assert any("not compared: candles are missing in history" in line for line in lines)
    change(place, "UPDATE model SET sha256 = 'other'")
    code, lines, _ = replayed(place, capsys)
    assert code == 1
    assert any("not compared: its model is not in the registry any more" in line for line in lines)
