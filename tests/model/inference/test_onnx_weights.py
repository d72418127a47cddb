"""Test the check of layers and weights of ONNX graphs."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.core.errors import BundleError
from model.inference.engine import Engine
from model.inference.onnx_export import LstmWeights, OnnxPair, export_onnx
from model.inference.onnx_weights import check_graphs
from tests.support.tiny_models import drawn_weights

UNITS = (6, 4)
PAIR = export_onnx(drawn_weights(5, UNITS))


@pytest.mark.parametrize("units", [(1,), (64, 32), (4, 6), (300,), (3, 3, 3)])
def test_graphs_of_the_layers_that_the_manifest_says(units: tuple[int, ...]) -> None:
    check_graphs(export_onnx(drawn_weights(5, units)), units)


@pytest.mark.parametrize("units", [(4, 6), (10,), (6, 3), (6, 4, 1), (5, 5), (), (6,)])
def test_graphs_of_other_layers(units: tuple[int, ...]) -> None:
    with pytest.raises(BundleError, match=r"prefix\.onnx has \[6, 4\]"):
        check_graphs(PAIR, units)


def test_both_graphs_are_checked() -> None:
    other = export_onnx(drawn_weights(5, (4, 6)))
    with pytest.raises(BundleError, match=r"step\.onnx has \[4, 6\]"):
        check_graphs(OnnxPair(PAIR.prefix, other.step), UNITS)


def spoiled(part: str, value: float) -> LstmWeights:
    weights = drawn_weights(5, UNITS)
    arrays: dict[str, Any] = {
        "kernel": weights.layers[0].kernel,
        "recurrent": weights.layers[1].recurrent,
        "bias": weights.layers[1].bias,
        "dense_kernel": weights.dense_kernel,
        "dense_bias": weights.dense_bias,
    }
    arrays[part].flat[-1] = value
    return weights


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["kernel", "recurrent", "bias", "dense_kernel", "dense_bias"])
def test_a_weight_that_is_not_finite(part: str, value: float) -> None:
    with np.errstate(invalid="ignore"):
        pair = export_onnx(spoiled(part, value))
    with pytest.raises(BundleError, match="weights are not all finite"):
        check_graphs(pair, UNITS)


def test_the_runtime_hides_weights_that_are_not_numbers() -> None:
    """Which is why they are looked for: the outputs of this network are finite."""
    weights = drawn_weights(5, UNITS)
    weights.layers[0].kernel[:] = np.nan
    windows = np.random.default_rng(0).random((4, 12, 5), np.float32)
    assert np.isfinite(Engine(export_onnx(weights), 1, 12, 5).full(windows)).all()


def rewritten(graph: bytes, change: Any) -> bytes:
    model = onnx.load_from_string(graph)
    change(model.graph)
    return bytes(model.SerializeToString())


def test_weights_are_found_in_every_part_of_a_graph() -> None:
    bad = np.array([[1.0, np.nan]])

    def as_floats(graph: Any) -> None:
        graph.initializer.append(
            onnx.helper.make_tensor("more", onnx.TensorProto.FLOAT, bad.shape, bad.ravel())
        )

    def as_doubles(graph: Any) -> None:
        graph.initializer.append(
            onnx.helper.make_tensor("more", onnx.TensorProto.DOUBLE, bad.shape, bad.ravel())
        )

    def as_halves(graph: Any) -> None:
        graph.initializer.append(onnx.numpy_helper.from_array(bad.astype(np.float16), "more"))

    def as_constant(graph: Any) -> None:
        value = onnx.numpy_helper.from_array(bad)
        graph.node.append(onnx.helper.make_node("Constant", [], ["more"], value=value))

    for change in (as_floats, as_doubles, as_halves, as_constant):
        with pytest.raises(BundleError, match="weights are not all finite"):
            check_graphs(OnnxPair(PAIR.prefix, rewritten(PAIR.step, change)), UNITS)


def test_integers_are_not_taken_for_weights() -> None:
    def whole(graph: Any) -> None:
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1], np.int32), "more"))

    check_graphs(OnnxPair(PAIR.prefix, rewritten(PAIR.step, whole)), UNITS)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_other_content_is_refused(data: st.DataObject) -> None:
    content = data.draw(
        st.one_of(
            st.binary(max_size=60),
            st.integers(0, len(PAIR.step) - 1).map(lambda size: PAIR.step[:size]),
            st.tuples(st.integers(0, len(PAIR.step) - 1), st.integers(0, 255)).map(
                lambda at: PAIR.step[: at[0]] + bytes([at[1]]) + PAIR.step[at[0] + 1 :]
            ),
        )
    )
    # Any other error would fail the test.
    with suppress(BundleError):
        check_graphs(OnnxPair(PAIR.prefix, content), UNITS)
