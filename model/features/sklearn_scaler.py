"""Convert between symbol scalers and scikit-learn's `MinMaxScaler`, as pickle or JSON.

A pickle is a program that names what it calls. The reference stores its scaler as one, so such
files have to be read; here every name outside a short list is refused, the listed names stand for
inert functions of this module, and what comes out is checked and copied, number by number, into a
scaler of our own.
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
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from sklearn.preprocessing import MinMaxScaler

MAX_BYTES: Final = 1 << 20
"""A scaler of a hundred features is under 10 kB; more is something else."""

_ONLY: Final = "symbol"
"""The one key of a `scaler.json` that is not part of a bundle."""


def save_pickle(scaler: MinMaxScaler, path: Path) -> None:
    """Write a fitted scaler as the reference does."""
    path.write_bytes(pickle.dumps(scaler))


def load_pickle(path: Path) -> MinMaxScaler:
    """Read what `save_pickle` or the reference wrote.

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
    # A hostile or cut-off file fails in whatever way its contents lead to.
    except Exception as error:  # noqa: BLE001
        msg = f"{path} is not a pickled, fitted MinMaxScaler: {type(error).__name__}: {error}"
        raise BundleError(msg) from None


def save_json(scaler: MinMaxScaler, path: Path) -> None:
    """Write a scaler with names and target in the form of a bundle's `scaler.json`."""
    ranges = symbol_scaler(scaler)
    names = [str(name) for name in scaler.feature_names_in_]
    scalers = ScalerSet(names, scaler.target_name_, {_ONLY: ranges})
    path.write_text(scalers.to_json() + "\n", encoding="utf-8")


def load_json(path: Path) -> MinMaxScaler:
    """Read a `scaler.json` of one symbol.

    Raises:
        FileNotFoundError: there is no such file.
        BundleError: it is anything else.
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
    """The scaler of the one symbol of a set, with its names and its target."""
    (ranges,) = scalers.by_symbol.values()
    scaler = new_scaler(ranges.feature_min, ranges.feature_max)
    scaler.feature_names_in_ = np.array(scalers.features, dtype=object)
    scaler.target_name_ = scalers.target
    scaler.target_offset_, scaler.target_scale_ = ranges.target_offset, ranges.target_scale
    return scaler


def symbol_scaler(scaler: MinMaxScaler) -> SymbolScaler:
    """The numbers that serving needs of a scaler that carries its target."""
    return SymbolScaler(
        scaler.data_min_, scaler.data_max_, scaler.target_offset_, scaler.target_scale_
    )


def new_scaler(low: NDArray[np.float64], high: NDArray[np.float64]) -> MinMaxScaler:
    """A scaler fitted to the ranges ``low … high``."""
    from sklearn.preprocessing import MinMaxScaler

    return MinMaxScaler().fit(np.stack([low, high]))


def _refuse(why: str) -> NoReturn:
    raise pickle.UnpicklingError(why)


class _State:
    """Stands in for `MinMaxScaler` while unpickling: keeps attributes and can do nothing."""

    values: Mapping[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.values = dict(state)


class _ArrayType:
    """Stands in for the type `numpy.ndarray`, which could otherwise be called for any size."""


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
"""All that pickles of protocol 3 to 5 of a fitted scaler name, in numpy 1 and 2."""


class _ScalerUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in _ALLOWED:
            _refuse(f"it names {module}.{name}")
        return _ALLOWED[module, name]


def _refuse_bombs(data: bytes) -> None:
    """Refuse to number a thing by more than there can be: room would be made for all before it."""
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
    """An array of the state; lists within lists would grow without bound when they are copied."""
    found: object = state[name]
    if not isinstance(found, np.ndarray):
        _refuse(f"{name} is no array")
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
        names = _array(state, "feature_names_in_").astype(object)
        if not all(isinstance(name, str) for name in names.flat):
            _refuse("its features are named by something else than text")
        if names.shape != low.shape:
            _refuse("it names another number of features")
        scaler.feature_names_in_ = names
    if "target_name_" in state:
        if not isinstance(state["target_name_"], str):
            _refuse("its target is named by something else than text")
        scaler.target_name_ = state["target_name_"]
        scaler.target_offset_ = float(state["target_offset_"])
        scaler.target_scale_ = float(state["target_scale_"])
        symbol_scaler(scaler)
    return scaler
