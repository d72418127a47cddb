"""Test once a second for drift of the model's error and of the features, and request a retrain."""

from __future__ import annotations

import io
import logging
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from model.files.atomic import write_synced
from model.shared_state.retrain_request import RetrainRequest
from model.stats.drift_tests import ErrorDrift, FeatureDrift

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    from daemon.metrics.metrics import Metrics
    from daemon.scoring.accuracy import Accuracy
    from model.serving import ServedModel

log = logging.getLogger("candlecast.control")

_REQUEST_INTERVAL_MS: Final = 86_400_000
"""At most one retrain is requested a day."""

_UNREADABLE: Final = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged numpy archive may raise."""

_ALARM_TEXTS: Final = {
    "error": "the model's error has risen against the last-value forecast's",
    "features": "the features are distributed differently than when this model began to serve",
}


class DriftMonitor:
    """Tests the served model for drift; the tests start anew with each new model.

    Args:
        metrics: shows scores and alarms.
        state: the folder for the monitor's own state, and for a request to retrain.
        request_retrains: whether to request a retrain after an alarm.
    """

    def __init__(self, metrics: Metrics, state: Path, *, request_retrains: bool) -> None:
        self._metrics = metrics
        self._state = state
        self._file = state / "drift.npz"
        self._request_retrains = request_retrains
        # SHA-256 of the model that the tests are about.
        self._model = ""
        self._error = ErrorDrift()
        # None until the first check of a model.
        self._features: FeatureDrift | None = None
        # Of each symbol: the stamp of the feature row that was tested last.
        self._stamps = np.zeros(0, dtype=np.int64)
        # Errors of candles that closed later have not been tested yet.
        self._tested_ms = 0
        self._requested_ms = 0

    def check(self, served: ServedModel, accuracy: Accuracy, now_s: float) -> list[str]:
        """Test the errors and features that are new since the last check.

        Args:
            served: the served model.
            accuracy: has its errors.
            now_s: monotonic clock.

        Returns:
            What has drifted: ``error``, ``features``; usually nothing.
        """
        if served.sha256 != self._model:
            # The last forecasts of the old model count for the new one: one candle a symbol.
            self._model, self._error, self._features = served.sha256, ErrorDrift(), None
        alarms = []
        for close_ms, model_error, last_value_error in accuracy.errors(self._tested_ms):
            self._tested_ms = close_ms
            if self._error.add_errors(model_error, last_value_error):
                alarms.append("error")
        rows, self._stamps = served.fresh_rows(self._stamps)
        if self._features is None:
            self._features = FeatureDrift(rows.shape[1], now_s)
        if self._features.add_rows(rows, now_s):
            alarms.append("features")
        self._metrics.model.set_drift_scores(self._error.score, float(self._features.scores.max()))
        for alarm in alarms:
            self._metrics.model.drift_alarms.labels(alarm).inc()
            log.warning("drift: %s", _ALARM_TEXTS[alarm])
        return alarms

    def snapshot(self, now_s: float) -> dict[str, npt.NDArray[Any]]:
        """Return the state of the feature test, for `save`; empty before the first check."""
        if self._features is None:
            return {}
        about = {"model": np.array(self._model), "asked_ms": np.array(self._requested_ms)}
        return about | self._features.to_arrays(now_s)

    def save(self, snapshot: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write a snapshot to the state folder, for the next process. Blocks."""
        if not snapshot:
            return
        content = io.BytesIO()
        np.savez_compressed(content, **snapshot)  # type: ignore[arg-type]
        new_file = self._file.with_suffix(".new")
        try:
            write_synced(new_file, content.getvalue())
            new_file.replace(self._file)
        except OSError as error:
            log.warning("the state of the drift tests was not saved: %s", error)

    def restore(self, served: ServedModel, now_s: float) -> None:
        """Continue the feature test of the last process, if it served the same model. Blocks."""
        try:
            with np.load(io.BytesIO(self._file.read_bytes()), allow_pickle=False) as saved:
                # A new process tests the errors of the last day again.
                self._requested_ms = int(saved["asked_ms"])
                if str(saved["model"]) == served.sha256:
                    self._features = FeatureDrift.from_arrays(saved, served.n_features, now_s)
                    self._model = served.sha256
        except FileNotFoundError:
            return
        except _UNREADABLE as error:
            log.warning("the test for drift of features starts anew, %s: %s", self._file, error)

    def request_retrain(self, alarms: list[str], now_ms: int) -> None:
        """Request a retrain because of alarms, unless one was requested in the last day. Blocks."""
        requested_lately = 0 <= now_ms - self._requested_ms < _REQUEST_INTERVAL_MS
        if not self._request_retrains or not alarms or requested_lately:
            return
        self._requested_ms = now_ms
        try:
            RetrainRequest(now_ms, f"drift of {' and '.join(alarms)}").write(self._state)
        except OSError as error:
            log.warning("no retrain could be requested: %s", error)
