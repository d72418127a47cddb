"""Detect drift of features and of model errors in O(1) per candle.

*Error*: Page's cumulative sum (Page, "Continuous inspection schemes", Biometrika 41, 1954) in the
form known as the Page-Hinkley test, on the model's error minus the last-value forecast's, averaged
over symbols. Mean and spread are running ones of the same series.

*Features*: the population stability index (Siddiqi, "Credit Risk Scorecards", 2006) of the last
days against the first week that the model served, ``sum((p - q) * ln(p / q))`` over ten classes
that were about equally full in that week.

An alarm asks for a closer look or a new training. It is never evidence for a promotion.

Written by hand: the detectors of river take one number at a time, are not robust to heavy tails,
and load pandas and scipy (about 150 MB) into the daemon.
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
"""Rise of the mean error, in standard deviations, that is not counted."""

THRESHOLD: Final = 65.0
"""Independent, normal errors raise an alarm once in 2e7 candles (Siegmund's approximation,
``(exp(2kb) - 2kb - 1) / (2k²)`` with k the tolerance and b the threshold + 1.166). Real errors are
neither, which is why the margin is large. A rise by s standard deviations is detected after about
65 / (s - 0.1) candles."""

MIN_CANDLES: Final = 1_000
"""With fewer candles mean and distribution are too uncertain to compare with."""

_CLIP: Final = 3.0
"""Errors are cut at this many standard deviations, so that no single candle raises an alarm."""

_SCALE_WEIGHT: Final = 1.0 / 30
"""Weight of a candle in the running last-value error that errors are divided by. With a smaller
weight a market that becomes volatile would look like a worse model for a while."""

_MIN_FOR_CLIP: Final = 100
"""Candles before errors are cut; with fewer their spread is unknown."""

STABILITY: Final = 0.5
"""Index that raises an alarm. 0.25 is the usual limit in credit scoring; minutes reach 0.4 in
volatile weeks without drift."""

REFERENCE_S: Final = 7 * 86_400.0
WINDOW_S: Final = 3 * 86_400.0
_BLOCKS: Final = 12
_CLASSES: Final = 10
_BINS: Final = 512
_BINS_FROM, _BINS_TO = -0.5, 1.5


class ErrorDrift:
    """Detect that the model became worse relative to the last-value forecast.

    Attributes:
        score: from 0; an alarm is raised at 1.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.score = 0.0
        self._n = 0
        self._mean = 0.0
        self._squares = 0.0
        self._scale: float | None = None

    def add_errors(self, model_error: float, last_value_error: float) -> bool:
        """Add the errors of one candle, each averaged over symbols.

        Returns:
            Whether an alarm is raised; the test then starts again.
        """
        before = last_value_error if self._scale is None else self._scale
        self._scale = before + _SCALE_WEIGHT * (last_value_error - before)
        if self._scale <= 0.0:
            return False
        value = (model_error - last_value_error) / self._scale
        deviations = 0.0
        if self._n >= _MIN_FOR_CLIP and self._squares > 0.0:
            spread = (self._squares / self._n) ** 0.5
            deviations = min(max((value - self._mean) / spread, -_CLIP), _CLIP)
            value = self._mean + deviations * spread
        self._n += 1
        step = value - self._mean
        self._mean += step / self._n
        self._squares += step * (value - self._mean)
        if self._n >= MIN_CANDLES:
            self.score = max(0.0, self.score + (deviations - TOLERANCE) / THRESHOLD)
        if self.score < 1.0:
            return False
        self._reset()
        return True


