"""Export a stacked LSTM as two ONNX graphs with the same weights.

An LSTM is causal: everything but a window's newest row can be run before that row exists.

    prefix   rows [B, T, F]             -> state [B, S]     the rows so far, from a state of zeros
    step     state [B, S], row [B, F]   -> y [B]            one more row and the dense layer

A state holds h and c of every layer side by side, h₁ c₁ h₂ c₂ …, so S is twice the sum of units.
Keras orders the gates input, forget, cell, output; ONNX input, output, forget, cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

Weights = NDArray[np.float32]
Shapes = Mapping[str, Sequence[str | int]]

_OPSET: Final = 17
_IR_VERSION: Final = 8
"""Old enough for every ONNX Runtime since 1.12."""


class LstmLayer(NamedTuple):
    """One LSTM layer as Keras keeps it, with u units and n inputs.

    Attributes:
        kernel: ``[n, 4u]``, gates in Keras order.
        recurrent: ``[u, 4u]``.
        bias: ``[4u]``.
    """

    kernel: Weights
    recurrent: Weights
    bias: Weights

    @property
    def units(self) -> int:
        """Number of units."""
        return int(self.recurrent.shape[0])


@dataclass(frozen=True, eq=False)
class LstmWeights:
    """A network of LSTM layers (tanh, sigmoid) and one dense output.

    Attributes:
        layers: first layer first.
        dense_kernel: ``[u, 1]`` on the last layer's h.
        dense_bias: ``[1]``.

    Raises:
        ValueError: no layer, or shapes that do not fit together.
    """

    layers: tuple[LstmLayer, ...]
    dense_kernel: Weights
    dense_bias: Weights

    def __post_init__(self) -> None:
        """Check every shape against the layer before."""
        inputs = self.n_features
        for number, layer in enumerate(self.layers, 1):
            units = layer.units
            wanted = ((inputs, 4 * units), (units, 4 * units), (4 * units,))
            shapes = tuple(array.shape for array in layer)
            if shapes != wanted:
                msg = f"LSTM layer {number} has weights of shapes {shapes}, expected {wanted}"
                raise ValueError(msg)
            inputs = units
        if self.dense_kernel.shape != (inputs, 1) or self.dense_bias.shape != (1,):
            msg = f"the dense layer must map {inputs} inputs to 1 output"
            raise ValueError(msg)

    @property
    def n_features(self) -> int:
        """Values in a row."""
        if not self.layers:
            msg = "a network needs at least one LSTM layer"
            raise ValueError(msg)
        return int(self.layers[0].kernel.shape[0])


class OnnxPair(NamedTuple):
    """The two graphs, serialized."""

    prefix: bytes
    step: bytes


def export_onnx(weights: LstmWeights) -> OnnxPair:
    """Build both graphs; equal weights give equal bytes."""
    return OnnxPair(_prefix(weights), _step(weights))


def _prefix(weights: LstmWeights) -> bytes:
    graph = _Graph()
    signal = graph.add("Transpose", ["rows"], perm=[1, 0, 2])
    states: list[str] = []
    for number, layer in enumerate(weights.layers):
        signal, h, c = graph.lstm(number, layer, signal)
        states += [h, c]
    graph.add("Concat", states, output="state", axis=1)
    size = 2 * sum(layer.units for layer in weights.layers)
    return graph.model("prefix", {"rows": ["B", "T", weights.n_features]}, {"state": ["B", size]})


def _step(weights: LstmWeights) -> bytes:
    graph = _Graph()
    widths = [layer.units for layer in weights.layers for _ in ("h", "c")]
    pieces = graph.split("state", widths)
    last = ""
    signal = graph.add("Unsqueeze", ["row", graph.constant("time", np.array([0]))])
    for number, layer in enumerate(weights.layers):
        initial = (pieces[2 * number], pieces[2 * number + 1])
        signal, last, _ = graph.lstm(number, layer, signal, initial)
    dense = graph.constant("dense_kernel", weights.dense_kernel)
    bias = graph.constant("dense_bias", weights.dense_bias)
    y = graph.add("Gemm", [last, dense, bias])
    graph.add("Squeeze", [y, graph.constant("output", np.array([1]))], output="y")
    inputs: Shapes = {"state": ["B", sum(widths)], "row": ["B", weights.n_features]}
    return graph.model("step", inputs, {"y": ["B"]})


class _Graph:
    """Nodes and constants under construction."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._axis = self.constant("direction", np.array([1]))
        self._first = self.constant("first", np.array([0]))

    def constant(self, name: str, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, op: str, inputs: list[str], output: str = "", **attributes: object) -> str:
        return self._node(op, inputs, [output or f"n{len(self._nodes)}"], attributes)[0]

    def split(self, source: str, widths: list[int]) -> list[str]:
        sizes = self.constant("widths", np.array(widths))
        pieces = [f"piece{i}" for i in range(len(widths))]
        return self._node("Split", [source, sizes], pieces, {"axis": 1})

    def lstm(
        self, number: int, layer: LstmLayer, rows: str, initial: tuple[str, str] | None = None
    ) -> tuple[str, str, str]:
        """One layer over ``rows [T, B, n]``: every h ``[T, B, u]``, the last h and c ``[B, u]``."""
        inputs = [
            rows,
            self.constant(f"kernel{number}", _gates(layer.kernel.T)[None]),
            self.constant(f"recurrent{number}", _gates(layer.recurrent.T)[None]),
            self.constant(f"bias{number}", np.append(_gates(layer.bias), 0 * layer.bias)[None]),
        ]
        if initial is not None:
            inputs += ["", *(self.add("Unsqueeze", [name, self._first]) for name in initial)]
        outputs = [f"lstm{number}_{name}" for name in ("all", "h", "c")]
        self._node("LSTM", inputs, outputs, {"hidden_size": layer.units})
        everything, h, c = outputs
        return (
            self.add("Squeeze", [everything, self._axis]),
            self.add("Squeeze", [h, self._first]),
            self.add("Squeeze", [c, self._first]),
        )

    def model(self, name: str, inputs: Shapes, outputs: Shapes) -> bytes:
        from onnx import TensorProto, checker, helper

        def declare(shapes: Shapes) -> list[onnx.ValueInfoProto]:
            return [
                helper.make_tensor_value_info(key, TensorProto.FLOAT, shape)
                for key, shape in shapes.items()
            ]

        graph = helper.make_graph(
            self._nodes, name, declare(inputs), declare(outputs), initializer=self._constants
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
        )
        checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))

    def _node(
        self, op: str, inputs: list[str], outputs: list[str], attributes: dict[str, Any]
    ) -> list[str]:
        from onnx import helper

        self._nodes.append(helper.make_node(op, inputs, outputs, **attributes))
        return outputs


def _gates(array: Weights) -> Weights:
    """Reorder the first axis from Keras's gates (i, f, c, o) to ONNX's (i, o, f, c)."""
    i, f, c, o = np.split(np.asarray(array, np.float32), 4)
    return np.concatenate([i, o, f, c])
