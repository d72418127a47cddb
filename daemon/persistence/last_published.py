"""Which forecast of each symbol left last, noted where a kill of the process does not reach.

The history has every forecast, but learns of it a tenth of a second later. A process that starts
in between must not publish the same forecast in other words. Pages of a mapped file outlive the
process at the price of a store to memory; only the end of the whole machine can lose them.
"""

from __future__ import annotations

import logging
import mmap
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from model.files.atomic import write_synced

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

log = logging.getLogger("candlecast.persistence")

_RECORD: Final = np.dtype([("name", "<u8"), ("target_ms", "<i8")])

_ROOM: Final = 4
"""Times as many symbols as there are at the start can be added before the next one."""


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest())


class LastPublished:
    """The newest target of each symbol, by slot; in memory alone until `open`."""

    def __init__(self, names: Sequence[str]) -> None:
        """Start without any mark.

        Args:
            names: what is forecast, e.g. topics; their order is the slot.
        """
        self._records: npt.NDArray[np.void] = np.zeros(0, _RECORD)
        self._targets_ms: npt.NDArray[np.int64] = self._records["target_ms"]
        self.rename(names)

    def rename(self, names: Sequence[str]) -> None:
        """Keep marks for these names from now on; those known before keep theirs.

        Args:
            names: their order is the slot.
        """
        known = dict(self._records.tolist())
        hashes = [_hash(name) for name in names]
        if len(names) > len(self._records):
            # The file has no room for them: kept in memory until the next start.
            self._records = np.zeros(_ROOM * len(names), _RECORD)
            self._targets_ms = self._records["target_ms"]
        self._records[:] = np.zeros((), _RECORD)
        self._records["name"][: len(names)] = hashes
        self._targets_ms[: len(names)] = [known.get(name, 0) for name in hashes]

    def open(self, path: Path) -> None:
        """Take up the marks of the last process and keep them at ``path`` from now on.

        Where that cannot be done, forecasting goes on with marks in memory. Blocks.
        """
        try:
            self._take_up(path)
            # Written in full: storing to a mapped page that the disk has no room for is fatal.
            fresh = path.with_suffix(".new")
            write_synced(fresh, self._records.tobytes())
            fresh.replace(path)
            with path.open("r+b") as file:
                mapped = mmap.mmap(file.fileno(), 0)
        except OSError as error:
            log.warning(
                "%s cannot be kept (%s); killed at the wrong moment, a forecast may be "
                "published again in other words",
                path,
                error.strerror,
            )
            return
        self._records = np.frombuffer(mapped, _RECORD)
        self._targets_ms = self._records["target_ms"]

    def _take_up(self, path: Path) -> None:
        data = path.read_bytes() if path.exists() else b""
        whole = len(data) // _RECORD.itemsize * _RECORD.itemsize
        for name, target_ms in np.frombuffer(data[:whole], _RECORD).tolist():
            self._targets_ms[self._records["name"] == name] = target_ms

    def learn(self, targets_ms: Mapping[str, int]) -> None:
        """Note targets that the history knows of, by name, where they are newer."""
        known = {_hash(name): target_ms for name, target_ms in targets_ms.items()}
        learnt = [known.get(name, 0) for name in self._records["name"].tolist()]
        np.maximum(self._targets_ms, learnt, out=self._targets_ms)

    def note(self, slots: Sequence[int], targets_ms: Sequence[int]) -> None:
        """Note that the forecasts for ``targets_ms`` (Unix milliseconds) are about to leave."""
        self._targets_ms[slots] = targets_ms

    def was_published(self, slots: Sequence[int], targets_ms: Sequence[int]) -> list[bool]:
        """Whether the forecast of each slot for ``targets_ms`` was published, by any process.

        A forecast for an earlier target has expired, so the newest one of each symbol decides.
        """
        return [
            newest == ms
            for newest, ms in zip(self._targets_ms[slots].tolist(), targets_ms, strict=True)
        ]

    def newest_ms(self, step_ms: int, now_ms: int) -> int:
        """When the newest forecast left, as its candle closed; ``now_ms`` where none ever has."""
        newest_ms = int(self._targets_ms.max(initial=0)) - step_ms
        return min(newest_ms, now_ms) if newest_ms > 0 else now_ms
