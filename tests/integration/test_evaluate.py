"""Test `candlecast evaluate` on recorded candles, and the files that it and `train` refuse."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from daemon.cli.main import main
from model.core.candle import Timeframe
from model.evaluation.hindcast import hindcast
from model.features.definitions import CLOSE_FEATURES, LOG_RETURN_FEATURES
from model.features.scaler import Target
from model.files.candle_csv import csv_name
from model.inference.engine import Engine
from model.registry.registry import Bundle
from model.serving import ServedModel
from tests.support.servers import MAX_WAIT_S
from tests.support.tiny_models import SHORT, Floats, promote

QUARTER = Timeframe.parse("15m")
LOOKBACK = 8
SYMBOLS = ("BTC/USDT", "ETH/USDT")
ROWS = 900
TRAINED_ROWS = 400


@pytest.fixture(scope="module")
def markets(candles_csv: Path) -> dict[str, pd.DataFrame]:
    """Two symbols over the same days; the second is another stretch of the recording."""
    recorded = pd.read_csv(candles_csv).rename(columns={"ts": "timestamp"})
    first, second = (recorded.iloc[n : n + ROWS].reset_index(drop=True) for n in (0, 5000))
    second["timestamp"] = first["timestamp"]
    return dict(zip(SYMBOLS, (first, second), strict=True))


def ohlcv(frame: pd.DataFrame) -> Floats:
    columns: Floats = frame[["open", "high", "low", "close", "volume"]].to_numpy(dtype=np.float64)
    return columns


class Deployment:
    """A folder with a configuration, candle files and a champion."""

    def __init__(
        self, folder: Path, markets: dict[str, pd.DataFrame], target: Target = "log_return"
    ) -> None:
        self.folder = folder
        self.config = folder / "config.yaml"
        sections = {
            "trading": {"symbols": list(SYMBOLS), "timeframe": "15m"},
            "paths": {"data": str(folder / "data"), "models": str(folder / "models")},
        }
        self.config.write_text(yaml.safe_dump(sections), encoding="utf-8")
        self.files = [self.write(symbol, frame) for symbol, frame in markets.items()]
        self.bundle = self.promote(markets, target)

    def promote(self, markets: dict[str, pd.DataFrame], target: Target) -> Bundle:
        return promote(
            self.folder / "state" / "registry",
            {symbol: ohlcv(frame) for symbol, frame in markets.items()},
            timeframe="15m",
            target=target,
            features=CLOSE_FEATURES if target == "close" else LOG_RETURN_FEATURES,
            lookback=LOOKBACK,
            trained_to_ms=int(markets[SYMBOLS[0]]["timestamp"].iloc[TRAINED_ROWS]),
        )

    def write(self, symbol: str, frame: pd.DataFrame, timeframe: str = "15m") -> Path:
        first, last = (int(frame["timestamp"].iloc[row]) for row in (0, -1))
        path = self.folder / "data" / csv_name(symbol, timeframe, first, last)
        path.parent.mkdir(exist_ok=True)
        frame.to_csv(path, index=False)
        return path

    def document(self) -> Any:
        return json.loads((self.folder / "models" / "evaluation.json").read_text())


@pytest.fixture
def deployment(tmp_path: Path, markets: dict[str, pd.DataFrame]) -> Deployment:
    return Deployment(tmp_path, markets)


def evaluate(deployment: Deployment, *argv: str | Path) -> int:
    return main(["evaluate", "--config", str(deployment.config), *map(str, argv)])


def test_a_model_is_judged_by_candles_it_was_not_trained_on(
    deployment: Deployment, markets: dict[str, pd.DataFrame], capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(deployment) == 0
    document = deployment.document()
    opens = markets[SYMBOLS[0]]["timestamp"]
    # The first whose whole window is after the last training candle.
    assert document["from_ms"] == opens[TRAINED_ROWS + LOOKBACK + 1]
    assert document["to_ms"] == opens[ROWS - 1]
    assert document["model"] == deployment.bundle.version
    each = ROWS - TRAINED_ROWS - LOOKBACK - 1
    assert [document["symbols"][s]["n"] for s in SYMBOLS] == [each, each]
    assert (document["all"]["n"], document["all"]["candles"]) == (2 * each, each)
    for name in ("mae_percent", "mae_ratio", "direction"):
        estimate = document["all"][name]
        assert estimate["low"] < estimate["value"] < estimate["high"]
    png = (deployment.folder / "models" / "evaluation.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    out, err = capsys.readouterr()
    assert err == ""
    ratio = document["symbols"]["ETH/USDT"]["mae_ratio"]
    expected = f"ratio {ratio['value']:.1f} ({ratio['low']:.1f} to {ratio['high']:.1f})"
    assert expected in next(line for line in out.splitlines() if line.startswith("ETH/USDT: 491 c"))
    assert "The model is worse than the last-value forecast." in out
    # The reference's direction is no result on returns.
    assert document["reference_direction"] is None
    assert "for returns, a forecast without skill is right in 66 %" in out


@pytest.mark.parametrize("target", ["close", "log_return"])
def test_forecasts_are_those_that_the_daemon_would_have_made(
    tmp_path: Path, markets: dict[str, pd.DataFrame], target: Target
) -> None:
    bundle = Deployment(tmp_path, markets, target).bundle
    seen: list[tuple[str, int, int]] = []
    scored = hindcast(bundle, markets, lambda *done: seen.append(done))
    capacity = SHORT.warmup + LOOKBACK
    engine = Engine(bundle.onnx, 2, LOOKBACK, len(bundle.manifest.features))
    served, both = ServedModel(bundle, SYMBOLS, engine), np.arange(2)
    every = [ohlcv(frame) for frame in markets.values()]
    for row in range(TRAINED_ROWS + LOOKBACK + 1, ROWS, 50):
        window = np.stack([rows[row - capacity : row] for rows in every])
        served.rebuild(both, window)
        raw = served.full(served.windows(both))
        prices = served.price(both, raw, window[:, -1, 3])
        now = scored.open_ms == markets[SYMBOLS[0]]["timestamp"][row]
        np.testing.assert_array_equal(scored.symbol[now], both)
        np.testing.assert_array_equal(scored.last_close[now], window[:, -1, 3])
        np.testing.assert_array_equal(scored.close[now], [rows[row, 3] for rows in every])
        np.testing.assert_allclose(scored.predicted[now], prices, rtol=1e-6)
    assert seen == [(symbol, done, 491) for symbol in SYMBOLS for done in (256, 491)]


def test_a_model_of_prices_shows_the_references_direction_beside_the_traders(
    tmp_path: Path, markets: dict[str, pd.DataFrame], capsys: pytest.CaptureFixture[str]
) -> None:
    deployment = Deployment(tmp_path, markets, "close")
    assert evaluate(deployment) == 0
    document = deployment.document()
    assert set(document["reference_direction"]) == set(SYMBOLS)
    shares = document["reference_direction"]
    expected = ", ".join(f"{s} {100 * shares[s]:.1f} %" for s in SYMBOLS)
    assert (
        f"Consecutive differences forecast with the right sign: {expected}."
        in capsys.readouterr().out
    )


def test_files_version_and_folder_can_be_chosen(
    deployment: Deployment, markets: dict[str, pd.DataFrame], capsys: pytest.CaptureFixture[str]
) -> None:
    first = deployment.bundle.version
    second = deployment.promote({s: f.iloc[:800] for s, f in markets.items()}, "log_return").version
    assert second != first
    output = deployment.folder / "elsewhere" / "deep"
    argv = ("--version", first, "--output", output, "--data", deployment.files[1])
    assert evaluate(deployment, *argv) == 0
    document = json.loads((output / "evaluation.json").read_text())
    assert (document["model"], list(document["symbols"])) == (first, ["ETH/USDT"])
    out = capsys.readouterr().out
    # One symbol needs no line for all of them.
    assert "all:" not in out
    assert out.endswith(f"{output / 'evaluation.json'}\n{output / 'evaluation.png'}\n")
    assert not (deployment.folder / "models").exists()


def test_the_table_fits_a_terminal(deployment: Deployment) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "daemon", "evaluate", "--config", "config.yaml", "--output", "."],
        cwd=deployment.folder, stdin=theirs, stdout=theirs, stderr=theirs,
        env=os.environ | {"COLUMNS": "80", "TERM": "dumb"},
    )  # fmt: skip
    os.close(theirs)
    text = b""
    # Linux reports the end of a terminal's other side as an error.
    try:
        while part := os.read(ours, 65536):
            text += part
    except OSError:
        pass
    os.close(ours)
    assert process.wait(MAX_WAIT_S) == 0, text
    shown = text.decode().replace("\r\n", "\n").splitlines()
    assert max(map(len, shown)) <= 80
    document = json.loads((deployment.folder / "evaluation.json").read_text())
    ratio = document["symbols"]["BTC/USDT"]["mae_ratio"]
    assert not any("…" in line for line in shown)
    row = next(n for n, line in enumerate(shown) if re.search("BTC/USDT +491 ", line))
    assert f"{ratio['value']:.1f}" in shown[row]
    assert f"{ratio['low']:.1f} {ratio['high']:.1f}" in shown[row + 1]


def test_judging_needs_no_keras(deployment: Deployment) -> None:
    code = (
        "import sys\nfrom daemon.cli.main import main\n"
        f"assert main(['evaluate', '--config', {str(deployment.config)!r}]) == 0\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=MAX_WAIT_S
    )
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert "onnxruntime" in loaded
    assert not loaded & {"keras", "tensorflow", "torch", "jax"}


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    # The content of the files is reported as soon as they are read.
    assert all("filled for lack of a candle" in line for line in out.splitlines()), out
    assert len(err.splitlines()) == 1, err
    return err


def test_too_few_candles_to_judge_end_with_a_remedy(
    deployment: Deployment, markets: dict[str, pd.DataFrame], capsys: pytest.CaptureFixture[str]
) -> None:
    deployment.files[1].unlink()
    deployment.write("ETH/USDT", markets["ETH/USDT"].iloc[: TRAINED_ROWS + LOOKBACK + 1])
    assert evaluate(deployment) == 1
    line = refused(capsys)
    assert f"ETH/USDT: no candle is left to judge model {deployment.bundle.version} by" in line
    assert "learnt from candles up to 2025-01-05 04:00 UTC" in line
    assert "the data end at 2025-01-05 06:00 UTC; fetch newer candles: candlecast fetch" in line


def test_one_candle_is_enough(deployment: Deployment, markets: dict[str, pd.DataFrame]) -> None:
    path = deployment.write("ETH/USDT", markets["ETH/USDT"].iloc[: TRAINED_ROWS + LOOKBACK + 2])
    assert evaluate(deployment, "--data", path) == 0
    alone = deployment.document()["symbols"]["ETH/USDT"]
    assert (alone["n"], alone["candles"]) == (1, 1)


@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.parametrize(
    ("name", "text", "code", "message"),
    [
        ("BTC-USDT_15m_20250101_to_20250102.csv", None, 1, "no such file"),
        ("candles.csv", "", 2, "holds no symbol of trading.symbols (BTC/USDT, ETH/USDT)"),
        ("BTC-USDT_15m_20250101_to_20250102.csv", "", 1, "not a CSV of candles"),
        ("BTC-USDT_15m_20250101_to_20250102.csv", "a,b\n1,2\n1,2,3\n", 1, "not a CSV of candles"),
        (
            "BTC-USDT_15m_20250101_to_20250102.csv",
            "open,b\n1,2\n",
            1,
            "lacks the columns timestamp",
        ),
        ("BTC-USDT_15m_20250101_to_20250102.csv", "\0\udcff", 1, "not a CSV of candles"),
    ],
)
def test_files_without_candles_are_refused_in_one_line(
    deployment: Deployment, capsys: pytest.CaptureFixture[str], command: str,
    name: str, text: str | None, code: int, message: str,
) -> None:  # fmt: skip
    path = deployment.folder / name
    if text is not None:
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    assert main([command, "--config", str(deployment.config), "--data", str(path)]) == code
    line = refused(capsys)
    assert line.startswith(f"candlecast: {path}: ")
    assert message in line


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_other_timeframes_and_short_files_are_refused_in_one_line(
    deployment: Deployment,
    markets: dict[str, pd.DataFrame],
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    few = markets[SYMBOLS[0]].iloc[:30]
    argv = [command, "--config", str(deployment.config), "--data"]
    path = deployment.write("BTC/USDT", few, "1h")
    every_hour = few.assign(timestamp=few["timestamp"].iloc[0] + 3_600_000 * np.arange(30))
    every_hour.to_csv(path, index=False)
    assert main([*argv, str(path)]) == 2
    assert "holds 1h candles, not 15m" in refused(capsys)
    assert main([*argv, str(deployment.write("BTC/USDT", few))]) == 1
    assert re.search("candles are too few|more candles are needed", refused(capsys))


def test_a_file_of_an_exchange_is_judged_by_like_one_that_was_fetched(
    deployment: Deployment, markets: dict[str, pd.DataFrame], capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(deployment, "--data", deployment.files[0]) == 0
    expected = deployment.document()
    dump = deployment.folder / "BTCUSDT-15m-2025-01.csv"
    frame = markets["BTC/USDT"][["timestamp", "open", "high", "low", "close", "volume"]]
    rows = frame.assign(timestamp=1000 * frame["timestamp"], more=1, trades=2)
    rows = rows.assign(**{f"other {n}": 0 for n in range(4)}).iloc[::-1]
    rows.to_csv(dump, index=False, header=False)
    capsys.readouterr()
    assert evaluate(deployment, "--data", dump) == 0
    assert deployment.document() == expected
    out = capsys.readouterr().out
    assert f"{dump}: line 1: no header" in out
    assert f"{dump}: line 1, column timestamp: " in out
    assert "is in microseconds, not milliseconds; read as that" in out
    assert f"{dump}: BTC/USDT 15m: 900 periods from 2025-01-01 00:00" in out


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_file_that_is_mostly_made_up_is_refused_until_it_is_allowed(
    deployment: Deployment,
    markets: dict[str, pd.DataFrame],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    path = deployment.write("BTC/USDT", markets["BTC/USDT"].drop(index=range(600, 700)))
    argv = [command, "--config", str(deployment.config), "--data", str(path)]
    assert main(argv) == 1
    line = refused(capsys)
    assert "100 of them (11 %) filled for lack of a candle" in line
    assert "model.max_filled allows 5 %" in line
    monkeypatch.setenv("CANDLECAST__MODEL__MAX_FILLED", "0.2")
    monkeypatch.setenv("CANDLECAST__MODEL__EPOCHS", "1")
    monkeypatch.setenv("CANDLECAST__MODEL__LSTM_UNITS", "[4]")
    assert main(argv) == 0
    assert "100 of them (11 %) filled" in capsys.readouterr().out


def test_symbols_the_model_does_not_know_are_named(
    deployment: Deployment, markets: dict[str, pd.DataFrame], capsys: pytest.CaptureFixture[str]
) -> None:
    path = deployment.write("SOL/USDT", markets["BTC/USDT"])
    assert evaluate(deployment, "--data", path) == 1
    assert "the model was not trained for SOL/USDT, only for BTC/USDT, ETH/USDT" in refused(capsys)


def test_without_a_model_or_candles_the_next_step_is_shown(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(deployment, "--version", "20260101T000000Z-abcdef") == 1
    assert "there is no model 20260101T000000Z-abcdef" in refused(capsys)
    deployment.files[0].unlink()
    assert evaluate(deployment) == 2
    assert "holds no 15m candles of BTC/USDT" in refused(capsys)
    (deployment.folder / "state" / "registry" / "champion").unlink()
    assert evaluate(deployment) == 2
    assert "train one with --promote" in refused(capsys)
