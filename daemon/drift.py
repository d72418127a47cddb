"""Looks for drift once a second, beside the path; an alarm is told and may ask for a retrain."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import numpy as np

from model.drift import ErrorDrift, FeatureDrift
from model.retrain_request import RetrainRequest

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.accuracy import Accuracy
    from daemon.metrics import Metrics
    from model.serving import ServedModel

log = logging.getLogger(__name__)

_APART_MS: Final = 86_400_000
"""A retrain is asked for once a day at most."""

_TEXTS: Final = {
    "error": "the model's error has risen against the last-value forecast's",
    "features": "the market is not what it was when this model began",
}


class DriftWatch:
    """Follows the model at work; a new model begins anew.

    Args:
        metrics: scores and alarms.
        state: the folder for a request to retrain; None: nothing is requested.
    """

    def __init__(self, metrics: Metrics, state: Path | None) -> None:
        self._metrics = metrics
        self._state = state
        self._model = ""
        self._error = ErrorDrift()
        self._features: FeatureDrift | None = None
        self._stamps = np.zeros(0, dtype=np.int64)
        self._after_ms = 0
        self._asked_ms = 0

    def look(self, served: ServedModel, accuracy: Accuracy, now_s: float) -> list[str]:
        """Take in what is new since the last look.

        Args:
            served: the model at work.
            accuracy: its errors.
            now_s: monotonic clock.

        Returns:
            What has drifted: ``error``, ``features``, mostly nothing.
        """
        if served.sha256 != self._model:
            # Forecasts of the old model that are still to be scored are its own affair.
            self._model, self._error, self._features = served.sha256, ErrorDrift(), None
        alarms = []
        for close_ms, model_error, last_value_error in accuracy.errors(self._after_ms):
            self._after_ms = close_ms
            if self._error.update(model_error, last_value_error):
                alarms.append("error")
        rows, self._stamps = served.fresh_rows(self._stamps)
        if self._features is None:
            self._features = FeatureDrift(rows.shape[1], now_s)
        if self._features.update(rows, now_s):
            alarms.append("features")
        self._metrics.model.show_drift(self._error.score, float(self._features.scores.max()))
        for alarm in alarms:
            self._metrics.model.drift_alarms.labels(alarm).inc()
            log.warning("drift: %s", _TEXTS[alarm])
        return alarms

    def request(self, alarms: list[str], now_ms: int) -> None:
        """Ask for a retrain because of alarms, unless one was asked for not long ago. Blocks."""
        if self._state is None or not alarms or now_ms < self._asked_ms + _APART_MS:
            return
        self._asked_ms = now_ms
        try:
            RetrainRequest(now_ms, f"drift of {' and '.join(alarms)}").write(self._state)
        except OSError as error:
            log.warning("no retrain could be asked for: %s", error)
