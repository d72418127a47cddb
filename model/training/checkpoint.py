"""Save the state of a training run after each epoch so that a killed run continues.

    folder/epoch-0007.keras    network and optimizer
    folder/epoch-0007.npz      the best weights so far
    folder/standing.json       which epoch counts, what the callbacks remember, the losses so far

`standing.json` is renamed into its place when the other two are on the disk: a kill at any point
leaves the epoch before or this one.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from model.files.atomic import sync_folder, write_synced

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

log = logging.getLogger("candlecast.training")

_STANDING: Final = "standing.json"
_REMEMBERED: Final = ("best", "best_epoch", "wait", "cooldown_counter")
"""What Keras's callbacks about the best epoch keep between epochs, where they have it."""


@dataclass(frozen=True)
class Standing:
    """A training that was cut.

    Attributes:
        epoch: epochs that are done.
        model: file of network and optimizer after them.
        best_weights: those of the best epoch, None before there was one.
        callbacks: what each callback remembers.
        losses: of every epoch, by name.
    """

    epoch: int
    model: Path
    best_weights: list[NDArray[np.float32]] | None
    callbacks: list[dict[str, float]]
    losses: dict[str, list[float]]


class TrainingCheckpoint:
    """The standing of one training in a folder of its own.

    Attributes:
        losses: of every epoch so far, those before a kill included, by name.

    Args:
        folder: created when missing.
        key: says which training it is; a standing of another one is not taken up.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._key = key
        self._watched: Sequence[keras.callbacks.Callback] = ()
        self.losses: dict[str, list[float]] = {}

    def load(self) -> Standing | None:
        """Where this training was cut; None when it has not begun, or nothing of it can be read."""
        path = self._folder / _STANDING
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            if raw["key"] != self._key:
                return None
            epoch = int(raw["epoch"])
            if raw["sha256"] != self._hashes(epoch):
                log.warning("%s: the files beside it have changed, training starts over", path)
                return None
            with np.load(self._file(epoch, "npz"), allow_pickle=False) as arrays:
                best = [arrays[f"arr_{number}"] for number in range(len(arrays.files))]
            return Standing(
                epoch, self._file(epoch, "keras"), best, raw["callbacks"], raw["losses"]
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            log.warning("%s cannot be read, training starts over: %s", path, error)
            return None

    def watch(
        self, callbacks: Sequence[keras.callbacks.Callback], standing: Standing | None
    ) -> None:
        """Keep what ``callbacks`` remember; to be called when training begins."""
        self._watched = callbacks
        self.losses = {} if standing is None else standing.losses
        if standing is None:
            return
        for callback, remembered in zip(callbacks, standing.callbacks, strict=True):
            for name, value in remembered.items():
                setattr(callback, name, value)
            if hasattr(callback, "best_weights"):
                callback.best_weights = standing.best_weights or None

    def save(self, epochs: int, model: keras.Model, losses: Mapping[str, float]) -> None:
        """Write down that ``epochs`` epochs are done, the last one with these losses."""
        for name, value in losses.items():
            self.losses.setdefault(name, []).append(float(value))
        self._folder.mkdir(parents=True, exist_ok=True)
        best = next((c.best_weights for c in self._watched if hasattr(c, "best_weights")), None)
        model.save(self._file(epochs, "keras"))
        np.savez(self._file(epochs, "npz"), *(best or ()))
        standing = {
            "key": self._key,
            "epoch": epochs,
            "sha256": self._hashes(epochs),
            "callbacks": [_remembered(callback) for callback in self._watched],
            "losses": self.losses,
        }
        fresh = self._folder / f"{_STANDING}.new"
        write_synced(fresh, json.dumps(standing).encode())
        fresh.replace(self._folder / _STANDING)
        sync_folder(self._folder)
        for path in self._folder.glob("epoch-*"):
            if path.stem != self._file(epochs, "keras").stem:
                path.unlink()

    def _hashes(self, epoch: int) -> list[str]:
        files = (self._file(epoch, suffix) for suffix in ("keras", "npz"))
        return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]

    def _file(self, epoch: int, suffix: str) -> Path:
        return self._folder / f"epoch-{epoch:04}.{suffix}"


def _remembered(callback: Any) -> dict[str, float]:  # noqa: ANN401 - any of Keras's callbacks
    found = {name: getattr(callback, name, None) for name in _REMEMBERED}
    return {name: value if isinstance(value, int) else float(value)
            for name, value in found.items() if value is not None}  # fmt: skip
