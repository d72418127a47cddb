"""Define the features: their names, formulas, periods and first rows.

Row *t* depends only on the candles up to *t*. ``c`` is the close, ``v`` the volume, ``'`` marks the
previous candle. Periods stand for the fields of `Indicators`; ``macd row`` is
macd_slow + macd_signal - 2.

    name                formula                                                    first row
    open … volume       the candle's own value                                     0
    rsi_14              Wilder's relative strength index of c, 0 … 100             rsi_period
    macd                EMA(macd_fast) - EMA(macd_slow) of c                       macd row
    macd_signal         EMA(macd_signal) of macd                                   macd row
    macd_diff           macd - macd_signal                                         macd row
    bb_middle           mean of the last bb_period closes                          bb_period - 1
    bb_upper, bb_lower  bb_middle ± bb_std x their population deviation            bb_period - 1
    bb_width            (bb_upper - bb_lower) / bb_middle                          bb_period - 1
    sma_10, sma_30      mean of the last 10, 30 closes                             9, 29
    ema_10              EMA(10) of c                                               9
    volume_sma_20       mean of the last 20 volumes                                19
    price_change        c / c' - 1                                                 1
    volume_change       v / v' - 1, 0 where v' is zero                             1
    hl_range            (high - low) / c                                           0
    volume_ratio        v / volume_sma_20, 0 where that is zero                    19
    log_return          ln(c / c')                                                 1
    bb_position         (c - bb_middle) / (bb_upper - bb_lower), 0 on a flat band  bb_period - 1
    macd_rel            macd / c                                                   macd row
    log_volume_ratio    ln(1 + volume_ratio)                                       19

A volume below 1e-12 counts as zero, a band narrower than 1e-9 of its middle as flat. Column names
stay when a period setting changes. Recursive indicators are seeded as TA-Lib (ta-lib.org) seeds
them: EMA with the mean of its first values, RSI with the mean of the first rsi_period gains and
losses, and both EMAs of the MACD at the same row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

OHLCV: Final = ("open", "high", "low", "close", "volume")

CLOSE_FEATURES: Final = ("close", "volume", "rsi_14", "macd", "bb_upper", "bb_lower")
"""Used where the target is `close` and the configuration lists none; those of the reference."""

LOG_RETURN_FEATURES: Final = (
    "log_return",
    "hl_range",
    "bb_position",
    "macd_rel",
    "rsi_14",
    "log_volume_ratio",
)
"""Used where the target is `log_return` and the configuration lists none."""

ZERO_VOLUME: Final = 1e-12
"""A volume below this counts as zero."""

FLAT_BAND: Final = 1e-9
"""A Bollinger band narrower than this share of its middle counts as flat."""

EMA_PERIOD: Final = 10
VOLUME_SMA_PERIOD: Final = 20
SMA_PERIODS: Final = {"sma_10": 10, "sma_30": 30}

MACD_FEATURES: Final = frozenset({"macd", "macd_signal", "macd_diff", "macd_rel"})
BAND_FEATURES: Final = frozenset({"bb_upper", "bb_middle", "bb_lower", "bb_width", "bb_position"})
VOLUME_FEATURES: Final = frozenset({"volume_sma_20", "volume_ratio", "log_volume_ratio"})

MAX_SEED_WEIGHT: Final = 1e-9
"""A recursive indicator has settled when its seed weighs less than this."""


@dataclass(frozen=True)
class Indicators:
    """Periods of the indicators, in candles; ``bb_std`` in standard deviations.

    Raises:
        ValueError: a period below 2 (macd_signal: 1), or a fast period not below the slow one.
    """

    rsi_period: int = 14
    macd_fast: int = 12
    macd_slow: int = 26
    macd_signal: int = 9
    bb_period: int = 20
    bb_std: float = 2.0

    def __post_init__(self) -> None:
        """Check the periods."""
        if min(self.rsi_period, self.macd_fast, self.bb_period) < 2 or self.macd_signal < 1:  # noqa: PLR2004
            msg = f"indicator periods must be at least 2 (macd_signal: 1): {self}"
            raise ValueError(msg)
        if self.macd_fast >= self.macd_slow:
            msg = f"macd_fast {self.macd_fast} must be below macd_slow {self.macd_slow}"
            raise ValueError(msg)

    @property
    def warmup(self) -> int:
        """Rows after which no seed weighs 1e-9 or more in any feature.

        After *m* rows a seed still weighs (1 - 1/n)^m in Wilder's average and (1 - 2/(n+1))^m in an
        EMA. The signal line is a cascade: it forgets its own seed and averages what is left of the
        slow EMA's, s(m) = b·s(m-1) + (1-b)·w(m), with b = 1 - 2/(macd_signal+1), w the slow EMA's
        weight and s(0) = 1.
        """
        signal, slow = 1.0 - 2.0 / (self.macd_signal + 1), 1.0 - 2.0 / (self.macd_slow + 1)
        left_slow, left, rows = 1.0, 1.0, 0
        while max(left_slow, left) >= MAX_SEED_WEIGHT:
            left_slow *= slow
            left = signal * left + (1.0 - signal) * left_slow
            rows += 1
        return max(
            self.macd_slow + self.macd_signal - 1 + rows,
            self.rsi_period + 1 + _rows_to_forget(1.0 - 1.0 / self.rsi_period),
            EMA_PERIOD + _rows_to_forget(1.0 - 2.0 / (EMA_PERIOD + 1)),
            self.bb_period,
            *SMA_PERIODS.values(),
        )

    def first_rows(self) -> Mapping[str, int]:
        """The first row (0-based) at which each feature is a number."""
        rows = dict.fromkeys((*OHLCV, "hl_range"), 0)
        rows |= dict.fromkeys(("price_change", "volume_change", "log_return"), 1)
        rows |= {"rsi_14": self.rsi_period, "ema_10": EMA_PERIOD - 1}
        rows |= {name: period - 1 for name, period in SMA_PERIODS.items()}
        rows |= dict.fromkeys(sorted(MACD_FEATURES), self.macd_slow + self.macd_signal - 2)
        rows |= dict.fromkeys(sorted(BAND_FEATURES), self.bb_period - 1)
        rows |= dict.fromkeys(sorted(VOLUME_FEATURES), VOLUME_SMA_PERIOD - 1)
        return rows


FEATURES: Final = tuple(Indicators().first_rows())
"""All feature names."""


def _rows_to_forget(decay: float) -> int:
    """The least m with decay**m < 1e-9, for 0 < decay < 1."""
    return int(np.ceil(np.log(MAX_SEED_WEIGHT) / np.log(decay)))
