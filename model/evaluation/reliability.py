"""Score intervals and probabilities of past forecasts against the outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from model.core.candle import Timeframe
from model.features.definitions import OHLCV
from model.forecasts.calibration import Calibration
from model.forecasts.rules import Rules
from model.forecasts.volatility import WARMUP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from model.registry.bundle import Bundle
    from model.stats.scores import Scored

    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]

SIDES: Final = ("short", "neutral", "long")
_MAX_SYMBOLS: Final = 20
"""Symbols that are scored; more do not change the result."""

_HOUR_MS: Final = 3_600_000
_MIN_HOUR_CANDLES: Final = 12
"""Candles of an "hour": with fewer, one move alone would make an hour a wild one."""

_BINS: Final = np.linspace(0.0, 1.0, 11)


class ScoredOutlooks(NamedTuple):
    """Published-style outlooks with their outcomes, n of them.

    Attributes:
        probabilities: of short, neutral and long, ``[n, 3]``.
        outcome: which of the three happened, ``[n]``.
        inside: whether the close was inside its interval, ``[n]``.
        calm: whether its hour was one of the calmest fifth of its symbol, ``[n]``.
        wild: the same for the wildest fifth, ``[n]``.
    """

    probabilities: Floats
    outcome: NDArray[np.int64]
    inside: Flags
    calm: Flags
    wild: Flags

    @property
    def brier(self) -> float:
        """Brier score of the probabilities; smaller is better."""
        return _brier(self.probabilities, self.outcome)

    @property
    def brier_of_shares(self) -> float:
        """Brier score of the constant average shares, which is a forecast without skill."""
        shares = np.bincount(self.outcome, minlength=3) / len(self.outcome)
        return _brier(np.tile(shares, (len(self.outcome), 1)), self.outcome)


class Bin(NamedTuple):
    """Forecasts with about the same probability, and the share that happened."""

    forecast: float
    observed: float
    n: int


def score_outlooks(
    bundle: Bundle,
    candles: Mapping[str, pd.DataFrame],
    scored: Scored,
    symbols: Sequence[str],
    rules: Rules,
) -> ScoredOutlooks | None:
    """Compute the outlooks of a model's forecasts as the daemon would, and score them.

    The calibration starts from the bundle's residuals.

    Args:
        bundle: the model.
        candles: frames on their grid, by ccxt symbol.
        scored: its forecasts, consecutive for each symbol.
        symbols: ccxt symbols by the number that ``scored`` uses.
        rules: settings of intervals and probabilities.

    Returns:
        None without enough residuals for an outlook; of many symbols the first 20.
    """
    # As in the daemon, symbols that close together form one batch: calls cost more than rows.
    batches: dict[bytes, list[int]] = {}
    for number in range(min(len(symbols), _MAX_SYMBOLS)):
        open_ms = scored.of(number).open_ms
        if len(open_ms):
            batches.setdefault(open_ms.tobytes(), []).append(number)
    hour_ms = max(_HOUR_MS, _MIN_HOUR_CANDLES * Timeframe.parse(bundle.manifest.timeframe).ms)
    parts = []
    for numbers in batches.values():
        names = [symbols[number] for number in numbers]
        calibration = Calibration(bundle.residuals, names, rules)
        forecasts = [scored.of(number) for number in numbers]
        parts.append(
            _score_batch(calibration, [candles[name] for name in names], forecasts, hour_ms)
        )
    if not parts:
        return None
    found = ScoredOutlooks._make(map(np.concatenate, zip(*parts, strict=True)))
    return found if len(found.outcome) else None


def _score_batch(
    calibration: Calibration,
    frames: Sequence[pd.DataFrame],
    scored: Sequence[Scored],
    hour_ms: int,
) -> ScoredOutlooks:
    """Score k symbols with n forecasts each, of the same candles."""
    idx = np.arange(len(frames))
    before, steps = _candles(frames, scored[0].open_ms)
    calibration.prime(idx, before)
    predicted, last, close = (
        np.stack([getattr(one, name) for one in scored])
        for name in ("predicted", "last_close", "close")
    )
    calm, wild = calm_and_wild(close / last - 1, scored[0].open_ms // hour_ms)
    parts = []
    for at, open_ms in enumerate(scored[0].open_ms):
        calibration.observe(idx, steps[:, at])
        now = np.full(len(idx), open_ms)
        outlook = calibration.outlook(idx, predicted[:, at], last[:, at], now)
        moved, known = close[:, at] / last[:, at] - 1, outlook.known
        outcome = 1 + (moved > outlook.threshold) - (moved < -outlook.threshold).astype(int)
        inside = (outlook.lower <= close[:, at]) & (close[:, at] <= outlook.upper)
        probabilities = np.stack([outlook.short, outlook.neutral, outlook.long], axis=1)
        columns = probabilities, outcome, inside, calm[:, at], wild[:, at]
        parts.append(ScoredOutlooks._make(column[known] for column in columns))
    return ScoredOutlooks._make(map(np.concatenate, zip(*parts, strict=True)))


def _candles(frames: Sequence[pd.DataFrame], open_ms: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Candles before the first forecast ``[k, rows, 5]``, and the last of each ``[k, n, 5]``."""
    ohlcv = [frame[list(OHLCV)].to_numpy(np.float64) for frame in frames]
    rows = [np.searchsorted(f["timestamp"].to_numpy(np.int64), open_ms) - 1 for f in frames]
    warm = min(WARMUP, *(int(row[0]) for row in rows))
    before = [one[row[0] - warm : row[0]] for one, row in zip(ohlcv, rows, strict=True)]
    return np.stack(before), np.stack([one[row] for one, row in zip(ohlcv, rows, strict=True)])


def calm_and_wild(moves: Floats, hours: NDArray[np.int64]) -> tuple[Flags, Flags]:
    """Tell which forecasts fall into the calmest and wildest fifth of hours, ``[k, n]`` each.

    Args:
        moves: returns of k symbols, ``[k, n]``.
        hours: the hour of each, ``[n]``.
    """
    _, hour = np.unique(hours, return_inverse=True)
    mean = np.stack([np.bincount(hour, np.abs(m)) / np.bincount(hour) for m in moves])
    low, high = np.quantile(mean, (0.2, 0.8), axis=1)[:, :, None]
    return (mean <= low)[:, hour], (mean >= high)[:, hour]


def reliability(outlooks: ScoredOutlooks, side: int) -> list[Bin]:
    """Group the probabilities of one of `SIDES` in tenths, with the share that happened."""
    forecast, happened = outlooks.probabilities[:, side], outlooks.outcome == side
    tenth = np.clip(np.digitize(forecast, _BINS) - 1, 0, len(_BINS) - 2)
    return [
        Bin(float(forecast[here].mean()), float(happened[here].mean()), int(here.sum()))
        for here in (tenth == number for number in range(len(_BINS) - 1))
        if here.any()
    ]


def _brier(probabilities: Floats, outcome: NDArray[np.int64]) -> float:
    return float(((probabilities - np.eye(3)[outcome]) ** 2).sum(axis=1).mean())
