"""Store the losses of a challenger and the champion on live candles, and sum them.

    folder/trial.json    which challenger against which champion, on which symbols
    folder/losses        one record for each forecast that both made, once its outcome is known

Only whole records count: a kill during an append loses that record.
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
"""Name of the folder within the state folder."""

_TRIAL_FILE: Final = "trial.json"
_LOSSES_FILE: Final = "losses"


class Trial(NamedTuple):
    """The models and symbols of a trial.

    Attributes:
        challenger: its version.
        champion: the version it is compared with.
        symbols: ccxt symbols; their position is their number in the losses.
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
        losses: the records so far.
    """

    def __init__(self, losses: Losses) -> None:
        assert losses.champion is not None  # noqa: S101 - a trial always has one
        self._open_ms = set(losses.open_ms.tolist())
        self.last_value = float(losses.last_value.sum())
        self.challenger = float(losses.challenger.sum())
        self.champion = float(losses.champion.sum())

    @property
    def candles(self) -> int:
        """Number of different candles."""
        return len(self._open_ms)

    def add_losses(self, records: Records) -> None:
        """Add the losses of further records."""
        self._open_ms.update(records["open_ms"].tolist())
        self.last_value += float(records["last_value"].sum())
        self.challenger += float(records["challenger"].sum())
        self.champion += float(records["champion"].sum())


class TrialFiles:
    """The files of the current trial. Every method blocks.

    Args:
        folder: holds nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def current(self) -> Trial | None:
        """The current trial; None if there is none or it cannot be read."""
        try:
            raw = json.loads((self._folder / _TRIAL_FILE).read_text(encoding="utf-8"))
            return Trial(str(raw["challenger"]), str(raw["champion"]), tuple(raw["symbols"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def begin(self, trial: Trial) -> None:
        """Start a trial and delete the files of the one before."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self.end()
        new = self._folder / f".{_TRIAL_FILE}"
        write_synced(new, f"{json.dumps(trial._asdict())}\n".encode())
        new.rename(self._folder / _TRIAL_FILE)

    def end(self) -> None:
        """Delete the files of the trial."""
        for name in (_TRIAL_FILE, _LOSSES_FILE):
            (self._folder / name).unlink(missing_ok=True)

    def append(self, records: Records) -> None:
        """Append records of the type `RECORD`."""
        path = self._folder / _LOSSES_FILE
        with path.open("ab") as file:
            incomplete = file.tell() % RECORD.itemsize
            file.truncate(file.tell() - incomplete)
            file.write(records.tobytes())

    def losses(self) -> Losses:
        """Read all records."""
        try:
            data = (self._folder / _LOSSES_FILE).read_bytes()
        except FileNotFoundError:
            data = b""
        whole = len(data) // RECORD.itemsize * RECORD.itemsize
        records = np.frombuffer(data[:whole], RECORD)
        return Losses(*(np.ascontiguousarray(records[name]) for name in Losses._fields))
