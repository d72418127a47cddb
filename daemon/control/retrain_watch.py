"""Read from its file how the nightly job went, and show it in the metrics."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from model.core.errors import BundleError
from model.files.atomic import read_limited, sync_folder, write_synced
from model.shared_state.retrain_status import RetrainStatus

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.metrics.metrics import Metrics
    from daemon.runtime.clock import Clock

log = logging.getLogger("candlecast.control")

_LOOK_S: Final = 15.0

FIRST_START: Final = "first-start"
_DIGITS: Final = 20


async def show_nightly(state: Path, metrics: Metrics, clock: Clock) -> None:
    """Keep the metrics up to date until cancelled; a file that says nothing changes nothing.

    Args:
        state: the folder that `retrain.json` is in.
        metrics: where it is shown.
        clock: the injected clock.
    """
    first_ms = await asyncio.to_thread(first_start_ms, state, clock.wall_ms())
    metrics.retrain.first_start.set(first_ms / 1e3)
    while True:
        status = await asyncio.to_thread(RetrainStatus.read, state)
        if status is not None:
            metrics.retrain.show(status)
        await clock.sleep(_LOOK_S)


def first_start_ms(state: Path, now_ms: int) -> int:
    """When the daemon first ran with a state folder, Unix milliseconds; noted there. Blocks.

    Args:
        state: the folder; where it cannot be written, each start counts as the first.
        now_ms: taken and noted where no time is, or one that has not come yet.
    """
    path = state / FIRST_START
    try:
        noted_ms = int(read_limited(path, _DIGITS))
    except (BundleError, ValueError):
        noted_ms = 0
    if 0 < noted_ms <= now_ms:
        return noted_ms
    try:
        fresh = state / f".{FIRST_START}.new"
        write_synced(fresh, f"{now_ms}\n".encode())
        fresh.replace(path)
        sync_folder(state)
    except OSError as error:
        log.warning(
            "%s cannot be written (%s); the alert of an overdue nightly job counts from this start",
            path,
            error.strerror,
        )
    return now_ms
