"""Save the state of a training run after each epoch so that a killed run continues.

    folder/epoch-0007.keras    network and optimizer
    folder/epoch-0007.npz      the best weights so far
    folder/standing.json       the valid epoch, the state of the callbacks, the losses so far

`standing.json` is renamed into place after the other two are on the disk: a kill at any point
leaves the previous epoch or this one.

Written by hand: Keras's `BackupAndRestore` keeps neither the state of the other callbacks nor the
best weights, and does not sync its files.
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

_STATE_FILE: Final = "standing.json"
_CALLBACK_STATE: Final = ("best", "best_epoch", "wait", "cooldown_counter")
"""Attributes that Keras's callbacks keep between epochs; each has some of them."""


@dataclass(frozen=True)
class TrainingState:
    """State of an interrupted training run.

    Attributes:
        epoch: completed epochs.
        model: file of network and optimizer after them.
        best_weights: weights of the best epoch; None before there is one.
        callbacks: state of each callback.
        losses: of every epoch, by name.
    """

    epoch: int
    model: Path
    best_weights: list[NDArray[np.float32]] | None
    callbacks: list[dict[str, float]]
    losses: dict[str, list[float]]


class TrainingCheckpoint:
    """The saved state of one training run in its own folder.

    Attributes:
        losses: of every epoch so far, including those before a kill, by name.

    Args:
        folder: created when missing.
        key: identifies the training run; the state of another one is ignored.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._key = key
        self._tracked: Sequence[keras.callbacks.Callback] = ()
        self.losses: dict[str, list[float]] = {}

    def load(self) -> TrainingState | None:
        """Load the state of this training run; None if there is none or it cannot be read."""
        path = self._folder / _STATE_FILE
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
            return TrainingState(
                epoch, self._file(epoch, "keras"), best, raw["callbacks"], raw["losses"]
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            log.warning("%s cannot be read, training starts over: %s", path, error)
            return None

    def track(
        self, callbacks: Sequence[keras.callbacks.Callback], state: TrainingState | None
    ) -> None:
        """Restore the state of ``callbacks`` and save it from now on; call when training begins."""
        self._tracked = callbacks
        self.losses = {} if state is None else state.losses
        if state is None:
            return
        for callback, values in zip(callbacks, state.callbacks, strict=True):
            for name, value in values.items():
                setattr(callback, name, value)
            if hasattr(callback, "best_weights"):
                callback.best_weights = state.best_weights or None

    def save(self, epochs: int, model: keras.Model, losses: Mapping[str, float]) -> None:
        """Save the state after ``epochs`` epochs, the last one with these losses."""
        for name, value in losses.items():
            self.losses.setdefault(name, []).append(float(value))
        self._folder.mkdir(parents=True, exist_ok=True)
        best = next((c.best_weights for c in self._tracked if hasattr(c, "best_weights")), None)
        model.save(self._file(epochs, "keras"))
        np.savez(self._file(epochs, "npz"), *(best or ()))
        state = {
            "key": self._key,
            "epoch": epochs,
            "sha256": self._hashes(epochs),
            "callbacks": [_callback_state(callback) for callback in self._tracked],
            "losses": self.losses,
        }
        new = self._folder / f"{_STATE_FILE}.new"
        write_synced(new, json.dumps(state).encode())
        new.replace(self._folder / _STATE_FILE)
        sync_folder(self._folder)
        for path in self._folder.glob("epoch-*"):
            if path.stem != self._file(epochs, "keras").stem:
                path.unlink()

    def _hashes(self, epoch: int) -> list[str]:
        files = (self._file(epoch, suffix) for suffix in ("keras", "npz"))
        return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]

    def _file(self, epoch: int, suffix: str) -> Path:
        return self._folder / f"epoch-{epoch:04}.{suffix}"


def _callback_state(callback: Any) -> dict[str, float]:  # noqa: ANN401 - any of Keras's callbacks
    found = {name: getattr(callback, name, None) for name in _CALLBACK_STATE}
    return {name: value if isinstance(value, int) else float(value)
            for name, value in found.items() if value is not None}  # fmt: skip
