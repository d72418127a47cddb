from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.core.errors import ConfigError
from model.files.candle_csv import csv_name, newest_csv, newest_csvs, parse_csv_name, symbol_in

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


def test_files_of_other_names_are_pointed_to(tmp_path: Path) -> None:
    (tmp_path / "BTCUSDT-1m-2025-01.csv").write_text("", encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"or choose other files \(BTCUSDT-1m-2025-01.csv …\) with"
    ):
        newest_csv(tmp_path)
    with pytest.raises(ConfigError, match="with --data"):
        newest_csvs(tmp_path, ["BTC/USDT"], "1m")


BTC, ETH, SWAP = "BTC/USDT", "ETH/USDT", "BTC/USDT:USDT"


@pytest.mark.parametrize(
    ("name", "symbols", "symbol"),
    [
        ("BTCUSDT-1m-2025-01.csv", [BTC], BTC),
        ("BTCUSDT-1m-2025-01.csv", [ETH, BTC], BTC),
        ("BTC_USDT_1m_20250101_to_20250131.csv", [ETH, BTC], BTC),
        ("BTC_USDT-1m.csv", [ETH, BTC], BTC),
        ("BTC_USDT_USDT-1m-futures.csv", [BTC, SWAP], SWAP),
        ("BTCUSDT_1m.csv", [ETH, SWAP], SWAP),
        ("Binance_BTCUSDT_2025_minute.csv", [ETH, BTC], BTC),
        ("btcusdt.csv.gz", [ETH, BTC], BTC),
        ("XBTUSD_1.csv", ["BTC/USD", "ETH/USD"], "BTC/USD"),
        ("BTC-USD.csv", ["BTC/USD", "ETH/USD"], "BTC/USD"),
        ("XYZ-TSLA_USDC.csv", ["XYZ-TSLA/USDC:USDC", "X/USDC"], "XYZ-TSLA/USDC:USDC"),
        ("1000PEPEUSDT-1m.csv", ["PEPE/USDT", "1000PEPE/USDT"], "1000PEPE/USDT"),
        ("candles.csv", [BTC], BTC),
        ("data 2025.txt", [BTC], BTC),
        ("1m.csv", [BTC], BTC),
    ],
)
def test_the_symbol_is_read_from_names_of_other_programs(
    name: str, symbols: list[str], symbol: str
) -> None:
    assert symbol_in(Path(name), symbols) == symbol


@pytest.mark.parametrize(
    ("name", "symbols", "why"),
    [
        ("ETHUSDT-1m-2025-01.csv", [BTC], "the name contains ETH/USDT, but trading.symbols is BTC"),
        ("ETH_USDT_1m_20250101_to_20250131.csv", [BTC], "the name contains ETH/USDT"),
        ("BTCUSDT-1m.csv", [BTC, SWAP, ETH], "the name may stand for BTC/USDT or BTC/USDT:USDT"),
        ("candles.csv", [BTC, ETH], "holds no symbol of trading.symbols .BTC/USDT, ETH/USDT"),
        ("SOLUSDT-1m-2025-01.csv", [BTC, ETH], "the name does not follow {SYMBOL}_"),
        ("SOLUSDT_1m_20250101_to_20250131.csv", [BTC, ETH], "its symbol 'SOLUSDT' is not written"),
        ("SOL-USDT_1min_20250101_to_20250131.csv", [BTC, ETH], "its timeframe '1min' is not one"),
        ("SOL-USDT_1m_2025-01_to_20250131.csv", [BTC, ETH], "its day '2025-01' is not written"),
        ("SOL-USDT_1m_20250101_to_2025.csv", [], "its day '2025' is not written as YYYYMMDD"),
    ],
)
def test_missing_parts_of_a_name_are_reported(name: str, symbols: list[str], why: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        symbol_in(Path("data") / name, symbols)
    message = str(refusal.value)
    assert message.startswith(f"data/{name}: ")
    assert re.search(why, message)
    assert "rename the file as {SYMBOL}_{TIMEFRAME}_{START}_to_{END}.csv, e.g." in message
