"""Read the status file of the nightly job and show it in the metrics."""

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

_POLL_INTERVAL_S: Final = 15.0

FIRST_START: Final = "first-start"
"""Name of the file with the time of the first start, in the state folder."""

_MAX_DIGITS: Final = 20
"""Bytes of that file that are read at most."""


async def watch_retrain_status(state: Path, metrics: Metrics, clock: Clock) -> None:
    """Update the metrics until cancelled; a missing or damaged file leaves them unchanged.

    Args:
        state: the folder with `retrain.json`.
        metrics: shows the status.
        clock: the injected clock.
    """
    first_ms = await asyncio.to_thread(first_start_ms, state, clock.wall_ms())
    metrics.retrain.first_start.set(first_ms / 1e3)
    while True:
        status = await asyncio.to_thread(RetrainStatus.read, state)
        if status is not None:
            metrics.retrain.set_status(status)
        await clock.sleep(_POLL_INTERVAL_S)


def first_start_ms(state: Path, now_ms: int) -> int:
    """Return when the daemon first ran with a state folder, Unix milliseconds. Blocks.

    Args:
        state: holds the time in a file; if it cannot be written, each start counts as the first.
        now_ms: written and returned if the file has no time, or one in the future.
    """
    path = state / FIRST_START
    try:
        saved_ms = int(read_limited(path, _MAX_DIGITS))
    except (BundleError, ValueError):
        saved_ms = 0
    if 0 < saved_ms <= now_ms:
        return saved_ms
    try:
        new_file = state / f".{FIRST_START}.new"
        write_synced(new_file, f"{now_ms}\n".encode())
        new_file.replace(path)
        sync_folder(state)
    except OSError as error:
        log.warning(
            "%s cannot be written (%s); the alert of an overdue nightly job counts from this start",
            path,
            error.strerror,
        )
    return now_ms
