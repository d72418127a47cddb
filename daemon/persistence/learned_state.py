"""What a model has learnt at work is kept in the history, so that a restart does not forget it."""

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

_SAVE_EVERY_S: Final = 300.0
"""What a kill may cost: five minutes of adaptation. A save writes some 400 bytes per symbol."""


class LearnedStateStore:
    """Saves and restores what a served model has learnt, on the recorder's thread.

    That is its calibration, and the scalers of symbols that its bundle does not know. Those are
    queued for the history by whoever had them fitted, before the first forecast made with them.

    Args:
        recorder: the way into the history.
        market: exchange and timeframe.
        clock: the injected clock.
    """

    def __init__(self, recorder: Recorder, market: MarketKey, clock: Clock) -> None:
        self._recorder = recorder
        self._market = market
        self._clock = clock
        self._restored = False

    async def restore(self, served: ServedModel) -> None:
        """Go on from what was last saved for this very model, which has seen no candle yet.

        Raises:
            HistoryError: the history cannot be read.
        """

        # In the recorder's thread: a thousand symbols take 20 ms, which candles need not wait for.
        def restore(history: History) -> tuple[list[str], list[str]]:
            place = self._market, served.sha256
            unfit = served.restore_scalers(history.scalers(*place))
            return unfit, served.calibration.restore(history.calibration(*place))

        unfit, refused = await self._recorder.read(restore)
        self._restored = True
        if refused:
            log.warning("calibration starts anew, its saved state does not fit: %s", refused)
        if unfit:
            log.warning("scalers are fitted anew, the saved ones do not fit: %s", unfit)

    async def run(self, served: Callable[[], ServedModel]) -> None:
        """Save the model at work now and then, until cancelled."""
        while True:
            await self._clock.sleep(_SAVE_EVERY_S)
            await self.save(served())

    async def save(self, served: ServedModel) -> None:
        """Write down what has been learnt; a history that fails costs nothing but this."""
        if not self._restored:
            # Stopped while starting: what is in the history is newer than what is here.
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
