"""Check data frames of candles before features are computed from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from model.features.definitions import OHLCV

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

_TIMES: Final = ("timestamp", "datetime")
"""Columns that say when a candle opened; the first one that a frame has counts."""


def check_frame(df: object) -> None:
    """Refuse what no window may be cut from.

    A frame without a column that says the time is taken in the order of its rows.

    Args:
        df: candles.

    Raises:
        ValueError: it is no frame, holds no row, names a column twice, is not in the order of its
            time, or holds a price or volume that is not a finite number.
    """
    import pandas as pd

    if not isinstance(df, pd.DataFrame):
        msg = f"candles must be a pandas DataFrame, not {type(df).__name__}"
        raise ValueError(msg)  # noqa: TRY004 - every refusal of the preprocessor is a ValueError
    twice = df.columns[df.columns.duplicated()]
    if len(twice):
        msg = f"candles have the column {twice[0]} more than once"
        raise ValueError(msg)
    if not len(df):
        msg = "candles are too few: there is no row"
        raise ValueError(msg)
    for name in OHLCV:
        if name in df.columns:
            _require_finite(df, name)
    _require_order(df)


def column(df: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """The values of a column, in the order of the rows; NaN where one is missing.

    Raises:
        ValueError: there is no such column, or something in it is not a number.
    """
    if name not in df.columns:
        msg = f"candles lack the columns {name}"
        raise ValueError(msg)
    try:
        return np.ascontiguousarray(df[name].to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError) as error:
        msg = f"the column {name} holds something else than numbers: {error}"
        raise ValueError(msg) from None


def _require_finite(df: pd.DataFrame, name: str) -> None:
    values = column(df, name)
    good = np.isfinite(values)
    if not good.all():
        row = int(np.argmin(good))
        msg = f"{name} of row {row} is {values[row]}: candles hold values that are not finite"
        raise ValueError(msg)


def _require_order(df: pd.DataFrame) -> None:
    found = _times(df)
    if found is None:
        return
    name, times = found
    ascending = np.diff(times) > 0
    if ascending.all():
        return
    row = int(np.argmin(ascending)) + 1
    if (np.diff(times) < 0).all():
        msg = f"rows are newest first by {name}; sort them: df.sort_values({name!r})"
    else:
        msg = (
            f"row {row} is not later than row {row - 1} by {name}; rows must be oldest first, one "
            f"for each time: df.drop_duplicates({name!r}, keep='last').sort_values({name!r})"
        )
    raise ValueError(msg)


def _times(df: pd.DataFrame) -> tuple[str, NDArray[np.float64]] | None:
    """Times as numbers, and what the frame calls them; None where it does not say any."""
    import pandas as pd

    for name in _TIMES:
        if name in df.columns:
            times = _as_numbers(df[name])
            # A column that is not of times says nothing about the order.
            if not np.isnan(times).all():
                return name, times
    if isinstance(df.index, pd.DatetimeIndex):
        return "index", _as_numbers(df.index.to_series())
    return None


def _as_numbers(values: pd.Series[Any]) -> NDArray[np.float64]:
    """Times as numbers that grow with them; NaN where one cannot be read."""
    import pandas as pd

    if not pd.api.types.is_numeric_dtype(values.dtype):
        numbers = pd.to_numeric(values, errors="coerce")
        if pd.api.types.is_datetime64_any_dtype(values.dtype) or numbers.isna().all():
            read = pd.to_datetime(values, errors="coerce", utc=True, format="mixed")
            return np.where(read.isna(), np.nan, read.astype("int64"))
        values = numbers
    return values.to_numpy(dtype=np.float64, na_value=np.nan)
