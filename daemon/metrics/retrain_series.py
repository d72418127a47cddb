"""Declare and update the metrics of the nightly retraining job."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daemon.metrics.declarations import Declarations
    from model.shared_state.retrain_status import RetrainStatus


class RetrainSeries:
    """The result of the last nightly job.

    Attributes:
        first_start: when the daemon first ran; a nightly job can be expected after it.
    """

    def __init__(self, declare: Declarations) -> None:
        """Declare the metrics.

        Args:
            declare: creates them.
        """
        of_last = "of the last nightly job; NaN if unknown"
        ratio = declare.gauge(
            "retrain_mae_ratio", f"Model error ÷ last-value error {of_last}", "model"
        )
        self._numbers = {
            "finished_ms": declare.gauge(
                "retrain_last_run_timestamp_seconds", "Time at which the last nightly job ended"
            ),
            "success_ms": declare.gauge(
                "retrain_last_success_timestamp_seconds",
                "Time at which a nightly job last ended with a decision",
            ),
            "duration_s": declare.gauge("retrain_duration_seconds", f"Time {of_last}"),
            "challenger_ratio": ratio.labels("challenger"),
            "champion_ratio": ratio.labels("champion"),
            "gain": declare.gauge(
                "retrain_gain", f"Champion's error ratio minus the challenger's {of_last}"
            ),
            "standard_error": declare.gauge(
                "retrain_gain_stderr", f"Standard error of candlecast_retrain_gain {of_last}"
            ),
        }
        self._failed = declare.gauge(
            "retrain_failed", "1 if the last nightly job ended without a decision"
        )
        self._promoted = declare.gauge(
            "retrain_promoted", "1 if the last nightly job promoted its challenger"
        )
        self.first_start = declare.gauge(
            "first_start_timestamp_seconds", "Time of the first start with this state folder"
        )
        for number in (*self._numbers.values(), self.first_start):
            number.set(nan)

    def set_status(self, status: RetrainStatus) -> None:
        """Copy the status of the last nightly job."""
        for name, gauge in self._numbers.items():
            value = getattr(status, name)
            scale = 1e3 if name.endswith("_ms") else 1.0
            gauge.set(nan if value is None else value / scale)
        self._failed.set(status.error is not None)
        self._promoted.set(status.promoted)
