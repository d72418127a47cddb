"""Check the arguments of the model classes and convert them to arrays."""

from __future__ import annotations

from contextlib import contextmanager
from operator import index
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from model.features.sliding_windows import Windows

if TYPE_CHECKING:
    from collections.abc import Iterator

    import keras
    from numpy.typing import ArrayLike, NDArray

_SEQUENCES_NDIM: Final = 3
_NUMBERS: Final = "biuf"
"""NumPy's kinds of real numbers. Text and objects are refused, as Keras refuses them."""

_CHECKED_TOGETHER: Final = 1 << 22
"""Values that are checked at once, so that the check of a large array takes little memory."""

Shape = tuple[int | None, ...]


def sequences(name: str, value: ArrayLike | Windows, shape: Shape | None = None) -> Any:  # noqa: ANN401 - an array or `Windows`
    """Windows, in their order.

    Args:
        name: of the argument, for the message.
        value: anything that NumPy reads as numbers ``[n, timesteps, features]``.
        shape: ``(timesteps, features)`` that they must have; None stands for any.

    Returns:
        float32 ``[n, timesteps, features]``; `Windows` as they are.

    Raises:
        ValueError: another shape, or something else than finite numbers.
    """
    # Windows are cut where every value is finite.
    array = value if isinstance(value, Windows) else _numbers(name, value)
    if array.ndim != _SEQUENCES_NDIM or 0 in array.shape[1:]:
        msg = f"{name} must be (n, timesteps, features), not {array.shape}"
        raise ValueError(msg)
    for found, wanted in zip(array.shape[1:], shape or (), strict=False):
        if wanted not in (None, found):
            msg = (
                f"{name} is {array.shape}, but the model takes windows of (timesteps, features) "
                f"{shape}: use the lookback and the features that it was built with"
            )
            raise ValueError(msg)
    if isinstance(array, Windows):
        return array
    _require_finite(name, array)
    return array.astype(np.float32, copy=False)


def targets(name: str, value: ArrayLike, n: int) -> NDArray[Any]:
    """Targets, in their order; the labels of a pandas Series count for nothing.

    Args:
        name: of the argument, for the message.
        value: anything that NumPy reads as numbers ``[n]`` or ``[n, 1]``.
        n: how many there must be.

    Returns:
        Floats ``[n]``.

    Raises:
        ValueError: another shape, or something else than finite numbers.
    """
    array = _numbers(name, value)
    if array.shape not in ((n,), (n, 1)):
        msg = f"{name} must be ({n},), one target for each window, not {array.shape}"
        raise ValueError(msg)
    array = array.reshape(n)
    _require_finite(name, array)
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def pair(
    suffix: str, x: ArrayLike | Windows | None, y: ArrayLike | None, shape: Shape | None = None
) -> tuple[Any, NDArray[Any]]:
    """Windows and their targets, at least one.

    Args:
        suffix: what the arguments' names end with, e.g. ``train``.
        x: as in `sequences`.
        y: as in `targets`.
        shape: as in `sequences`.

    Raises:
        ValueError: as there; one of the two is missing, or there is no window.
    """
    for name, value, other in ((f"X_{suffix}", x, "y"), (f"y_{suffix}", y, "X")):
        if value is None:
            msg = f"{name} is missing: {other}_{suffix} is of no use without it"
            raise ValueError(msg)
    windows = sequences(f"X_{suffix}", x, shape)  # type: ignore[arg-type]
    if not len(windows):
        msg = f"X_{suffix} holds no window: at least one is needed"
        raise ValueError(msg)
    return windows, targets(f"y_{suffix}", y, len(windows))  # type: ignore[arg-type]


def input_shape(value: Any) -> tuple[int | None, int]:  # noqa: ANN401 - a caller's
    """The shape of a window that a network is built for.

    Raises:
        ValueError: it is not two numbers above 0; the first may be None, for any.
    """
    try:
        steps, features = value
        shape = None if steps is None else index(steps), index(features)
    except (TypeError, ValueError):
        shape = 0, 0
    if shape[0] == 0 or min(shape[0] or 1, shape[1]) < 1:
        msg = f"input_shape must be (timesteps, features), both above 0, not {value!r}"
        raise ValueError(msg)
    return shape


@contextmanager
def intact(model: keras.Model) -> Iterator[None]:
    """Give a model its variables back when a call into it fails.

    The JAX backend takes them away while it computes. Where a batch fails or is interrupted it does
    not always put them back, and every later call fails.
    """
    variables = [*model.variables, *model.metrics_variables]
    if model.optimizer is not None:
        variables += model.optimizer.variables
    before = [np.array(variable) for variable in variables]
    try:
        yield
    except BaseException:
        if any(_is_lost(variable) for variable in variables):
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)
        raise


def _is_lost(variable: keras.Variable) -> bool:
    try:
        np.asarray(variable)
    # What is raised depends on the backend.
    except Exception:  # noqa: BLE001
        return True
    return False


def _numbers(name: str, value: ArrayLike) -> NDArray[Any]:
    """The array behind an array-like."""
    try:
        array = np.asarray(value)
    # Each kind of tensor raises what it likes when it cannot be read.
    except Exception as error:
        msg = f"{name} cannot be read as an array of numbers: {error}"
        raise ValueError(msg) from error
    if array.dtype.kind not in _NUMBERS:
        msg = f"{name} holds {array.dtype} and not numbers; convert it to float32"
        raise ValueError(msg)
    if np.ma.is_masked(value):
        msg = f"{name} has masked values; leave their windows out"
        raise ValueError(msg)
    return array


def _require_finite(name: str, array: NDArray[Any]) -> None:
    """Refuse NaN, infinity and what is infinite in float32, and say where it is."""
    step = max(1, _CHECKED_TOGETHER // max(1, array[:1].size))
    for start in range(0, len(array), step):
        part = array[start : start + step]
        # The network computes in float32: what is larger than that would become infinite there.
        with np.errstate(over="ignore"):
            good = np.isfinite(part.astype(np.float32, copy=False))
        if not good.all():
            at = tuple(int(i) for i in np.argwhere(~good)[0])
            where = ", ".join(map(str, (start + at[0], *at[1:])))
            msg = (
                f"{name}[{where}] is {part[at]}: every value must be a finite float32 number; "
                "leave such windows out"
            )
            raise ValueError(msg)
