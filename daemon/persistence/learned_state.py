"""Save and restore what the served model has learned, in the history."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from model.core.errors import HistoryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.persistence.recorder import Recorder
    from daemon.runtime.clock import Clock
    from model.core.market import MarketKey
    from model.history.store import History
    from model.serving import ServedModel

log = logging.getLogger("candlecast.persistence")

_SAVE_INTERVAL_S: Final = 300.0
"""A kill loses at most five minutes of adaptation. A save writes some 400 bytes per symbol."""


class LearnedStateStore:
    """Saves and restores the learned state of a served model, on the recorder's thread.

    That is its calibration, and the scalers of symbols that its bundle does not know. The scalers
    are queued for the history where they are fitted, before the first forecast made with them.

    Args:
        recorder: gives access to the history.
        market: exchange and timeframe.
        clock: the injected clock.
    """

    def __init__(self, recorder: Recorder, market: MarketKey, clock: Clock) -> None:
        self._recorder = recorder
        self._market = market
        self._clock = clock
        # False while the history may hold a newer state than the model.
        self._restored = False

    async def restore(self, served: ServedModel) -> None:
        """Load what was last saved for exactly this model, which has seen no candle yet.

        Raises:
            HistoryError: the history cannot be read.
        """

        # On the recorder's thread: a thousand symbols take 20 ms, too long for the event loop.
        def restore(history: History) -> tuple[list[str], list[str]]:
            key = self._market, served.sha256
            rejected_scalers = served.restore_scalers(history.scalers(*key))
            return rejected_scalers, served.calibration.restore(history.calibration(*key))

        rejected_scalers, rejected_calibrations = await self._recorder.read(restore)
        self._restored = True
        if rejected_calibrations:
            log.warning(
                "calibration starts anew, its saved state does not fit: %s", rejected_calibrations
            )
        if rejected_scalers:
            log.warning("scalers are fitted anew, the saved ones do not fit: %s", rejected_scalers)

    async def run(self, served: Callable[[], ServedModel]) -> None:
        """Save the served model's state every five minutes, until cancelled."""
        while True:
            await self._clock.sleep(_SAVE_INTERVAL_S)
            await self.save(served())

    async def save(self, served: ServedModel) -> None:
        """Save the calibration; if the history fails, log it and continue."""
        if not self._restored:
            # Stopped while starting: the history holds a newer state than this model.
            return
        snapshot = served.calibration.snapshot()
        now_ms = self._clock.wall_ms()

        def write(history: History) -> None:
            model = (served.version, served.sha256)
            history.save_calibration(self._market, model, (now_ms, snapshot.encode()))

        try:
            await self._recorder.read(write)
        except HistoryError as error:
            log.warning("the calibration was not saved: %s", error)
