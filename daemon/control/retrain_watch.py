"""Read from its file how the nightly job went, and show it in the metrics."""

from __future__ import annotations

import asyncio
import logging
from math import nan
from typing import TYPE_CHECKING, Final

from model.core.errors import BundleError
from model.files.atomic import read_limited, sync_folder, write_synced
from model.shared_state.retrain_status import RetrainStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from prometheus_client import Gauge

    from daemon.metrics.metrics import Metrics
    from daemon.runtime.clock import Clock

log = logging.getLogger("candlecast.control")

_LOOK_S: Final = 15.0

FIRST_START: Final = "first-start"
_DIGITS: Final = 20


class RetrainSeries:
    """The series about the nightly job.

    Args:
        gauge: declares one, by name (without prefix), meaning and labels.

    Attributes:
        first_start: from when on a nightly job can be expected.
    """

    def __init__(self, gauge: Callable[..., Gauge]) -> None:
        of_last = "of the last nightly job; NaN while it is not known"
        ratio = gauge("retrain_mae_ratio", f"Model error ÷ last-value error {of_last}", "model")
        self._numbers = {
            "finished_ms": gauge(
                "retrain_last_run_timestamp_seconds", "When the last nightly job ended"
            ),
            "success_ms": gauge(
                "retrain_last_success_timestamp_seconds",
                "When a nightly job last came to a decision",
            ),
            "duration_s": gauge("retrain_duration_seconds", f"Time {of_last}"),
            "challenger_ratio": ratio.labels("challenger"),
            "champion_ratio": ratio.labels("champion"),
            "gain": gauge(
                "retrain_gain", f"Champion's error ratio minus the challenger's {of_last}"
            ),
            "standard_error": gauge(
                "retrain_gain_stderr", f"Standard error of candlecast_retrain_gain {of_last}"
            ),
        }
        self._failed = gauge("retrain_failed", "1 while the last nightly job came to no decision")
        self._promoted = gauge(
            "retrain_promoted", "1 while the last nightly job's challenger was promoted"
        )
        self.first_start = gauge(
            "first_start_timestamp_seconds", "When the daemon first ran with this state folder"
        )
        for number in (*self._numbers.values(), self.first_start):
            number.set(nan)

    def show(self, status: RetrainStatus) -> None:
        """Copy how the last nightly job went."""
        for name, gauge in self._numbers.items():
            value = getattr(status, name)
            scale = 1e3 if name.endswith("_ms") else 1.0
            gauge.set(nan if value is None else value / scale)
        self._failed.set(status.error is not None)
        self._promoted.set(status.promoted)


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
