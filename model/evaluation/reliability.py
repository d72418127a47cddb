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
_SYMBOLS: Final = 20
"""More say nothing new."""

_HOUR_MS: Final = 3_600_000
_LEAST_CANDLES: Final = 12
"""Of what is called an hour: the fewer, the more is one wild because it left its intervals."""

_BINS: Final = np.linspace(0.0, 1.0, 11)


class Told(NamedTuple):
    """Outlooks and what came of them, n of them.

    Attributes:
        chances: of short, neutral and long, ``[n, 3]``.
        came: which of the three it was, ``[n]``.
        inside: whether the close lay inside its interval, ``[n]``.
        calm: whether its hour turned out one of the calmest fifth of its symbol's, ``[n]``.
        wild: the same for the wildest fifth, ``[n]``.
    """

    chances: Floats
    came: NDArray[np.int64]
    inside: Flags
    calm: Flags
    wild: Flags

    @property
    def brier(self) -> float:
        """Mean squared error of the chances; smaller is better."""
        return _brier(self.chances, self.came)

    @property
    def brier_of_shares(self) -> float:
        """The same for always giving the average shares: what knowing nothing scores."""
        shares = np.bincount(self.came, minlength=3) / len(self.came)
        return _brier(np.tile(shares, (len(self.came), 1)), self.came)


class Bin(NamedTuple):
    """Forecasts that were given about the same chance, and how often it came true."""

    given: float
    came: float
    n: int


def told(
    bundle: Bundle,
    candles: Mapping[str, pd.DataFrame],
    scored: Scored,
    symbols: Sequence[str],
    rules: Rules,
) -> Told | None:
    """Go through a model's forecasts as the daemon would, from the bundle's residuals on.

    Args:
        bundle: the model.
        candles: frames on their grid, by ccxt symbol.
        scored: its forecasts, consecutive for each symbol.
        symbols: ccxt symbols by the number that ``scored`` uses.
        rules: what intervals and probabilities shall be.

    Returns:
        None where there was not enough evidence to say anything; of many symbols the first 20.
    """
    # As in the daemon, what closes together is taken together: calls cost more than numbers.
    together: dict[bytes, list[int]] = {}
    for number in range(min(len(symbols), _SYMBOLS)):
        open_ms = scored.of(number).open_ms
        if len(open_ms):
            together.setdefault(open_ms.tobytes(), []).append(number)
    hour_ms = max(_HOUR_MS, _LEAST_CANDLES * Timeframe.parse(bundle.manifest.timeframe).ms)
    parts = []
    for numbers in together.values():
        names = [symbols[number] for number in numbers]
        calibration = Calibration(bundle.residuals, names, rules)
        made = [scored.of(number) for number in numbers]
        parts.append(_told_of(calibration, [candles[name] for name in names], made, hour_ms))
    if not parts:
        return None
    found = Told._make(map(np.concatenate, zip(*parts, strict=True)))
    return found if len(found.came) else None


def _told_of(
    calibration: Calibration,
    frames: Sequence[pd.DataFrame],
    scored: Sequence[Scored],
    hour_ms: int,
) -> Told:
    """Of k symbols with n forecasts each, of the same candles."""
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
        came = 1 + (moved > outlook.threshold) - (moved < -outlook.threshold).astype(int)
        inside = (outlook.lower <= close[:, at]) & (close[:, at] <= outlook.upper)
        chances = np.stack([outlook.short, outlook.neutral, outlook.long], axis=1)
        said = chances, came, inside, calm[:, at], wild[:, at]
        parts.append(Told._make(column[known] for column in said))
    return Told._make(map(np.concatenate, zip(*parts, strict=True)))


def _candles(frames: Sequence[pd.DataFrame], open_ms: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Before the first forecast ``[k, rows, 5]``, and what each was made from, ``[k, n, 5]``."""
    ohlcv = [frame[list(OHLCV)].to_numpy(np.float64) for frame in frames]
    rows = [np.searchsorted(f["timestamp"].to_numpy(np.int64), open_ms) - 1 for f in frames]
    warm = min(WARMUP, *(int(row[0]) for row in rows))
    before = [one[row[0] - warm : row[0]] for one, row in zip(ohlcv, rows, strict=True)]
    return np.stack(before), np.stack([one[row] for one, row in zip(ohlcv, rows, strict=True)])


def calm_and_wild(moves: Floats, hours: NDArray[np.int64]) -> tuple[Flags, Flags]:
    """Which forecasts fall into the calmest and the wildest fifth of the hours, ``[k, n]`` each.

    Args:
        moves: returns of k symbols, ``[k, n]``.
        hours: the hour of each, ``[n]``.
    """
    _, hour = np.unique(hours, return_inverse=True)
    mean = np.stack([np.bincount(hour, np.abs(m)) / np.bincount(hour) for m in moves])
    low, high = np.quantile(mean, (0.2, 0.8), axis=1)[:, :, None]
    return (mean <= low)[:, hour], (mean >= high)[:, hour]


def reliability(told: Told, side: int) -> list[Bin]:
    """The chances of one of `SIDES`, in tenths, against how often it came true."""
    given, true = told.chances[:, side], told.came == side
    tenth = np.clip(np.digitize(given, _BINS) - 1, 0, len(_BINS) - 2)
    return [
        Bin(float(given[here].mean()), float(true[here].mean()), int(here.sum()))
        for here in (tenth == number for number in range(len(_BINS) - 1))
        if here.any()
    ]


def _brier(chances: Floats, came: NDArray[np.int64]) -> float:
    return float(((chances - np.eye(3)[came]) ** 2).sum(axis=1).mean())
