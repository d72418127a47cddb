"""Has the market, or how the model does in it, become something else? Pure, O(1) per candle.

*Error*: Page's cumulative sum (Page, "Continuous inspection schemes", Biometrika 41, 1954) in the
form known as the Page-Hinkley test, on the model's error minus the last-value forecast's, averaged
over symbols. The mean and the spread it departs from are its own running ones.

*Features*: the population stability index (Siddiqi, "Credit Risk Scorecards", 2006) of the last
days against the first week that the model served, ``sum((p - q) * ln(p / q))`` over ten classes
that were about equally full in that week.

An alarm asks for a closer look or a new training. It is never evidence for a promotion.

Why not river: its detectors take one number at a time, know nothing of heavy tails, and bring
pandas and scipy into the serving process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

TOLERANCE: Final = 0.1
"""Standard deviations by which the mean error may rise without being counted."""

THRESHOLD: Final = 65.0
"""An alarm of independent, normal errors comes once in 2e7 candles (Siegmund's approximation,
``(exp(2kb) - 2kb - 1) / (2k²)`` with k the tolerance and b the threshold + 1.166); minutes are
neither, and the margin is for that. A rise by s standard deviations takes some 65 / (s - 0.1)."""

LEAST_CANDLES: Final = 1_000
"""Fewer make a running mean, and a distribution, too uncertain to depart from."""

_CLIP: Final = 3.0
"""Standard deviations at which an error is cut: no single candle raises an alarm."""

_USUAL: Final = 1.0 / 30
"""Weight of a candle in the running last-value error that errors are relative to: slower, and each
waking of the market would look like a worse model for a while."""

_SETTLED: Final = 100
"""Candles before errors are cut; fewer do not know their spread."""

STABILITY: Final = 0.5
"""Index of an alarm. 0.25 is the usual limit for tables of borrowers; ranges of minutes reach 0.4
in restless weeks."""

REFERENCE_S: Final = 7 * 86_400.0
WINDOW_S: Final = 3 * 86_400.0
_BLOCKS: Final = 12
_CLASSES: Final = 10
_BINS: Final = 512
_FROM, _TO = -0.5, 1.5


class ErrorDrift:
    """Watches whether the model has become worse than it was, beside the last-value forecast.

    Attributes:
        score: 0 to 1 and beyond; at 1 there is an alarm.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.score = 0.0
        self._n = 0
        self._mean = 0.0
        self._squares = 0.0
        self._usual: float | None = None

    def update(self, model_error: float, last_value_error: float) -> bool:
        """Take in one candle's errors, each averaged over symbols.

        Returns:
            Whether this is an alarm; watching then begins anew.
        """
        before = last_value_error if self._usual is None else self._usual
        self._usual = before + _USUAL * (last_value_error - before)
        if self._usual <= 0.0:
            return False
        value = (model_error - last_value_error) / self._usual
        deviations = 0.0
        if self._n >= _SETTLED and self._squares > 0.0:
            spread = (self._squares / self._n) ** 0.5
            deviations = min(max((value - self._mean) / spread, -_CLIP), _CLIP)
            value = self._mean + deviations * spread
        self._n += 1
        step = value - self._mean
        self._mean += step / self._n
        self._squares += step * (value - self._mean)
        if self._n >= LEAST_CANDLES:
            self.score = max(0.0, self.score + (deviations - TOLERANCE) / THRESHOLD)
        if self.score < 1.0:
            return False
        self._begin()
        return True


