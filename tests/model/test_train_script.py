"""Test how the training script finds and reads its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from model.train_lstm import main

TRADING = {"symbols": ["BTC/USDT"], "timeframe": "15m"}


def test_the_script_takes_files_of_other_names_for_the_configured_symbol(
    candles: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "BTCUSDT-15m-2025-01.csv"
    candles.assign(timestamp=candles["timestamp"] // 1000).to_csv(path, index=False)
    model = {"lookback_periods": 20, "lstm_units": [4], "epochs": 1, "batch_size": 256}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"trading": TRADING, "model": model}), encoding="utf-8")
    assert main(["--config", str(config), "--data", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"{path}: line 2, column timestamp: " in out
    assert f"{path}: BTC/USDT 15m: 672 periods from 2025-01-01 00:00" in out


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({}, "the name does not follow"),
        ({"trading": {"symbol": "BTC/USDT"}}, "the name has no timeframe; set trading.timeframe"),
        ({"trading": TRADING | {"timeframe": "1y"}}, "timeframe '1y' is not a fixed duration"),
        ({"trading": ["BTC/USDT"]}, "trading must be a section with keys of its own"),
        ({"model": {"max_filled": "all"}}, "model.max_filled is 'all'; it must be a number from"),
        ({"model": {"max_filled": 1.5}}, "model.max_filled is 1.5; it must be a number from 0"),
    ],
)
def test_missing_settings_of_the_script_are_reported(
    tmp_path: Path, sections: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "candles.csv"
    path.write_text("", encoding="utf-8")
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(sections), encoding="utf-8")
    assert main(["--config", str(config), "--data", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train_lstm: ")
    assert message in line
