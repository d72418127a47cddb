"""A challenger beside the champion on live candles: the losses of both, kept over restarts.

    folder/trial.json    which challenger against which champion, on which symbols
    folder/losses        a record for each forecast that both made and that has been answered

Whole records only count: a kill in the middle of an append costs that one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from model.files.atomic import write_synced
from model.stats.promotion_gate import Losses

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Records = NDArray[np.void]

RECORD: Final = np.dtype(
    [
        ("symbol", "<i8"),
        ("open_ms", "<i8"),
        ("last_value", "<f8"),
        ("challenger", "<f8"),
        ("champion", "<f8"),
    ]
)
"""Fields of `model.stats.promotion_gate.Losses`."""

FOLDER: Final = "trial"
"""Its place in the state folder."""

_TRIAL: Final = "trial.json"
_LOSSES: Final = "losses"


class Trial(NamedTuple):
    """Who is tried.

    Attributes:
        challenger: its version.
        champion: the version it is compared with.
        symbols: ccxt symbols; their place is their number in the losses.
    """

    challenger: str
    champion: str
    symbols: tuple[str, ...]


class Tally:
    """Sums of a trial's losses.

    Attributes:
        last_value: sum of the last-value forecast's losses.
        challenger: of the challenger's.
        champion: of the champion's.

    Args:
        losses: what has been gathered before.
    """

    def __init__(self, losses: Losses) -> None:
        assert losses.champion is not None  # noqa: S101 - a trial has one
        self._open_ms = set(losses.open_ms.tolist())
        self.last_value = float(losses.last_value.sum())
        self.challenger = float(losses.challenger.sum())
        self.champion = float(losses.champion.sum())

    @property
    def candles(self) -> int:
        """Different candles."""
        return len(self._open_ms)

    def add(self, records: Records) -> None:
        """Count further losses."""
        self._open_ms.update(records["open_ms"].tolist())
        self.last_value += float(records["last_value"].sum())
        self.challenger += float(records["challenger"].sum())
        self.champion += float(records["champion"].sum())


class TrialFiles:
    """The trial in a folder, at most one at a time. Every method blocks.

    Args:
        folder: its own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def current(self) -> Trial | None:
        """The trial under way, None without one that can be read."""
        try:
            raw = json.loads((self._folder / _TRIAL).read_text(encoding="utf-8"))
            return Trial(str(raw["challenger"]), str(raw["champion"]), tuple(raw["symbols"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def begin(self, trial: Trial) -> None:
        """Start a trial; what was gathered before is gone."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self.end()
        draft = self._folder / f".{_TRIAL}"
        write_synced(draft, f"{json.dumps(trial._asdict())}\n".encode())
        draft.rename(self._folder / _TRIAL)

    def end(self) -> None:
        """Forget the trial."""
        for name in (_TRIAL, _LOSSES):
            (self._folder / name).unlink(missing_ok=True)

    def append(self, records: Records) -> None:
        """Add records of `RECORD`."""
        path = self._folder / _LOSSES
        with path.open("ab") as file:
            torn = file.tell() % RECORD.itemsize
            file.truncate(file.tell() - torn)
            file.write(records.tobytes())

    def losses(self) -> Losses:
        """What has been gathered."""
        try:
            data = (self._folder / _LOSSES).read_bytes()
        except FileNotFoundError:
            data = b""
        whole = len(data) // RECORD.itemsize * RECORD.itemsize
        records = np.frombuffer(data[:whole], RECORD)
        return Losses(*(np.ascontiguousarray(records[name]) for name in Losses._fields))
