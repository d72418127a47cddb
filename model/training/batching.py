"""Choose how samples are grouped into batches of training and validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from model.features.sliding_windows import Batches, Windows
from model.training.stretches import Stretches

if TYPE_CHECKING:
    from numpy.typing import NDArray

PREDICT_BATCH_SIZE: Final = 256
"""Windows per run: more are no faster and delay `pause`."""

_WINDOWS_PER_STRETCH: Final = 4
"""Windows of `batch_size` that one stretch replaces in a gradient step."""

_MIN_STEPS: Final = 200
_MAX_STEPS: Final = 4_000
"""Gradient steps of an epoch over stretches, where one pass takes fewer or more."""

_MAX_PASSES: Final = 4
"""Passes over few windows in one epoch, which do not reach `_MIN_STEPS`."""

STRETCH_RATE: Final = 3.0
"""Learning rate over stretches ÷ configured rate: there are fewer steps, less noisy ones."""


def training_batches(
    x: NDArray[Any] | Windows, y: NDArray[Any], size: int, *, stretched: bool
) -> Batches | Stretches:
    """Group samples for training.

    Args:
        x: windows ``[n, timesteps, features]``.
        y: targets ``[n]``.
        size: windows of a gradient step, or what replaces them.
        stretched: whether `Windows` are trained over stretches.
    """
    if stretched and isinstance(x, Windows):
        stretches = Stretches(x, y, max(1, size // _WINDOWS_PER_STRETCH))
        one_pass = len(stretches)
        longest = max(one_pass, min(_MAX_PASSES * one_pass, _MIN_STEPS))
        stretches.set_epoch(min(longest, _MAX_STEPS))
        return stretches
    return Batches(x, y, size)


def validation_batches(
    x: NDArray[Any] | Windows, y: NDArray[Any], *, stretched: bool
) -> Batches | Stretches:
    """Group samples for validation, in their order; arguments as in `training_batches`."""
    if not stretched:
        return Batches(x, y, PREDICT_BATCH_SIZE)
    if isinstance(x, Windows):
        return Stretches(x, y, PREDICT_BATCH_SIZE // _WINDOWS_PER_STRETCH)
    # The network forecasts after each row from the last of the first window: here there is one.
    return Batches(x, y[:, None, None], PREDICT_BATCH_SIZE)
