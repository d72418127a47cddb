from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.csvfiles import csv_name, newest_csv, newest_csvs, parse_csv_name
from model.errors import ConfigError

DAY_MS = 86_400_000
FIRST_MS = 1_735_689_600_000


@given(
    symbol=st.from_regex(r"[A-Z0-9]{1,8}/[A-Z]{2,6}(:[A-Z]{2,6}(-\d{6})?)?", fullmatch=True),
    timeframe=st.sampled_from(["1s", "1m", "15m", "4h", "1d", "1w"]),
    days=st.integers(0, 2000),
)
def test_names_are_read_back(symbol: str, timeframe: str, days: int) -> None:
    name = csv_name(symbol, timeframe, FIRST_MS, FIRST_MS + days * DAY_MS)
    read = parse_csv_name(Path("data") / name)
    assert read is not None
    assert (read.symbol, read.timeframe) == (symbol, timeframe)
    assert name.endswith(f"_to_{read.last_day}.csv")


@pytest.mark.parametrize(
    "name",
    ["predictions.csv", "BTCUSDT_1m_20250101_to_20250102.csv", "BTC-USDT_1m_2025_to_2026.csv"],
)
def test_other_names_are_not_candle_files(name: str) -> None:
    assert parse_csv_name(Path(name)) is None


def write(folder: Path, symbol: str, timeframe: str, days: int) -> Path:
    path = folder / csv_name(symbol, timeframe, FIRST_MS, FIRST_MS + days * DAY_MS)
    path.write_text("", encoding="utf-8")
    return path


def test_the_newest_file_is_the_one_that_reaches_furthest(tmp_path: Path) -> None:
    long = write(tmp_path, "BTC/USDT", "1m", 30)
    short = write(tmp_path, "BTC/USDT", "1m", 5)
    (tmp_path / "predictions.csv").write_text("", encoding="utf-8")
    os.utime(long, (1, 1))
    assert newest_csv(tmp_path) == long
    other = write(tmp_path, "ETH/USDT", "1m", 30)
    assert newest_csv(tmp_path) == other
    hourly = write(tmp_path, "BTC/USDT", "1h", 60)
    assert newest_csv(tmp_path) == hourly
    assert newest_csvs(tmp_path, ["ETH/USDT", "BTC/USDT"], "1m") == {
        "ETH/USDT": other,
        "BTC/USDT": long,
    }
    assert short.exists()


def test_missing_candles_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="candlecast fetch"):
        newest_csv(tmp_path)
    write(tmp_path, "BTC/USDT", "1m", 30)
    with pytest.raises(ConfigError, match="no 1m candles of ETH/USDT"):
        newest_csvs(tmp_path, ["BTC/USDT", "ETH/USDT"], "1m")
    with pytest.raises(ConfigError, match="no 1h candles of BTC/USDT"):
        newest_csvs(tmp_path, ["BTC/USDT"], "1h")
