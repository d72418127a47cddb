"""Save the decisions of a retrain run, so that a later run can continue it, and lock its folder."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from model.core.errors import CandlecastError

if TYPE_CHECKING:
    from pathlib import Path

_LOCK: Final = ".lock"
_PLAN: Final = "plan.json"
_MAX_AGE_MS: Final = 43_200_000
"""Half a day. An older plan is not continued: newer candles are worth more than the work done,
and a failure of one night must not be repeated in the next."""


@dataclass(frozen=True)
class RetrainPlan:
    """The decisions of a run.

    Attributes:
        key: of the job.
        started_ms: start of the run, Unix milliseconds.
        from_ms: opening of the first candle.
        until_ms: closing of the last candle.
        known_ms: only candles received before this time are used; None while some are missing.
        version: of the challenger, once it is in the registry.
    """

    key: str
    started_ms: int
    from_ms: int
    until_ms: int
    known_ms: int | None = None
    version: str | None = None

    @staticmethod
    def read(folder: Path, key: str, now_ms: int) -> RetrainPlan | None:
        """Read the plan of an interrupted run.

        Args:
            folder: of the run.
            key: of the current job.
            now_ms: Unix milliseconds.

        Returns:
            None if there is no plan, or it is damaged, too old or of a job with another key.
        """
        try:
            plan = RetrainPlan(**json.loads((folder / _PLAN).read_text(encoding="utf-8")))
            usable = plan.key == key and 0 <= now_ms - plan.started_ms < _MAX_AGE_MS
        except (OSError, ValueError, TypeError):
            return None
        return plan if usable else None

    def write(self, folder: Path) -> None:
        """Replace the plan in a folder atomically."""
        new = folder / f"{_PLAN}.new"
        new.write_text(json.dumps(asdict(self)), encoding="utf-8")
        new.replace(folder / _PLAN)


def discard_plan(folder: Path) -> None:
    """Delete the plan, so that the next run starts over."""
    (folder / _PLAN).unlink()


def delete_work(folder: Path) -> None:
    """Delete everything in the folder of a finished run except the lock."""
    for path in folder.iterdir():
        if path.name != _LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is created when missing.

    Raises:
        CandlecastError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a+") as lock:
        try:
            # The kernel releases this lock when the process ends, even if it is killed.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            process = lock.read(20).strip() or "unknown"
            msg = f"another retrain is running (process {process})"
            raise CandlecastError(msg) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
