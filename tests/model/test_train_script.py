"""Check what the training script takes for data."""

from __future__ import annotations

from pathlib import Path

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
