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
_NUMBER_KINDS: Final = "biuf"
"""NumPy's kinds of real numbers. Text and objects are refused, as by Keras."""

_CHECK_BATCH: Final = 1 << 22
"""Values that are checked at once; bounds the memory of the check."""

Shape = tuple[int | None, ...]


def check_sequences(name: str, value: ArrayLike | Windows, shape: Shape | None = None) -> Any:  # noqa: ANN401 - an array or `Windows`
    """Check windows and convert them to an array.

    Args:
        name: of the argument, for the message.
        value: anything that NumPy reads as numbers ``[n, timesteps, features]``.
        shape: required ``(timesteps, features)``; None allows any.

    Returns:
        float32 ``[n, timesteps, features]``; `Windows` unchanged.

    Raises:
        ValueError: another shape, or something else than finite numbers.
    """
    # `Windows` hold only finite values.
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


def check_targets(name: str, value: ArrayLike, n: int) -> NDArray[Any]:
    """Check targets and convert them to an array; the index of a pandas Series is ignored.

    Args:
        name: of the argument, for the message.
        value: anything that NumPy reads as numbers ``[n]`` or ``[n, 1]``.
        n: required number.

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


def check_samples(
    suffix: str, x: ArrayLike | Windows | None, y: ArrayLike | None, shape: Shape | None = None
) -> tuple[Any, NDArray[Any]]:
    """Check windows with their targets, at least one.

    Args:
        suffix: end of the arguments' names, e.g. ``train``.
        x: as in `check_sequences`.
        y: as in `check_targets`.
        shape: as in `check_sequences`.

    Raises:
        ValueError: as there, or one of the two is missing or empty.
    """
    for name, value, other in ((f"X_{suffix}", x, "y"), (f"y_{suffix}", y, "X")):
        if value is None:
            msg = f"{name} is missing: {other}_{suffix} needs it"
            raise ValueError(msg)
    windows = check_sequences(f"X_{suffix}", x, shape)  # type: ignore[arg-type]
    if not len(windows):
        msg = f"X_{suffix} holds no window: at least one is needed"
        raise ValueError(msg)
    return windows, check_targets(f"y_{suffix}", y, len(windows))  # type: ignore[arg-type]


def check_input_shape(value: Any) -> tuple[int | None, int]:  # noqa: ANN401 - from the caller
    """Check the shape of a window that a network is built for.

    Raises:
        ValueError: it is not two numbers above 0; the first may be None, which allows any.
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
def restored_on_error(model: keras.Model) -> Iterator[None]:
    """Restore the variables of a model when a call into it fails.

    The JAX backend deletes them while it computes. If a batch fails or is interrupted, it does not
    always restore them, and every later call fails.
    """
    variables = [*model.variables, *model.metrics_variables]
    if model.optimizer is not None:
        variables += model.optimizer.variables
    before = [np.array(variable) for variable in variables]
    try:
        yield
    except BaseException:
        if any(_is_deleted(variable) for variable in variables):
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)
        raise


def _is_deleted(variable: keras.Variable) -> bool:
    try:
        np.asarray(variable)
    # The error class depends on the backend.
    except Exception:  # noqa: BLE001
        return True
    return False


def _numbers(name: str, value: ArrayLike) -> NDArray[Any]:
    """Convert an array-like to an array of numbers."""
    try:
        array = np.asarray(value)
    # Tensors of each library raise other errors.
    except Exception as error:
        msg = f"{name} cannot be read as an array of numbers: {error}"
        raise ValueError(msg) from error
    if array.dtype.kind not in _NUMBER_KINDS:
        msg = f"{name} holds {array.dtype} and not numbers; convert it to float32"
        raise ValueError(msg)
    if np.ma.is_masked(value):
        msg = f"{name} has masked values; leave their windows out"
        raise ValueError(msg)
    return array


def _require_finite(name: str, array: NDArray[Any]) -> None:
    """Refuse values that are not finite in float32, with the position of the first."""
    step = max(1, _CHECK_BATCH // max(1, array[:1].size))
    for start in range(0, len(array), step):
        part = array[start : start + step]
        # The network computes in float32, where larger values become infinite.
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