class FeatureDrift:
    """Watches whether scaled features are spread as they were at the beginning.

    Attributes:
        scores: the index of each feature, ``[F]``; NaN until reference and window are full.
    """

    def __init__(self, n_features: int, now_s: float) -> None:
        """Begin with the reference at ``now_s`` (monotonic)."""
        self.scores: Floats = np.full(n_features, np.nan)
        self._n_features = n_features
        self._reference = self._none()
        self._window: deque[Counts] = deque(maxlen=_BLOCKS)
        self._block = self._none()
        self._due_s = now_s + REFERENCE_S
        self._learning = True
        self._alarmed = False

    def update(self, rows: NDArray[np.float32], now_s: float) -> bool:
        """Take in scaled rows ``[k, F]``, whatever their symbols; those not finite are left out.

        Returns:
            Whether this is an alarm; the next one needs the index to have been half as large.
        """
        block = self._reference if self._learning else self._block
        rows = rows[np.isfinite(rows).all(axis=1)]
        place = (np.clip(rows, _FROM, _TO) - _FROM) * (_BINS / (_TO - _FROM))
        bins = np.clip(place, 0, _BINS - 1).astype(np.int64) + _BINS * np.arange(self._n_features)
        block += np.bincount(bins.ravel(), minlength=block.size).reshape(block.shape)
        if now_s < self._due_s or (self._learning and block[0].sum() < LEAST_CANDLES):
            return False
        self._due_s = now_s + WINDOW_S / _BLOCKS
        if self._learning:
            self._learning = False
            return False
        self._window.append(self._block)
        self._block = self._none()
        counts = np.sum(self._window, axis=0)
        if len(self._window) < _BLOCKS or counts[0].sum() < LEAST_CANDLES:
            return False
        self.scores = stability(self._reference, counts)
        worst = float(self.scores.max())
        alarm = worst >= STABILITY and not self._alarmed
        self._alarmed = worst >= STABILITY / (2.0 if self._alarmed else 1.0)
        return alarm

    def freeze(self, now_s: float) -> dict[str, NDArray[Any]]:
        """What has been seen, for `thaw` in another process."""
        return {
            "reference": self._reference.copy(),
            "window": np.array(self._window, dtype=np.int64).reshape(-1, *self._block.shape),
            "block": self._block.copy(),
            "left_s": np.array(self._due_s - now_s),
            "flags": np.array([self._learning, self._alarmed]),
        }

    @classmethod
    def thaw(cls, frozen: Mapping[str, NDArray[Any]], n_features: int, now_s: float) -> Self:
        """Go on from what `freeze` told, as if no time had passed.

        Raises:
            ValueError: it is of another shape.
        """
        made = cls(n_features, now_s)
        blocks = (frozen["reference"], frozen["block"], *frozen["window"])
        if any(block.shape != made._block.shape for block in blocks):
            msg = "the counts of another set of features"
            raise ValueError(msg)
        made._reference, made._block, *window = (block.astype(np.int64) for block in blocks)
        made._window.extend(window)
        made._due_s = now_s + min(float(frozen["left_s"]), REFERENCE_S)
        made._learning, made._alarmed = (bool(flag) for flag in frozen["flags"])
        return made

    def _none(self) -> Counts:
        return np.zeros((self._n_features, _BINS), dtype=np.int64)


def stability(reference: Counts, counts: Counts) -> Floats:
    """The population stability index of each feature, ``[F]``.

    Args:
        reference: how often each fine bin was met, ``[F, bins]``; neighbouring ones are joined to
            classes that are about equally full.
        counts: the same, now.
    """
    total = np.maximum(reference.sum(axis=1, keepdims=True), 1)
    middle = (np.cumsum(reference, axis=1) - reference / 2) / total
    classes = np.minimum((middle * _CLASSES).astype(np.int64), _CLASSES - 1)
    classes += _CLASSES * np.arange(len(reference))[:, None]

    def shares(of: Counts) -> Floats:
        full = np.bincount(classes.ravel(), of.ravel(), _CLASSES * len(of)).reshape(len(of), -1)
        # Half a count each: an empty class must not make the index infinite.
        padded = full + 0.5
        share: Floats = padded / padded.sum(axis=1, keepdims=True)
        return share

    before, now = shares(reference), shares(counts)
    index: Floats = ((now - before) * np.log(now / before)).sum(axis=1)
    return index
