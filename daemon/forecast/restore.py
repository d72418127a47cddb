"""Restore what earlier processes published, so that nothing is published twice or left unscored."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.forecast.issuer import Issuer
    from daemon.persistence.recorder import Recorder
    from daemon.scoring.accuracy import Accuracy
    from model.forecasts.forecast import Market


async def restore_published(
    recorder: Recorder, market: Market, accuracy: Accuracy, issuer: Issuer, path: Path, window: int
) -> None:
    """Read forecasts from the history, and the last published targets from their file.

    Args:
        recorder: the way into the history.
        market: what is forecast.
        accuracy: receives the forecasts and the closes that came.
        issuer: learns what was published.
        path: file of the last published targets; written from now on.
        window: candles that `accuracy` keeps.

    Raises:
        HistoryError: the history cannot be read.
    """
    # One more than the window: the newest forecast still waits for its candle.
    limit = window + 1
    await recorder.execute(lambda history: accuracy.restore(history.outcomes(market.key, limit)))
    await asyncio.to_thread(issuer.last_published.open, path)
    issuer.learn_published()
