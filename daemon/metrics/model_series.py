"""Declare and update the metrics of the served model and of the challenger beside it."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daemon.metrics.declarations import Declarations
    from model.forecasts.forecast import ModelInfo
    from model.shared_state.live_trial import Tally


class ModelSeries:
    """The served model, swaps, and drift.

    Attributes:
        swaps: by outcome.
        swap_failing: 1 while the champion cannot be served.
        out_of_range: share of scaled values outside the range that the scalers were fitted on.
        drift_alarms: by what has drifted.
    """

    def __init__(self, declare: Declarations) -> None:
        """Declare the metrics.

        Args:
            declare: creates them.
        """
        self._info = declare.gauge("model_info", "The served model", "version", "sha256", "target")
        self.swaps = declare.counter(
            "model_swaps",
            "New champions that took over from a running model, or could not",
            "outcome",
        )
        for outcome in ("done", "failed"):
            self.swaps.labels(outcome)
        self.swap_failing = declare.gauge(
            "model_swap_failing", "1 while the champion cannot be served and an older model is"
        )
        self.out_of_range = declare.gauge(
            "out_of_range_ratio",
            "Share of the windows' values outside the range the scalers were fitted on",
        )
        self.out_of_range.set(nan)
        score = declare.gauge(
            "drift_score",
            "How far it has moved: error, 1 is an alarm; features, the stability index, 0.5 is one",
            "of",
        )
        self._drift = {of: score.labels(of) for of in ("error", "features")}
        self._drift["features"].set(nan)
        self.drift_alarms = declare.counter("drift_alarms", "Alarms of drift", "of")
        for of in self._drift:
            self.drift_alarms.labels(of)

    def set_served(self, model: ModelInfo) -> None:
        """Name the served model."""
        self._info.clear()
        self._info.labels(model.version, model.sha256, model.target).set(1)

    def set_drift_scores(self, error: float, features: float) -> None:
        """Set how far the model's error and the features have drifted; NaN while unknown."""
        self._drift["error"].set(error)
        self._drift["features"].set(features)


class ShadowSeries:
    """The live trial of a challenger."""

    def __init__(self, declare: Declarations) -> None:
        """Declare the metrics.

        Args:
            declare: creates them.
        """
        self._info = declare.gauge(
            "shadow_info", "The challenger that forecasts unpublished", "version"
        )
        of_trial = "of the live trial; NaN without one"
        self._candles = declare.gauge("shadow_candles", f"Candles of evidence {of_trial}")
        ratio = declare.gauge(
            "shadow_mae_ratio", f"Model error ÷ last-value error {of_trial}", "role"
        )
        self._ratios = {role: ratio.labels(role) for role in ("challenger", "champion")}
        self.clear()

    def set_trial(self, version: str, tally: Tally) -> None:
        """Set the challenger and the evidence so far."""
        self._info.labels(version).set(1)
        self._candles.set(tally.candles)
        for role, total in (("challenger", tally.challenger), ("champion", tally.champion)):
            self._ratios[role].set(total / tally.last_value if tally.last_value else nan)

    def clear(self) -> None:
        """Clear the series: there is no trial."""
        self._info.clear()
        for gauge in (self._candles, *self._ratios.values()):
            gauge.set(nan)