class FeatureDrift:
    """Detect that the distribution of scaled features moved away from the first week's.

    Attributes:
        scores: the index of each feature, ``[F]``; NaN until reference and window are full.
    """

    def __init__(self, n_features: int, now_s: float) -> None:
        """Start collecting the reference at ``now_s`` (monotonic seconds)."""
        self.scores: Floats = np.full(n_features, np.nan)
        self._n_features = n_features
        self._reference = self._zero_counts()
        self._window: deque[Counts] = deque(maxlen=_BLOCKS)
        self._block = self._zero_counts()
        self._due_s = now_s + REFERENCE_S
        self._learning = True
        self._alarmed = False

    def add_rows(self, rows: NDArray[np.float32], now_s: float) -> bool:
        """Add scaled rows ``[k, F]`` of any symbols; rows that are not finite are ignored.

        Returns:
            Whether an alarm is raised; the next one needs the index to fall to half first.
        """
        block = self._reference if self._learning else self._block
        rows = rows[np.isfinite(rows).all(axis=1)]
        place = (np.clip(rows, _BINS_FROM, _BINS_TO) - _BINS_FROM) * (
            _BINS / (_BINS_TO - _BINS_FROM)
        )
        bins = np.clip(place, 0, _BINS - 1).astype(np.int64) + _BINS * np.arange(self._n_features)
        block += np.bincount(bins.ravel(), minlength=block.size).reshape(block.shape)
        if now_s < self._due_s or (self._learning and block[0].sum() < MIN_CANDLES):
            return False
        self._due_s = now_s + WINDOW_S / _BLOCKS
        if self._learning:
            self._learning = False
            return False
        self._window.append(self._block)
        self._block = self._zero_counts()
        counts = np.sum(self._window, axis=0)
        if len(self._window) < _BLOCKS or counts[0].sum() < MIN_CANDLES:
            return False
        self.scores = stability(self._reference, counts)
        worst = float(self.scores.max())
        alarm = worst >= STABILITY and not self._alarmed
        self._alarmed = worst >= STABILITY / (2.0 if self._alarmed else 1.0)
        return alarm

    def to_arrays(self, now_s: float) -> dict[str, NDArray[Any]]:
        """Return the state, for `from_arrays` in another process."""
        return {
            "reference": self._reference.copy(),
            "window": np.array(self._window, dtype=np.int64).reshape(-1, *self._block.shape),
            "block": self._block.copy(),
            "left_s": np.array(self._due_s - now_s),
            "flags": np.array([self._learning, self._alarmed]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], n_features: int, now_s: float) -> Self:
        """Restore what `to_arrays` returned; the time in between does not count.

        Raises:
            ValueError: the arrays have another shape.
        """
        restored = cls(n_features, now_s)
        blocks = (arrays["reference"], arrays["block"], *arrays["window"])
        if any(block.shape != restored._block.shape for block in blocks):
            msg = "the counts of another set of features"
            raise ValueError(msg)
        restored._reference, restored._block, *window = (block.astype(np.int64) for block in blocks)
        restored._window.extend(window)
        restored._due_s = now_s + min(float(arrays["left_s"]), REFERENCE_S)
        restored._learning, restored._alarmed = (bool(flag) for flag in arrays["flags"])
        return restored

    def _zero_counts(self) -> Counts:
        return np.zeros((self._n_features, _BINS), dtype=np.int64)


def stability(reference: Counts, counts: Counts) -> Floats:
    """The population stability index of each feature, ``[F]``.

    Args:
        reference: rows in each fine bin, ``[F, bins]``; neighbouring bins are joined into classes
            that are about equally full.
        counts: the same for the current window.
    """
    total = np.maximum(reference.sum(axis=1, keepdims=True), 1)
    middle = (np.cumsum(reference, axis=1) - reference / 2) / total
    classes = np.minimum((middle * _CLASSES).astype(np.int64), _CLASSES - 1)
    classes += _CLASSES * np.arange(len(reference))[:, None]

    def shares(of: Counts) -> Floats:
        full = np.bincount(classes.ravel(), of.ravel(), _CLASSES * len(of)).reshape(len(of), -1)
        # Half a count is added to each class: an empty one would make the index infinite.
        padded = full + 0.5
        share: Floats = padded / padded.sum(axis=1, keepdims=True)
        return share

    before, now = shares(reference), shares(counts)
    index: Floats = ((now - before) * np.log(now / before)).sum(axis=1)
    return index
