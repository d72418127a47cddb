"""What a model would have said about intervals and probabilities, held against what came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from model.calibration import Calibration, Rules
from model.features import OHLCV
from model.volatility import WARMUP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from model.bundle import Bundle
    from model.evaluation import Scored

    Floats = NDArray[np.float64]

SIDES: Final = ("short", "neutral", "long")
_SYMBOLS: Final = 20
"""Each takes a second or two for a week of minutes."""

_BINS: Final = np.linspace(0.0, 1.0, 11)
_ONE: Final = np.array([0])


class Told(NamedTuple):
    """Outlooks and what came of them, n of them.

    Attributes:
        chances: of short, neutral and long, ``[n, 3]``.
        came: which of the three it was, ``[n]``.
        inside: whether the close lay inside its interval, ``[n]``.
    """

    chances: Floats
    came: NDArray[np.int64]
    inside: NDArray[np.bool_]

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
    parts = []
    for number, symbol in enumerate(symbols[:_SYMBOLS]):
        one = scored.of(number)
        if len(one.open_ms):
            calibration = Calibration(bundle.residuals, [symbol], rules)
            parts.append(_told_of(calibration, candles[symbol], one))
    if not parts:
        return None
    found = Told._make(map(np.concatenate, zip(*parts, strict=True)))
    return found if len(found.came) else None


def _told_of(calibration: Calibration, frame: pd.DataFrame, scored: Scored) -> Told:
    ohlcv = frame[list(OHLCV)].to_numpy(np.float64)
    rows = np.searchsorted(frame["timestamp"].to_numpy(np.int64), scored.open_ms)
    first = int(rows[0])
    calibration.prime(_ONE, ohlcv[None, max(0, first - 1 - WARMUP) : first - 1])
    chances, came, inside = [], [], []
    for at, row in enumerate(rows):
        calibration.observe(_ONE, ohlcv[row - 1][None])
        here = slice(at, at + 1)
        outlook = calibration.outlook(
            _ONE, scored.predicted[here], scored.last_close[here], scored.open_ms[here]
        )
        if not outlook.known[0]:
            continue
        close, last = scored.close[at], scored.last_close[at]
        threshold = outlook.threshold[0]
        chances.append((outlook.short[0], outlook.neutral[0], outlook.long[0]))
        came.append(1 + int(close / last - 1 > threshold) - int(close / last - 1 < -threshold))
        inside.append(bool(outlook.lower[0] <= close <= outlook.upper[0]))
    return Told(np.array(chances).reshape(-1, 3), np.array(came, int), np.array(inside, bool))


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
