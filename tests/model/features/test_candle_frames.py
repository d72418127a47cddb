"""Test frames with rows out of order or without candles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from model.preprocess import DataPreprocessor

Configure = Callable[..., Path]
Change = Callable[[pd.DataFrame], Any]


def texts(candles: pd.DataFrame) -> pd.DataFrame:
    return candles.drop(columns="timestamp").assign(datetime=candles["datetime"].astype(str))


def indexed(candles: pd.DataFrame) -> pd.DataFrame:
    return candles.set_index("datetime").drop(columns="timestamp")


ODD: dict[str, Change] = {
    "newest first": lambda c: c.iloc[::-1],
    "newest first, with an index in order": lambda c: c.iloc[::-1].reset_index(drop=True),
    "newest first by text": lambda c: texts(c).iloc[::-1],
    "newest first by times": lambda c: c.drop(columns="timestamp").iloc[::-1],
    "newest first by seconds": lambda c: c.assign(timestamp=c["timestamp"] / 1000).iloc[::-1],
    "newest first by numbers as text": lambda c: c.assign(
        timestamp=c["timestamp"].astype(str), datetime=0
    ).iloc[::-1],
    "newest first by index": lambda c: indexed(c).iloc[::-1],
    "shuffled": lambda c: c.sample(frac=1.0, random_state=1),
    "two rows changed places": lambda c: c.iloc[[*range(300), 301, 300, *range(302, len(c))]],
    "rows twice": lambda c: pd.concat([c, c.iloc[100:200]]),
    "a row twice": lambda c: c.iloc[[*range(300), 299, *range(300, len(c))]],
    "two symbols one after the other": lambda c: pd.concat([c, c]),
    "a missing time": lambda c: c.assign(
        timestamp=np.where(np.arange(len(c)) == 7, np.nan, c["timestamp"])
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_rows_out_of_order_are_refused(
    configure: Configure, candles: pd.DataFrame, name: str
) -> None:
    preprocessor = DataPreprocessor(configure())
    message = "newest first" if name.startswith("newest") else "not later than"
    for call in (preprocessor.add_technical_indicators, preprocessor.create_sequences):
        with pytest.raises(ValueError, match=message):
            call(ODD[name](candles))
    assert preprocessor.scaler is None


def test_the_suggested_call_works(configure: Configure, candles: pd.DataFrame) -> None:
    X, _, _ = DataPreprocessor(configure()).create_sequences(candles)
    odd = pd.concat([candles.iloc[::-1], candles.iloc[5:9]])
    mended = odd.drop_duplicates("timestamp", keep="last").sort_values("timestamp")
    np.testing.assert_array_equal(DataPreprocessor(configure()).create_sequences(mended)[0], X)


SAME: dict[str, Change] = {
    "another index": lambda c: c.set_axis(range(len(c), 0, -1)),
    "times as text": texts,
    "times as index": indexed,
    "times with a zone": lambda c: c.assign(datetime=c["datetime"].dt.tz_localize("UTC")),
    "no times": lambda c: c.drop(columns=["timestamp", "datetime"]),
    "a column of something else": lambda c: c.drop(columns="timestamp").assign(datetime="unknown"),
    "numbers as text": lambda c: c.assign(close=c["close"].map(repr)),
    "nullable numbers": lambda c: c.astype({"close": "Float64", "volume": "Float64"}),
}


@pytest.mark.parametrize("name", SAME)
def test_rows_in_order_are_taken(configure: Configure, candles: pd.DataFrame, name: str) -> None:
    wanted = DataPreprocessor(configure()).create_sequences(candles)
    found = DataPreprocessor(configure()).create_sequences(SAME[name](candles))
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_night_without_summer_time_does_not_hide_the_order(
    configure: Configure, candles: pd.DataFrame
) -> None:
    local = candles["datetime"].dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")
    candles = candles.assign(
        timestamp=candles["timestamp"] + 298 * 86_400_000, datetime=local + pd.Timedelta(days=298)
    )
    naive = candles.assign(datetime=candles["datetime"].dt.tz_localize(None))
    assert len(DataPreprocessor(configure()).create_sequences(naive)[0])


NOT_CANDLES: dict[str, tuple[Change, str]] = {
    "a list": (lambda c: c.to_numpy().tolist(), "must be a pandas DataFrame, not list"),
    "an array": (lambda c: c.to_numpy(), "must be a pandas DataFrame, not ndarray"),
    "a Series": (lambda c: c["close"], "must be a pandas DataFrame, not Series"),
    "a column twice": (lambda c: pd.concat([c, c[["close"]]], axis=1), "column close more than"),
    "no row": (lambda c: c.iloc[:0], "there is no row"),
    "no close": (lambda c: c.drop(columns="close"), "lack the columns .*close"),
    "NaN": (lambda c: _with(c, "high", np.nan), "high of row 5 is nan"),
    "infinity": (lambda c: _with(c, "volume", np.inf), "volume of row 5 is inf"),
    "a missing number": (
        lambda c: _with(c.astype({"low": "Float64"}), "low", pd.NA),
        "low of row 5 is nan",
    ),
    "a word": (lambda c: _with(c.astype({"open": object}), "open", "dear"), "column open holds"),
}


def _with(candles: pd.DataFrame, name: str, value: Any) -> pd.DataFrame:
    candles = candles.copy()
    candles.loc[5, name] = value
    return candles


@pytest.mark.parametrize("name", NOT_CANDLES)
@pytest.mark.parametrize("target", ["close", "log_return"])
def test_values_other_than_a_frame_of_candles_are_refused(
    configure: Configure, candles: pd.DataFrame, name: str, target: str
) -> None:
    change, message = NOT_CANDLES[name]
    preprocessor = DataPreprocessor(configure(target=target))
    for call in (preprocessor.add_technical_indicators, preprocessor.create_sequences):
        with pytest.raises(ValueError, match=message):
            call(change(candles))


def test_returns_need_prices_above_zero(configure: Configure, candles: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"close of row 5 is 0\.0"):
        DataPreprocessor(configure(target="log_return")).create_sequences(
            _with(candles, "close", 0.0)
        )


@pytest.mark.parametrize("lookback", [0, -1, 60.0, "60", None])
def test_impossible_windows_are_refused(
    configure: Configure, candles: pd.DataFrame, lookback: Any
) -> None:
    with pytest.raises(ValueError, match="lookback must be a whole number above 0"):
        DataPreprocessor(configure()).create_sequences(candles, lookback)


def test_a_refused_call_keeps_the_scaler(configure: Configure, candles: pd.DataFrame) -> None:
    preprocessor = DataPreprocessor(configure())
    preprocessor.create_sequences(candles)
    before = preprocessor.symbol_scaler().encode()
    other = candles.assign(**{name: candles[name] * 3 for name in ("open", "high", "low", "close")})
    for odd, lookback in ((other.iloc[:90], 60), (other.iloc[::-1], 60), (other, 0)):
        with pytest.raises(ValueError, match=r"few|newest|lookback"):
            preprocessor.create_sequences(odd, lookback)
        assert preprocessor.symbol_scaler().encode() == before
