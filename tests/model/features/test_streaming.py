"""Test streaming features on every row against TA-Lib and pandas."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

import model.features.streaming
from model.features.definitions import CLOSE_FEATURES, FEATURES, LOG_RETURN_FEATURES, Indicators
from model.features.streaming import FeatureBank

Floats = np.ndarray[Any, np.dtype[np.float64]]

SYMBOLS = ("BTC", "ETH", "SOL", "XRP", "BNB")
OTHER_PERIODS = Indicators(
    rsi_period=5, macd_fast=3, macd_slow=8, macd_signal=1, bb_period=7, bb_std=1.5
)
ALL_PERIODS = (Indicators(), OTHER_PERIODS)


def ohlcv_of(frame: pd.DataFrame) -> Floats:
    return frame[["open", "high", "low", "close", "volume"]].to_numpy(np.float64)


def random_candles(symbols: int, rows: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-3, (symbols, rows)), axis=1))
    opened = np.roll(close, 1, axis=1)
    high, low = np.maximum(opened, close) * 1.0005, np.minimum(opened, close) * 0.9995
    volume = rng.exponential(5.0, (symbols, rows)) * (rng.random((symbols, rows)) > 0.1)
    return np.stack([opened, high, low, close, volume], axis=2)


def windows(values: Floats, period: int) -> Floats:
    """The last ``period`` values at every row, NaN where there are fewer."""
    padded = np.concatenate([np.full(period - 1, np.nan), values])
    return cast("Floats", sliding_window_view(padded, period))


def in_batch(ohlcv: Floats, p: Indicators) -> dict[str, Any]:
    """Every feature of one symbol by TA-Lib and pandas, from all rows at once."""
    opened, high, low, close, volume = (np.ascontiguousarray(column) for column in ohlcv.T)
    closes, volumes = pd.Series(close), pd.Series(volume)
    macd, signal, diff = talib.MACD(close, p.macd_fast, p.macd_slow, p.macd_signal)
    # Two passes over each window: TA-Lib's running sums lose digits, see its own bands below.
    middle = windows(close, p.bb_period).mean(axis=1)
    half = p.bb_std * windows(close, p.bb_period).std(axis=1)
    mean_volume = windows(volume, 20).mean(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        change = np.where(np.roll(volume, 1) != 0, volumes.pct_change(), 0.0)
        ratio = np.where(mean_volume != 0, volume / mean_volume, 0.0)
    first = np.arange(len(close)) == 0
    return {
        "open": opened,
        "high": high,
        "low": low,
        "close": close,
        "volume": volume,
        "rsi_14": talib.RSI(close, p.rsi_period),
        "macd": macd,
        "macd_signal": signal,
        "macd_diff": diff,
        "bb_upper": middle + half,
        "bb_middle": middle,
        "bb_lower": middle - half,
        "bb_width": 2 * half / middle,
        "price_change": closes.pct_change().to_numpy(),
        "volume_change": np.where(first, np.nan, change),
        "hl_range": (high - low) / close,
        "sma_10": talib.SMA(close, 10),
        "sma_30": talib.SMA(close, 30),
        "ema_10": talib.EMA(close, 10),
        "volume_sma_20": mean_volume,
        "volume_ratio": ratio,
        "log_return": np.log((closes / closes.shift()).to_numpy()),
        "bb_position": (close - middle) / (2 * half),
        "macd_rel": macd / close,
        "log_volume_ratio": np.log1p(ratio),
    }


def assert_equal_features(found: Floats, ohlcv: Floats, indicators: Indicators) -> None:
    """Same NaN rows, and values that differ by rounding alone.

    What is made of prices rounds at the scale of prices, so that is the yardstick for it; the rest
    is compared relative to itself.
    """
    expected = in_batch(ohlcv, indicators)
    assert set(expected) == set(FEATURES)
    first_rows = indicators.first_rows()
    price = float(ohlcv[:, 3].max())
    for column, name in enumerate(FEATURES):
        want, have = expected[name], found[:, column]
        assert np.isnan(have).sum() == first_rows[name], name
        at_price_scale = name.startswith(("macd", "bb_", "sma", "ema")) and name not in {
            "macd_rel",
            "bb_width",
            "bb_position",
        }
        np.testing.assert_allclose(
            have, want, rtol=1e-9, atol=1e-12 * (price if at_price_scale else 1.0), err_msg=name
        )


def streamed(ohlcv: Floats, indicators: Indicators) -> Floats:
    bank = FeatureBank(FEATURES, indicators, len(ohlcv))
    return bank.prime(np.arange(len(ohlcv)), ohlcv)


@pytest.mark.parametrize("indicators", ALL_PERIODS, ids=["default periods", "other periods"])
@pytest.mark.parametrize("file", ["slim_BTCUSDT-15m_2025-01_05", "slim_BTCUSDT-1h_2024"])
def test_every_row_equals_the_batch_on_the_candles_that_ship(
    repository: Path, file: str, indicators: Indicators
) -> None:
    frame = pd.read_csv(repository / "daemon" / "sandbox" / "data" / f"{file}.csv.gz")
    ohlcv = ohlcv_of(frame)
    assert len(ohlcv) > 8000
    assert_equal_features(streamed(ohlcv[None], indicators)[0], ohlcv, indicators)


def test_every_row_equals_the_batch_on_five_symbols_of_recorded_minutes(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "binance_spot_1m"
    histories = [ohlcv_of(pd.read_parquet(folder / f"{name}_USDT-1m.parquet")) for name in SYMBOLS]
    assert min(map(len, histories)) > 40_000
    longest = max(map(len, histories))
    candles = np.stack([np.pad(h, ((0, longest - len(h)), (0, 0)), "edge") for h in histories])
    features = streamed(candles, Indicators())
    for found, ohlcv in zip(features, histories, strict=True):
        assert_equal_features(found[: len(ohlcv)], ohlcv, Indicators())


def test_bands_equal_those_of_talib_within_its_rounding(candles_csv: Path) -> None:
    ohlcv = ohlcv_of(pd.read_csv(candles_csv))
    features = streamed(ohlcv[None], Indicators())[0]
    close = np.ascontiguousarray(ohlcv[:, 3])
    for name, want in zip(
        ("bb_upper", "bb_middle", "bb_lower"), talib.BBANDS(close, 20, 2.0, 2.0), strict=True
    ):
        np.testing.assert_allclose(features[:, FEATURES.index(name)], want, rtol=1e-9)


def weight_of_the_past(indicators: Indicators, rows: int) -> Floats:
    """The most that ``rows`` of warm-up leave of a different past, relative to that difference.

    Two symbols have pasts that differ by 10 % of the price and then the same ``rows`` of candles.
    """
    candles = random_candles(1, 200 + rows)
    candles = np.concatenate([candles, candles])
    candles[1, :200, :4] *= 1.1
    streams = streamed(candles, indicators)
    primed = streamed(candles[:1, 200:], indicators)
    names = ["rsi_14", "macd", "macd_signal", "macd_diff", "ema_10"]
    columns = [FEATURES.index(name) for name in names]
    scale = np.array([100.0, *[0.1 * candles[0, :, 3].max()] * 4])
    off = np.abs(streams[:, -1, columns] - primed[:, -1, columns]).max(axis=0)
    return cast("Floats", off / scale)


@pytest.mark.parametrize("indicators", ALL_PERIODS, ids=["default periods", "other periods"])
def test_after_the_warmup_the_past_weighs_less_than_a_billionth(indicators: Indicators) -> None:
    assert (weight_of_the_past(indicators, indicators.warmup) < 1e-9).all()


def test_the_warmup_is_not_much_longer_than_it_must_be() -> None:
    assert Indicators().warmup == 309
    assert (weight_of_the_past(Indicators(), 100) > 1e-9).any()


def test_primed_rows_are_those_of_the_whole_history(candles_csv: Path) -> None:
    """Measured here: RSI within 2e-8 points, MACD and its signal within 5e-12 of the price."""
    ohlcv = ohlcv_of(pd.read_csv(candles_csv))
    whole = streamed(ohlcv[None], Indicators())[0]
    warmup = Indicators().warmup
    starts = np.arange(0, len(ohlcv) - warmup, 50)
    primed = streamed(np.stack([ohlcv[s : s + warmup] for s in starts]), Indicators())[:, -1]
    off = np.abs(primed - whole[starts + warmup - 1]).max(axis=0)
    price = float(ohlcv[:, 3].max())
    rounding = 1e-13 * np.nanmax(np.abs(whole), axis=0)
    allowed = dict(zip(FEATURES, rounding, strict=True))
    allowed |= {"rsi_14": 1e-7, "macd": 1e-11 * price, "macd_signal": 1e-11 * price}
    allowed |= {"macd_diff": 1e-11 * price, "macd_rel": 1e-11}
    for name, furthest in zip(FEATURES, off, strict=True):
        assert furthest <= allowed[name], name


@settings(deadline=None, max_examples=10)
@given(st.data())
def test_neither_order_nor_grouping_nor_peeking_changes_a_value(data: st.DataObject) -> None:
    n, rows = 4, 30
    candles = random_candles(n, rows, seed=data.draw(st.integers(0, 100)))
    alone = np.stack([streamed(candles[i : i + 1], OTHER_PERIODS)[0] for i in range(n)])
    bank = FeatureBank(FEATURES, OTHER_PERIODS, n)
    done = np.zeros(n, np.int64)
    while (done < rows).any():
        waiting = np.flatnonzero(done < rows).tolist()
        size = data.draw(st.integers(1, len(waiting)))
        idx = np.array(data.draw(st.permutations(waiting))[:size])
        if data.draw(st.booleans()):
            forming = random_candles(size, 1, seed=int(done.sum()))[:, 0]
            bank.peek(idx, forming)
        np.testing.assert_array_equal(
            bank.peek(idx, candles[idx, done[idx]]), alone[idx, done[idx]]
        )
        np.testing.assert_array_equal(
            bank.commit(idx, candles[idx, done[idx]]), alone[idx, done[idx]]
        )
        done[idx] += 1


def test_priming_resets_only_the_given_symbols() -> None:
    candles = random_candles(2, 90)
    bank = FeatureBank(FEATURES, Indicators(), 2)
    both = np.arange(2)
    bank.prime(both, candles[:, ::-1][:, :80])
    bank.prime(np.array([1]), candles[1:, :80])
    after = bank.peek(both, candles[:, 80])
    np.testing.assert_array_equal(after[1], streamed(candles[1:, :81], Indicators())[0, -1])
    kept = np.concatenate([candles[:1, ::-1][:, :80], candles[:1, 80:81]], axis=1)
    np.testing.assert_array_equal(after[0], streamed(kept, Indicators())[0, -1])


def test_no_feature_looks_ahead() -> None:
    candles = random_candles(1, 120)
    other = candles.copy()
    other[:, 80:, :4] *= 3.0
    other[:, 80:, 4] += 7.0
    before, after = streamed(candles, Indicators()), streamed(other, Indicators())
    np.testing.assert_array_equal(before[:, :80], after[:, :80])
    assert (before[:, 80] != after[:, 80]).any()


@pytest.mark.parametrize("names", [CLOSE_FEATURES, LOG_RETURN_FEATURES, ("macd_diff", "sma_30")])
def test_a_selection_gives_the_same_values_in_its_own_order(names: tuple[str, ...]) -> None:
    candles = random_candles(3, 60)
    chosen = FeatureBank(names, Indicators(), 3).prime(np.arange(3), candles)
    columns = [FEATURES.index(name) for name in names]
    np.testing.assert_array_equal(chosen, streamed(candles, Indicators())[:, :, columns])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(1e-9, 1e9), st.floats(0.0, 1e12)), min_size=40, max_size=60))
def test_settled_features_are_finite_in_any_market(rows: list[Any]) -> None:
    close, volume = np.array(rows).T
    ohlcv = np.stack([close, close * 1.5, close * 0.5, close, volume], axis=1)
    assert np.isfinite(streamed(ohlcv[None], Indicators())[0, 33:]).all()


def test_a_market_without_movement_has_defined_values() -> None:
    ohlcv = np.tile([0.1, 0.1, 0.1, 0.1, 0.0], (60, 1))
    last = dict(zip(FEATURES, streamed(ohlcv[None], Indicators())[0, -1], strict=True))
    zero = ("rsi_14", "bb_position", "volume_change", "volume_ratio", "log_volume_ratio")
    assert {name: last[name] for name in zero} == dict.fromkeys(zero, 0.0)
    assert talib.RSI(ohlcv[:, 3].copy())[-1] == 0.0


@pytest.mark.parametrize("names", [(), ("close", "close"), ("close", "tomorrow")])
def test_invalid_feature_names_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="different names out of"):
        FeatureBank(names, Indicators(), 1)


@pytest.mark.parametrize(
    "periods", [{"rsi_period": 1}, {"macd_signal": 0}, {"bb_period": 0}, {"macd_fast": 26}]
)
def test_invalid_periods_are_refused(periods: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Indicators(**periods)


def test_the_example_in_the_docstring_runs() -> None:
    assert doctest.testmod(model.features.streaming).attempted > 0
    assert doctest.testmod(model.features.streaming).failed == 0
