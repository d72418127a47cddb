"""How the nightly job went, read from its file and shown in the metrics."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from model.retrain_status import RetrainStatus

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.clock import Clock
    from daemon.metrics import Metrics

_LOOK_S: Final = 15.0


async def show_nightly(state: Path, metrics: Metrics, clock: Clock) -> None:
    """Keep the metrics up to date until cancelled; a file that says nothing changes nothing.

    Args:
        state: the folder that `retrain.json` is in.
        metrics: where it is shown.
        clock: the injected clock.
    """
    while True:
        status = await asyncio.to_thread(RetrainStatus.read, state)
        if status is not None:
            metrics.show_retrain(status)
        await clock.sleep(_LOOK_S)
