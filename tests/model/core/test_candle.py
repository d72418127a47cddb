"""Test which candles are possible, which are repaired and which had no trade."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.core.candle import (
    MAX_PRICE,
    MAX_VOLUME,
    MIN_PRICE,
    Ohlcv,
    check_ohlcv,
    is_possible,
    is_price,
    is_untraded,
    repair_ohlcv,
    streamed_ohlcv,
)
from model.core.errors import BadCandle

numbers = st.floats(allow_nan=True, allow_infinity=True)
prices = st.floats(90.0, 110.0)


@given(st.lists(numbers, min_size=5, max_size=5))
def test_accepted_candles_are_bounded_and_in_order(values: list[float]) -> None:
    for accept in (check_ohlcv, lambda v: streamed_ohlcv(v).ohlcv, lambda v: repair_ohlcv(v).ohlcv):
        try:
            ohlcv = accept(values)
        except BadCandle:
            continue
        assert is_possible(ohlcv)
        assert MIN_PRICE <= ohlcv.low <= min(ohlcv.open, ohlcv.close)
        assert max(ohlcv.open, ohlcv.close) <= ohlcv.high <= MAX_PRICE
        assert 0.0 <= ohlcv.volume <= MAX_VOLUME
        assert (ohlcv.open, ohlcv.close) == (values[0], values[3])


@given(st.lists(prices, min_size=4, max_size=4))
def test_valid_candles_are_not_changed(values: list[float]) -> None:
    low, first, last, high = sorted(values)
    for o, c in ((first, last), (last, first), (low, high), (high, low)):
        row = (o, high, low, c, 1.0)
        assert repair_ohlcv(row) == (row, False)
        assert streamed_ohlcv(row) == (check_ohlcv(row), False)


@pytest.mark.parametrize(
    ("row", "taken"),
    [
        ((98.9, 101, 99, 100, 5), (98.9, 101, 98.9, 100, 5)),
        ((100, 101, 99, 101.5, 5), (100, 101.5, 99, 101.5, 5)),
        ((98, 101, 99, 102, 5), (98, 102, 98, 102, 5)),
        ((100, 99, 101, 100, 5), (100, 101, 99, 100, 5)),
        (("98.9", "101", "99", "100", None), (98.9, 101, 98.9, 100, 0)),
        ((100, 101, 99, 100, math.nan), (100, 101, 99, 100, 0)),
    ],
)
def test_candles_that_can_be_corrected(row: tuple[object, ...], taken: tuple[float, ...]) -> None:
    assert repair_ohlcv(row) == (taken, True)
    with pytest.raises(BadCandle):
        check_ohlcv(row)


@pytest.mark.parametrize(
    "row",
    [
        (80, 101, 99, 100, 5),
        (100, 101, 99, 120, 5),
        (100, 80, 110, 100, 5),
        (0, 101, 99, 100, 5),
        (100, 101, -99, 100, 5),
        (100, math.nan, 99, 100, 5),
        (None, 101, 99, 100, 5),
        (100, 101, 99, 100, -1),
        (1e308,) * 5,
        (5e-324, 5e-324, 5e-324, 5e-324, 0),
        (100, 101, 99, 100),
        (100, 101, 99, 100, 5, 5),
        ("a", "b", "c", "d", "e"),
        (10**400, 101, 99, 100, 5),
        (),
    ],
)
def test_candles_that_cannot_be_corrected(row: tuple[object, ...]) -> None:
    for accept in (check_ohlcv, streamed_ohlcv, repair_ohlcv):
        with pytest.raises(BadCandle):
            accept(row)


@pytest.mark.parametrize("price", [MIN_PRICE, 8e-11, 65_000.0, MAX_PRICE])
def test_every_price_of_a_market_is_within_the_bounds(price: float) -> None:
    assert check_ohlcv((price, price, price, price, MAX_VOLUME)).close == price
    assert is_price(np.array([price, -price, math.nan, math.inf, 0.0, 1e308, 5e-324])).tolist() == [
        True, *[False] * 6,
    ]  # fmt: skip


def test_a_candle_without_a_trade_has_neither_volume_nor_move() -> None:
    flat = Ohlcv(2.0, 2.0, 2.0, 2.0, 0.0)
    assert is_untraded(flat, None)
    assert is_untraded(flat, 2.0)
    assert not is_untraded(flat, 2.1)
    assert not is_untraded(flat._replace(volume=0.1), 2.0)
    assert not is_untraded(flat._replace(high=2.1), 2.0)
