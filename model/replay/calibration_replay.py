"""Reconstruct the calibration of one symbol as it was when each forecast was published.

History stores with each forecast how many others the calibration had learnt from. While that number
stays or grows by one, the step in between is known: the forecast before was compared with the
candle that followed, or it was not. Where the number jumps (the process was killed and continued
from the last save, a model came back, rows were lost), the replay continues from a state with that
number: a saved one, one that it passed before, or the bundle's.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import numpy as np

from model.forecasts.calibration import Calibration, Snapshot
from model.forecasts.outlook import Outlook

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.forecasts.residuals import Residuals
    from model.forecasts.rules import Rules
    from model.history.reader import Published, SavedStates

    Floats = NDArray[np.float64]

_IDX: Final = np.array([0])

_MAX_PASSED: Final = 1_000
"""Passed states in memory; a killed process goes back by five minutes at most."""


class CalibrationReplay:
    """Replay the forecasts of one symbol by one model in the order of publication.

    Args:
        residuals: of the model's bundle.
        symbol: ccxt symbol.
        states: saved ones, ascending; the first applies from the start.
        step_ms: length of a candle.
    """

    def __init__(
        self, residuals: Residuals, symbol: str, states: SavedStates, step_ms: int
    ) -> None:
        self._residuals = residuals
        self._symbol = symbol
        self._saved = deque(states)
        self._step_ms = step_ms
        # Encoded states by the number of forecasts that they have learnt from.
        self._passed: dict[int, bytes] = {}
        self._calibration: Calibration | None = None
        self._rules: Rules | None = None
        self._learnt = -1
        # Whether the calibration has a pending forecast.
        self._pending = False
        if self._saved:
            self._keep_state(self._saved.popleft()[1])

    def outlook(
        self, forecast: Published, window: Floats | None, followed: Floats | None
    ) -> Outlook | None:
        """Compute again the outlook that was published with a forecast.

        Args:
            forecast: as it was published.
            window: its candles, ``[rows, 5]``; None: history lacks one.
            followed: first revision of the candle that the forecast before was about, ``[5]``;
                None: history lacks it.

        Returns:
            None where it cannot be computed.
        """
        # Nothing is learnt before the next candle closes: a state saved by then applies now.
        while self._saved and self._saved[0][0] < forecast.published_ms + self._step_ms:
            self._keep_state(self._saved.popleft()[1])
        calibration = self._calibration_at(forecast, followed)
        self._pending = False
        if calibration is None or window is None:
            return None
        calibration.prime(_IDX, window[None])
        self._pending = True
        return calibration.outlook(
            _IDX,
            np.array([forecast.predicted_close]),
            np.array([forecast.last_close]),
            np.array([forecast.candle_close_ms]),
        )

    def _calibration_at(self, forecast: Published, followed: Floats | None) -> Calibration | None:
        """The calibration at the time of a forecast; None if it cannot be reconstructed."""
        calibration = self._calibration
        grown = forecast.learnt == self._learnt + 1
        if calibration is not None and self._pending and followed is not None and grown:
            calibration.observe(_IDX, followed[None])
            self._keep_state(self._encoded(calibration))
            self._learnt += 1
        if self._learnt != forecast.learnt or self._rules != forecast.rules:
            self._calibration = calibration = self._restart(forecast)
        return calibration

    def _restart(self, forecast: Published) -> Calibration | None:
        """Start from a state with the right number, else from the bundle, as a new process does."""
        self._learnt, self._rules = -1, None
        if forecast.learnt is None or forecast.rules is None:
            return None
        calibration = Calibration(self._residuals, (self._symbol,), forecast.rules)
        if (state := self._passed.get(forecast.learnt)) is not None:
            calibration.restore({self._symbol: state})
        state = self._encoded(calibration)
        if Snapshot.learnt(state) != forecast.learnt:
            return None
        self._learnt, self._rules = forecast.learnt, forecast.rules
        self._keep_state(state)
        return calibration

    def _encoded(self, calibration: Calibration) -> bytes:
        return calibration.snapshot().encode()[self._symbol]

    def _keep_state(self, state: bytes) -> None:
        learnt = Snapshot.learnt(state)
        self._passed.pop(learnt, None)
        self._passed[learnt] = state
        if len(self._passed) > _MAX_PASSED:
            del self._passed[next(iter(self._passed))]
