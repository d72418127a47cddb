"""Export the whole window as one ONNX graph, as a converter would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.inference.onnx_export import LstmWeights


def export_window(weights: LstmWeights) -> bytes:
    """A graph ``rows [B, T, F] -> y [B]``."""
    from onnx import TensorProto, helper, numpy_helper

    constants: list[Any] = []

    def constant(name: str, value: NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def gates(array: NDArray[np.float32]) -> NDArray[np.float32]:
        i, f, c, o = np.split(array, 4)
        return np.concatenate([i, o, f, c])

    nodes = [helper.make_node("Transpose", ["rows"], ["signal0"], perm=[1, 0, 2])]
    direction = constant("direction", np.array([1]))
    for number, layer in enumerate(weights.layers):
        inputs = [
            f"signal{number}",
            constant(f"kernel{number}", gates(layer.kernel.T)[None]),
            constant(f"recurrent{number}", gates(layer.recurrent.T)[None]),
            constant(f"bias{number}", np.append(gates(layer.bias), 0 * layer.bias)[None]),
        ]
        outputs = [f"all{number}", f"last{number}"]
        nodes.append(helper.make_node("LSTM", inputs, outputs, hidden_size=layer.units))
        following = [f"signal{number + 1}"]
        nodes.append(helper.make_node("Squeeze", [f"all{number}", direction], following))
    last = f"last{len(weights.layers) - 1}"
    nodes.append(helper.make_node("Squeeze", [last, constant("layer", np.array([0]))], ["h"]))
    dense = constant("dense", weights.dense_kernel), constant("dense_bias", weights.dense_bias)
    nodes.append(helper.make_node("Gemm", ["h", *dense], ["outputs"]))
    nodes.append(helper.make_node("Squeeze", ["outputs", direction], ["y"]))
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["B", "T", weights.n_features])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B"])
    graph = helper.make_graph(nodes, "window", [rows], [y], initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
