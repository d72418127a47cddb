"""Test that symbols can be converted to file names and back."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import model.core.symbols
from model.core.symbols import file_name, symbol_of, topic_level
from model.files.candle_csv import csv_name, parse_csv_name

SPECIAL = [
    "BTC/USDT",
    "BTC/USDT:USDT",
    "BTC/USDT:USDT-261225",
    "BTC/USD:BTC-250926-50000-C",
    "XYZ-TSLA/USDC:USDC",
    "XYZ-TSLA/USDC:US-D-261225",
    "USDC_E/USDT",
    "A_1m_20250101_to_20250102/USDT",
    "USDT0.E/US.D",
    ".XBT/USD",
    "../X",
    "$PAC/US$:US$",
    "1000%2D/A%20B",
    "A B/C+D:#",
    "币安人生/USDT:USDT",
    "kPEPE/USDC:USDC",
    "-/-:-",
]
PART = st.text(st.characters(exclude_characters="/:", codec="utf-8"), min_size=1, max_size=12)


@pytest.mark.parametrize("symbol", SPECIAL)
def test_symbols_with_signs_are_read_back(symbol: str) -> None:
    name = csv_name(symbol, "1m", 1_735_689_600_000, 1_735_776_000_000)
    assert Path(name).name == name
    assert not name.startswith(".")
    read = parse_csv_name(Path("data") / name)
    assert read == (symbol, "1m", "20250102")


@given(PART, PART, st.one_of(st.just(""), PART.map(lambda text: f":{text}")))
def test_any_symbol_is_read_back(base: str, quote: str, contract: str) -> None:
    symbol = f"{base}/{quote}{contract}"
    name = file_name(symbol)
    assert symbol_of(name) == symbol
    assert not {"/", "\0", "\n"} & set(name)
    assert name.isascii()


def test_two_symbols_never_share_a_name_though_they_share_a_topic() -> None:
    alike = ["A-B/C", "A/B-C", "A/B:C", "A-B-C/D", "A/B-C:D"]
    assert len({file_name(symbol) for symbol in alike}) == len(alike)
    assert topic_level("A/B:C") == topic_level("A-B/C") == topic_level("A/B-C") == "A-B-C"


@pytest.mark.parametrize("name", ["", "BTC", "-USDT", "BTC-", "BTC--USDT"])
def test_an_unknown_file_name_gives_no_symbol(name: str) -> None:
    assert symbol_of(name) is None


def test_the_examples_run() -> None:
    assert doctest.testmod(model.core.symbols) == (0, 2)
