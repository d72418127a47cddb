"""Looks for drift once a second, beside the path; an alarm is told and may ask for a retrain."""

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

_APART_MS: Final = 86_400_000
"""A retrain is asked for once a day at most."""

_DAMAGED: Final = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged archive of numpy's may raise."""

_TEXTS: Final = {
    "error": "the model's error has risen against the last-value forecast's",
    "features": "the market is not what it was when this model began",
}


class DriftWatch:
    """Follows the model at work; a new model begins anew.

    Args:
        metrics: scores and alarms.
        state: the folder for what has been seen, and for a request to retrain.
        ask: whether to leave such a request.
    """

    def __init__(self, metrics: Metrics, state: Path, *, ask: bool) -> None:
        self._metrics = metrics
        self._state = state
        self._file = state / "drift.npz"
        self._ask = ask
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
            if self._error.add_errors(model_error, last_value_error):
                alarms.append("error")
        rows, self._stamps = served.fresh_rows(self._stamps)
        if self._features is None:
            self._features = FeatureDrift(rows.shape[1], now_s)
        if self._features.add_rows(rows, now_s):
            alarms.append("features")
        self._metrics.model.show_drift(self._error.score, float(self._features.scores.max()))
        for alarm in alarms:
            self._metrics.model.drift_alarms.labels(alarm).inc()
            log.warning("drift: %s", _TEXTS[alarm])
        return alarms

    def freeze(self, now_s: float) -> dict[str, npt.NDArray[Any]]:
        """What has been seen of the features, for `save`; empty before the first look."""
        if self._features is None:
            return {}
        about = {"model": np.array(self._model), "asked_ms": np.array(self._asked_ms)}
        return about | self._features.to_arrays(now_s)

    def save(self, frozen: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write it down, for the next process. Blocks."""
        if not frozen:
            return
        content = io.BytesIO()
        np.savez_compressed(content, **frozen)  # type: ignore[arg-type]
        draft = self._file.with_suffix(".new")
        try:
            write_synced(draft, content.getvalue())
            draft.replace(self._file)
        except OSError as error:
            log.warning("what was seen of drift is not kept: %s", error)

    def resume(self, served: ServedModel, now_s: float) -> None:
        """Go on where the last process was, if it served the same model. Blocks."""
        try:
            with np.load(io.BytesIO(self._file.read_bytes()), allow_pickle=False) as found:
                # A new process looks at the last day's errors once more.
                self._asked_ms = int(found["asked_ms"])
                if str(found["model"]) == served.sha256:
                    self._features = FeatureDrift.from_arrays(found, served.n_features, now_s)
                    self._model = served.sha256
        except FileNotFoundError:
            return
        except _DAMAGED as error:
            log.warning("drift of features is looked for anew, %s: %s", self._file, error)

    def request(self, alarms: list[str], now_ms: int) -> None:
        """Ask for a retrain because of alarms, unless one was asked for not long ago. Blocks."""
        lately = 0 <= now_ms - self._asked_ms < _APART_MS
        if not self._ask or not alarms or lately:
            return
        self._asked_ms = now_ms
        try:
            RetrainRequest(now_ms, f"drift of {' and '.join(alarms)}").write(self._state)
        except OSError as error:
            log.warning("no retrain could be asked for: %s", error)
