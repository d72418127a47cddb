"""Declare and update the metrics of forecast accuracy over all symbols."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING

import numpy as np

from daemon.scoring.rolling import NO, YES

if TYPE_CHECKING:
    from daemon.metrics.declarations import Declarations
    from daemon.scoring.accuracy import Accuracy, Scores


class AccuracySeries:
    """Counters of errors, hits and intervals, and the figures of the rolling window.

    Attributes:
        rolling: the rolling figures by a short name; NaN until there is enough evidence.
        interval_level: share of closes that the intervals promise to contain.
    """

    def __init__(self, declare: Declarations) -> None:
        """Declare the metrics.

        Args:
            declare: creates them.
        """
        errors = declare.counter(
            "abs_error", "Sum of absolute errors relative to the last close", "forecast"
        )
        self._errors = (errors.labels("model"), errors.labels("last_value"))
        direction = declare.counter(
            "direction", "Forecast directions of candles that moved, by result", "result"
        )
        self._hits = {YES: direction.labels("hit"), NO: direction.labels("miss")}
        interval = declare.counter("interval", "Closes against their interval, by result", "result")
        self._insides = {YES: interval.labels("inside"), NO: interval.labels("outside")}
        self._unscored = declare.counter(
            "predictions_unscored", "Forecasts whose target candle never came"
        )
        over = "over the rolling window of all symbols; NaN until there is enough evidence"
        self.rolling = {
            "mae_ratio": declare.gauge("mae_ratio", f"Model error ÷ last-value error {over}"),
            "mae_ratio_stderr": declare.gauge(
                "mae_ratio_stderr", f"Standard error of candlecast_mae_ratio {over}"
            ),
            "direction": declare.gauge("direction_accuracy", f"Share of right directions {over}"),
            "coverage": declare.gauge("interval_coverage", f"Share inside the interval {over}"),
        }
        for figure in self.rolling.values():
            figure.set(nan)
        self.interval_level = declare.gauge("interval_level", "Share that the interval promises")
        # Of the accuracy's own count, what the counter already has.
        self._unscored_before = 0

    def on_scored(self, scores: Scores) -> None:
        """Count forecasts that were compared with the closes that came."""
        model, last_value = self._errors
        model.inc(float(scores.model_errors.sum()))
        last_value.inc(float(scores.last_value_errors.sum()))
        for answer in (YES, NO):
            self._hits[answer].inc(int(np.count_nonzero(scores.hits == answer)))
            self._insides[answer].inc(int(np.count_nonzero(scores.insides == answer)))

    def update(self, accuracy: Accuracy) -> None:
        """Copy the rolling figures and the count of unscored forecasts."""
        skill, direction, coverage = accuracy.aggregate()
        ratio, stderr = (None, None) if skill is None else (skill.mae_ratio, skill.stderr)
        figures = (ratio, stderr, direction, coverage)
        for gauge, figure in zip(self.rolling.values(), figures, strict=True):
            gauge.set(nan if figure is None else figure)
        self._unscored.inc(accuracy.unscored - self._unscored_before)
        self._unscored_before = accuracy.unscored
