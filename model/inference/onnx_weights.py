"""Check the layers and weights of ONNX graphs without the onnx package.

ONNX Runtime does not hand out weights, and its LSTM turns weights that are NaN into numbers that
look like any other output. So the files are read here, in the encoding of Protocol Buffers: each
field is a key (number and kind), then its value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NoReturn

import numpy as np

from model.core.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.inference.onnx_export import OnnxPair

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_LONGEST_VARINT: Final = 10

# Fields of ONNX's messages, by their numbers in onnx.proto.
_MODEL_GRAPH: Final = 7
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_OP, _NODE_ATTRIBUTE = 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TENSOR = 1, 3, 5
_TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_RAW, _TENSOR_DOUBLES = 2, 4, 9, 10
_FLOATS: Final = {1: "<f4", 10: "<f2", 11: "<f8"}
"""NumPy's names of the types of tensors that can hold NaN."""

_Value = int | memoryview


def check_graphs(pair: OnnxPair, units: Sequence[int]) -> None:
    """Require that both graphs are of these LSTM layers, and that every weight is finite.

    Args:
        pair: the graphs.
        units: of each layer, as the manifest says.

    Raises:
        BundleError: they are not, or are no graphs.
    """
    for name, graph in (("prefix.onnx", pair.prefix), ("step.onnx", pair.step)):
        try:
            found = _layers(memoryview(graph))
        except (IndexError, struct.error, ValueError, UnicodeDecodeError) as error:
            msg = f"{name} is no ONNX graph: {error}"
            raise BundleError(msg) from None
        if found != list(units):
            msg = f"manifest.json says LSTM layers of {list(units)} units, {name} has {found}"
            raise BundleError(msg)


def _layers(model: memoryview) -> list[int]:
    """Units of each LSTM layer, in order.

    Raises:
        BundleError: a weight is not finite.
        ValueError: it is no message of this kind.
    """
    units = []
    for graph in _all(model, _MODEL_GRAPH):
        for number, value in _fields(graph):
            if number == _GRAPH_INITIALIZER:
                _require_finite(_message(value))
            elif number == _GRAPH_NODE:
                units += _units(_message(value))
    return units


def _units(node: memoryview) -> list[int]:
    """The units of a node, if it is an LSTM layer; its constants are checked."""
    attributes = list(_all(node, _NODE_ATTRIBUTE))
    for attribute in attributes:
        for tensor in _all(attribute, _ATTRIBUTE_TENSOR):
            _require_finite(tensor)
    if not any(bytes(op) == b"LSTM" for op in _all(node, _NODE_OP)):
        return []
    return [
        value
        for attribute in attributes
        if any(bytes(name) == b"hidden_size" for name in _all(attribute, _ATTRIBUTE_NAME))
        for number, value in _fields(attribute)
        if number == _ATTRIBUTE_INT and isinstance(value, int)
    ]


def _require_finite(tensor: memoryview) -> None:
    fields = list(_fields(tensor))
    kind = next((value for number, value in fields if number == _TENSOR_TYPE), 0)
    formats = {_TENSOR_FLOATS: "<f4", _TENSOR_DOUBLES: "<f8"}
    if isinstance(kind, int) and kind in _FLOATS:
        formats[_TENSOR_RAW] = _FLOATS[kind]
    for number, value in fields:
        if number not in formats:
            continue
        values = np.frombuffer(_message(value), formats[number])
        if not np.isfinite(values).all():
            msg = "the network's weights are not all finite: training has gone wrong"
            raise BundleError(msg)


def _all(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """The values of a field that holds text or a message."""
    for number, value in _fields(message):
        if number == wanted:
            yield _message(value)


def _message(value: _Value) -> memoryview:
    if not isinstance(value, memoryview):
        _refuse("a field is of another kind")
    return value


def _fields(message: memoryview) -> Iterator[tuple[int, _Value]]:
    """Number and value of each field."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FOUR_BYTES, _EIGHT_BYTES):
            size = 4 if kind == _FOUR_BYTES else 8
        else:
            _refuse(f"it has a field of kind {kind}")
        if at + size > len(message):
            _refuse("it is cut off")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """An integer in seven bits a byte, and where it ends."""
    value = 0
    for shift in range(_LONGEST_VARINT):
        if at >= len(message):
            _refuse("it is cut off")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:  # noqa: PLR2004 - the highest bit says that more follow
            return value, at
    msg = "it holds a number that is too long"
    raise ValueError(msg)


def _refuse(why: str) -> NoReturn:
    raise ValueError(why)
