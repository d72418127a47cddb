"""The series about the model at work."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import Gauge

    from daemon.metrics.counter import Counter
    from model.forecasts.forecast import ModelInfo
    from model.shared_state.live_trial import Tally


class ModelSeries:
    """Which model is at work, what became of new ones, and how far the world has moved.

    Args:
        gauge: declares one, by name (without prefix), meaning and labels.
        counter: the same.

    Attributes:
        swaps: by outcome.
        swap_failing: 1 while the champion cannot be served.
        out_of_range: share of values outside the fitted range.
        drift_alarms: by what has drifted.
    """

    def __init__(self, gauge: Callable[..., Gauge], counter: Callable[..., Counter]) -> None:
        self._info = gauge("model_info", "The model at work", "version", "sha256", "target")
        self.swaps = counter(
            "model_swaps",
            "New champions that took over from a running model, or could not",
            "outcome",
        )
        for outcome in ("done", "failed"):
            self.swaps.labels(outcome)
        self.swap_failing = gauge(
            "model_swap_failing", "1 while the champion cannot be served and an older model is"
        )
        self.out_of_range = gauge(
            "out_of_range_ratio",
            "Share of the windows' values outside the range the scalers were fitted on",
        )
        self.out_of_range.set(nan)
        score = gauge(
            "drift_score",
            "How far it has moved: error, 1 is an alarm; features, the stability index, 0.5 is one",
            "of",
        )
        self._drift = {of: score.labels(of) for of in ("error", "features")}
        self._drift["features"].set(nan)
        self.drift_alarms = counter("drift_alarms", "Alarms of drift", "of")
        for of in self._drift:
            self.drift_alarms.labels(of)

    def show(self, model: ModelInfo) -> None:
        """Name the model at work."""
        self._info.clear()
        self._info.labels(model.version, model.sha256, model.target).set(1)

    def show_drift(self, error: float, features: float) -> None:
        """Show how far the model's error and the features have moved; NaN while unknown."""
        self._drift["error"].set(error)
        self._drift["features"].set(features)


class ShadowSeries:
    """How the live trial of a challenger goes.

    Args:
        gauge: declares one, by name (without prefix), meaning and labels.
    """

    def __init__(self, gauge: Callable[..., Gauge]) -> None:
        self._info = gauge("shadow_info", "The challenger that forecasts unpublished", "version")
        of_trial = "of the live trial; NaN without one"
        self._candles = gauge("shadow_candles", f"Candles of evidence {of_trial}")
        ratio = gauge("shadow_mae_ratio", f"Model error ÷ last-value error {of_trial}", "role")
        self._ratios = {role: ratio.labels(role) for role in ("challenger", "champion")}
        self.clear()

    def show(self, version: str, tally: Tally) -> None:
        """Show where it stands."""
        self._info.labels(version).set(1)
        self._candles.set(tally.candles)
        for role, total in (("challenger", tally.challenger), ("champion", tally.champion)):
            self._ratios[role].set(total / tally.last_value if tally.last_value else nan)

    def clear(self) -> None:
        """There is no trial."""
        self._info.clear()
        for gauge in (self._candles, *self._ratios.values()):
            gauge.set(nan)
