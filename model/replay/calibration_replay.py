"""Reconstruct the calibration of one symbol as it was when each forecast was published.

History says with each forecast how many others the calibration had learnt from. As long as that
number stays or grows by one, what happened in between is known: the forecast before was held
against the candle that came, or it was not. Where it jumps (a process was killed and the next one
went on from what was last saved, a model came back, rows were lost) the calibration goes on from
whatever is known with that number: a state that history holds, one that was passed on the way
here, or the bundle's.
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
    from model.history.reader import Published, Saved

    Floats = NDArray[np.float64]

_ONE: Final = np.array([0])

_MOST_PASSED: Final = 1_000
"""States that are remembered; a killed process goes back by five minutes at most."""


class CalibrationReplay:
    """Shown the forecasts of one symbol by one model in the order of their publication.

    Args:
        residuals: of the model's bundle.
        symbol: ccxt symbol.
        states: what history holds, ascending; the first counts from the beginning.
        step_ms: length of a candle.
    """

    def __init__(self, residuals: Residuals, symbol: str, states: Saved, step_ms: int) -> None:
        self._residuals = residuals
        self._symbol = symbol
        self._saved = deque(states)
        self._step_ms = step_ms
        self._passed: dict[int, bytes] = {}
        self._calibration: Calibration | None = None
        self._rules: Rules | None = None
        self._learnt = -1
        self._waits = False
        if self._saved:
            self._remember(self._saved.popleft()[1])

    def outlook(
        self, forecast: Published, window: Floats | None, came: Floats | None
    ) -> Outlook | None:
        """What was known about the next close when a forecast was published, computed again.

        Args:
            forecast: as it was published.
            window: the candles that it was made from, ``[rows, 5]``; None: not all are known.
            came: the candle that followed the one which the forecast before was made from, as it
                was first known, ``[5]``; None: it is not known.

        Returns:
            None where it cannot be told.
        """
        # Until the next candle closes nothing is learnt: what is saved meanwhile is how it was now.
        while self._saved and self._saved[0][0] < forecast.published_ms + self._step_ms:
            self._remember(self._saved.popleft()[1])
        calibration = self._reach(forecast, came)
        self._waits = False
        if calibration is None or window is None:
            return None
        calibration.prime(_ONE, window[None])
        self._waits = True
        return calibration.outlook(
            _ONE,
            np.array([forecast.predicted_close]),
            np.array([forecast.last_close]),
            np.array([forecast.candle_close_ms]),
        )

    def _reach(self, forecast: Published, came: Floats | None) -> Calibration | None:
        """The calibration as it was when the forecast was made; None: that is not known."""
        calibration = self._calibration
        grown = forecast.learnt == self._learnt + 1
        if calibration is not None and self._waits and came is not None and grown:
            calibration.observe(_ONE, came[None])
            self._remember(self._encoded(calibration))
            self._learnt += 1
        if self._learnt != forecast.learnt or self._rules != forecast.rules:
            self._calibration = calibration = self._go_on(forecast)
        return calibration

    def _go_on(self, forecast: Published) -> Calibration | None:
        """As a process that starts: from a state that fits, else from the bundle."""
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
        self._remember(state)
        return calibration

    def _encoded(self, calibration: Calibration) -> bytes:
        return calibration.snapshot().encode()[self._symbol]

    def _remember(self, state: bytes) -> None:
        learnt = Snapshot.learnt(state)
        self._passed.pop(learnt, None)
        self._passed[learnt] = state
        if len(self._passed) > _MOST_PASSED:
            del self._passed[next(iter(self._passed))]
