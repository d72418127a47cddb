"""Keep the last published target of each symbol in a memory-mapped file that survives a kill.

The history also has every forecast, but is written a tenth of a second later. A process that starts
in between must not publish a second, different forecast for the same candle. Pages of a mapped file
outlive the process and cost one store to memory; only a crash of the whole machine can lose them.
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
    from collections.abc import Sequence

    import numpy.typing as npt

log = logging.getLogger("candlecast.persistence")

_RECORD: Final = np.dtype([("name", "<u8"), ("target_ms", "<i8")])
"""One record of the file: the hash of a name, and the target of its last forecast."""

_CAPACITY_FACTOR: Final = 4
"""The file has room for this many times the symbols of the start, for those added later."""


class LastPublished:
    """The newest published target of each symbol, by slot; in memory only until `open`."""

    def __init__(self, names: Sequence[str]) -> None:
        """Start with no published forecast.

        Args:
            names: one for each symbol, such as its topic; their order is the slot.
        """
        self._records: npt.NDArray[np.void] = np.zeros(0, _RECORD)
        # A view of the records' second column.
        self._targets_ms: npt.NDArray[np.int64] = self._records["target_ms"]
        self.rename(names)

    def rename(self, names: Sequence[str]) -> None:
        """Replace the names; those already known keep their targets.

        Args:
            names: their order is the slot.
        """
        known = dict(self._records.tolist())
        hashes = [int.from_bytes(blake2b(n.encode(), digest_size=8).digest()) for n in names]
        if len(names) > len(self._records):
            # The file has no room for them: they stay in memory until the next start.
            self._records = np.zeros(_CAPACITY_FACTOR * len(names), _RECORD)
            self._targets_ms = self._records["target_ms"]
        self._records[:] = np.zeros((), _RECORD)
        self._records["name"][: len(names)] = hashes
        self._targets_ms[: len(names)] = [known.get(name, 0) for name in hashes]

    def open(self, path: Path) -> None:
        """Read the targets of the last process and keep them in ``path`` from now on.

        If the file cannot be used, forecasting continues with targets in memory. Blocks.
        """
        try:
            self._read(path)
            # Written in full: storing to a mapped page that the disk has no room for is fatal.
            new_file = path.with_suffix(".new")
            write_synced(new_file, self._records.tobytes())
            new_file.replace(path)
            with path.open("r+b") as file:
                mapped = mmap.mmap(file.fileno(), 0)
        except OSError as error:
            log.warning(
                "%s cannot be kept (%s); after a kill at the wrong moment, a forecast may be "
                "published again with other values",
                path,
                error.strerror,
            )
            return
        self._records = np.frombuffer(mapped, _RECORD)
        self._targets_ms = self._records["target_ms"]

    def _read(self, path: Path) -> None:
        """Take the targets of known names from a file; ignore an incomplete last record."""
        data = path.read_bytes() if path.exists() else b""
        complete = len(data) // _RECORD.itemsize * _RECORD.itemsize
        for name, target_ms in np.frombuffer(data[:complete], _RECORD).tolist():
            self._targets_ms[self._records["name"] == name] = target_ms

    def note(self, slots: Sequence[int], targets_ms: Sequence[int]) -> None:
        """Record that the forecasts for ``targets_ms`` (Unix milliseconds) are being published."""
        self._targets_ms[slots] = targets_ms

    def left(self, slots: Sequence[int], targets_ms: Sequence[int]) -> list[bool]:
        """Return for each slot whether its last published forecast was for ``targets_ms``."""
        return [
            last_ms == target_ms
            for last_ms, target_ms in zip(self._targets_ms[slots].tolist(), targets_ms, strict=True)
        ]

    def newest_ms(self, step_ms: int, now_ms: int) -> int:
        """Return when the candle of the newest forecast closed, Unix milliseconds.

        Args:
            step_ms: length of a candle.
            now_ms: returned if nothing was published yet, or the file holds a later time.
        """
        newest_ms = int(self._targets_ms.max(initial=0)) - step_ms
        return min(newest_ms, now_ms) if newest_ms > 0 else now_ms
