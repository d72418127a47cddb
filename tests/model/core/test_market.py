"""Test the key of a market."""

from __future__ import annotations

import pytest

from model.core.candle import Timeframe
from model.core.errors import ConfigError
from model.core.market import MarketKey


def test_a_key_is_parsed_from_ccxt_names() -> None:
    key = MarketKey.parse("binance", "15m")
    assert key == MarketKey("binance", Timeframe.parse("15m"))
    assert len({key, MarketKey.parse("binance", "15m"), MarketKey.parse("okx", "15m")}) == 2


def test_an_impossible_timeframe_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a fixed duration"):
        MarketKey.parse("binance", "1M")
