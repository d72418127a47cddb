"""Convert between symbol scalers and scikit-learn's `MinMaxScaler`, as pickle or JSON.

The reference stores its scaler as a pickle, and a pickle can call any function that it names. Here
every name outside a short list is refused, the listed names stand for harmless functions of this
module, and the result is checked and copied into a new scaler.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from model.core.errors import BundleError
from model.features.scaler import ScalerSet, SymbolScaler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from sklearn.preprocessing import MinMaxScaler

MAX_BYTES: Final = 1 << 20
"""A scaler of a hundred features takes less than 10 kB."""

_SYMBOL_KEY: Final = "symbol"
"""Key of the only scaler in a `scaler.json` outside a bundle."""


def save_pickle(scaler: MinMaxScaler, path: Path) -> None:
    """Write a fitted scaler as a pickle, like the reference."""
    path.write_bytes(pickle.dumps(scaler))


def load_pickle(path: Path) -> MinMaxScaler:
    """Read a scaler that `save_pickle` or the reference wrote.

    Raises:
        FileNotFoundError: there is no such file.
        BundleError: the file holds anything but a fitted `MinMaxScaler` to the range 0 … 1.
    """
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    try:
        if len(data) > MAX_BYTES:
            _refuse(f"it is larger than {MAX_BYTES} bytes")
        return _rebuild(_state_of_pickle(data))
    # A hostile or truncated file can raise any error.
    except Exception as error:  # noqa: BLE001
        msg = f"{path} is not a pickled, fitted MinMaxScaler: {type(error).__name__}: {error}"
        raise BundleError(msg) from None


def save_json(scaler: MinMaxScaler, path: Path) -> None:
    """Write a scaler with names and target in the form of a bundle's `scaler.json`."""
    ranges = symbol_scaler(scaler)
    scalers = ScalerSet(features_in(scaler) or (), scaler.target_name_, {_SYMBOL_KEY: ranges})
    path.write_text(scalers.to_json() + "\n", encoding="utf-8")


def load_json(path: Path) -> MinMaxScaler:
    """Read a `scaler.json` of one symbol.

    Raises:
        FileNotFoundError: there is no such file.
        BundleError: the file has another form.
    """
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        msg = f"{path} is larger than {MAX_BYTES} bytes"
        raise BundleError(msg)
    scalers = ScalerSet.from_json(data)
    if len(scalers.by_symbol) != 1:
        msg = f"{path} holds {len(scalers.by_symbol)} symbols; a preprocessor serves one"
        raise BundleError(msg)
    return scaler_of(scalers)


def scaler_of(scalers: ScalerSet) -> MinMaxScaler:
    """Build the scaler of the only symbol of a set, with names and target."""
    (ranges,) = scalers.by_symbol.values()
    scaler = new_scaler(ranges.feature_min, ranges.feature_max)
    describe(scaler, scalers.features, scalers.target, (ranges.target_offset, ranges.target_scale))
    return scaler


def describe(
    scaler: MinMaxScaler, features: Sequence[str], target: str, scaling: tuple[float, float]
) -> None:
    """Set the attributes that a scaler has beyond scikit-learn's: names and the target's scaling.

    Args:
        scaler: a fitted one.
        features: names in the order of its columns.
        target: what the network forecasts.
        scaling: offset and scale of the target.
    """
    scaler.feature_names_in_ = np.array(features, dtype=object)
    scaler.target_name_ = target
    scaler.target_offset_, scaler.target_scale_ = map(float, scaling)


def has_target(scaler: MinMaxScaler) -> bool:
    """Tell whether `describe` was called; the reference's own scalers have no target."""
    return hasattr(scaler, "target_name_")


def features_in(scaler: MinMaxScaler) -> tuple[str, ...] | None:
    """Names of the features of a scaler; None if it has none."""
    names = getattr(scaler, "feature_names_in_", None)
    return None if names is None else tuple(map(str, names))


def symbol_scaler(scaler: MinMaxScaler) -> SymbolScaler:
    """Extract the ranges that serving needs from a scaler with a target."""
    return SymbolScaler(
        scaler.data_min_, scaler.data_max_, scaler.target_offset_, scaler.target_scale_
    )


def new_scaler(low: NDArray[np.float64], high: NDArray[np.float64]) -> MinMaxScaler:
    """Build a scaler fitted to the ranges ``low … high``."""
    from sklearn.preprocessing import MinMaxScaler

    return MinMaxScaler().fit(np.stack([low, high]))


def _refuse(why: str) -> NoReturn:
    raise pickle.UnpicklingError(why)


class _State:
    """Replaces `MinMaxScaler` while unpickling: keeps the attributes and has no methods."""

    values: Mapping[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.values = dict(state)


class _ArrayType:
    """Replaces the type `numpy.ndarray`, which could be called with any size."""


def _reconstruct(*_: object) -> np.ndarray[Any, Any]:
    return np.empty(0)


def _frombuffer(
    buffer: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], _order: str
) -> np.ndarray[Any, Any]:
    return np.frombuffer(bytes(buffer), dtype).reshape(shape)


def _scalar(dtype: np.dtype[Any], raw: bytes) -> object:
    return np.frombuffer(bytes(raw), dtype, 1)[0]


_ALLOWED: Final[dict[tuple[str, str], Callable[..., Any]]] = {
    ("sklearn.preprocessing._data", "MinMaxScaler"): _State,
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): np.dtype,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
}
"""All names in pickles (protocol 3 to 5) of a fitted scaler, with numpy 1 and 2."""


class _ScalerUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in _ALLOWED:
            _refuse(f"it names {module}.{name}")
        return _ALLOWED[module, name]


def _refuse_bombs(data: bytes) -> None:
    """Refuse memo numbers above the file size: the unpickler would allocate a table for them."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name.endswith("PUT") and not 0 <= int(argument or 0) < len(data):
            _refuse(f"it has no {argument} parts")


def _state_of_pickle(data: bytes) -> Mapping[str, Any]:
    _refuse_bombs(data)
    state: object = _ScalerUnpickler(io.BytesIO(data)).load()
    if not isinstance(state, _State):
        _refuse("it holds something else")
    return state.values


def _array(state: Mapping[str, Any], name: str) -> np.ndarray[Any, Any]:
    """Return an array of the state; nested lists could grow without bound when copied."""
    found: object = state[name]
    if not isinstance(found, np.ndarray):
        _refuse(f"{name} is not an array")
    return found


def _rebuild(state: Mapping[str, Any]) -> MinMaxScaler:
    low, high = (_array(state, name).astype(np.float64) for name in ("data_min_", "data_max_"))
    if low.ndim != 1 or low.shape != high.shape or not low.size:
        _refuse("its ranges differ in length")
    if not np.isfinite([low, high]).all() or (low > high).any():
        _refuse("it holds numbers that no fit gives")
    if tuple(state["feature_range"]) != (0, 1) or state.get("clip", False):
        _refuse("it scales to another range than 0 … 1, or clips")
    scaler = new_scaler(low, high)
    if "feature_names_in_" in state:
        scaler.feature_names_in_ = names = _array(state, "feature_names_in_").astype(object)
        if not all(isinstance(name, str) for name in names.flat):
            _refuse("its features are named by something else than text")
        if names.shape != low.shape:
            _refuse("it names another number of features")
    if "target_name_" in state:
        target = state["target_name_"]
        if not isinstance(target, str):
            _refuse("its target is named by something else than text")
        scaling = float(state["target_offset_"]), float(state["target_scale_"])
        describe(scaler, scaler.feature_names_in_, target, scaling)
        symbol_scaler(scaler)
    return scaler
