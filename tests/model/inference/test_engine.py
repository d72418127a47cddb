"""Test the engine against a float64 LSTM and Keras, and its states under concurrency."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.core.errors import BundleError, CandlecastError
from model.inference.engine import (
    Device,
    Engine,
    LstmLayer,
    LstmWeights,
    OnnxPair,
    choose_device,
    export_onnx,
    faster_device,
)
from model.inference.onnx_session import cuda_offered

Floats = np.ndarray[Any, np.dtype[np.float32]]


def random_weights(features: int, units: list[int], gain: float, seed: int) -> LstmWeights:
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float) -> Floats:
        return rng.normal(0.0, scale, shape).astype(np.float32)

    layers, inputs = [], features
    for u in units:
        kernel = normal(inputs, 4 * u, scale=gain / np.sqrt(inputs))
        recurrent = normal(u, 4 * u, scale=gain / np.sqrt(u))
        layers.append(LstmLayer(kernel, recurrent, normal(4 * u, scale=0.5)))
        inputs = u
    return LstmWeights(tuple(layers), normal(inputs, 1, scale=1.0), normal(1, scale=1.0))


def in_float64(weights: LstmWeights, windows: Floats) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The textbook recursion (Hochreiter & Schmidhuber 1997 with forget gates), in float64."""

    def sigmoid(x: Any) -> Any:
        return 1.0 / (1.0 + np.exp(-x))

    rows = windows.astype(np.float64)
    for kernel, recurrent, bias in weights.layers:
        h = c = np.zeros((len(rows), len(recurrent)))
        outputs = []
        for t in range(rows.shape[1]):
            gates = rows[:, t] @ kernel.astype(np.float64) + h @ recurrent.astype(np.float64) + bias
            i, f, g, o = np.split(gates, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            outputs.append(h)
        rows = np.stack(outputs, axis=1)
    y = rows[:, -1] @ weights.dense_kernel.astype(np.float64) + weights.dense_bias
    return cast("np.ndarray[Any, np.dtype[np.float64]]", y[:, 0])


@cache
def keras() -> Any:
    import keras as module

    return module


def in_keras(weights: LstmWeights, windows: Floats) -> Floats:
    k = keras()
    stack = [k.Input(windows.shape[1:])]
    last = len(weights.layers) - 1
    for number, layer in enumerate(weights.layers):
        stack.append(k.layers.LSTM(layer.units, return_sequences=number < last))
    network = k.Sequential([*stack, k.layers.Dense(1)])
    network.set_weights(
        [w for layer in weights.layers for w in layer] + [weights.dense_kernel, weights.dense_bias]
    )
    result = np.asarray(network(windows))[:, 0]
    k.backend.clear_session()
    return cast("Floats", result)


def random_windows(*shape: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).uniform(-0.5, 1.5, shape).astype(np.float32)


@cache
def reference_network() -> tuple[LstmWeights, OnnxPair]:
    weights = random_weights(6, [64, 32], 1.0, seed=3)
    return weights, export_onnx(weights)


def reference_engine(n_symbols: int, **options: Any) -> Engine:
    return Engine(reference_network()[1], n_symbols, 60, 6, **options)


@settings(deadline=None, max_examples=12, suppress_health_check=list(HealthCheck))
@given(
    units=st.lists(st.integers(1, 70), min_size=1, max_size=4),
    features=st.integers(1, 12),
    lookback=st.integers(1, 80),
    batch=st.integers(1, 70),
    gain=st.sampled_from([0.3, 1.0, 3.0]),
    seed=st.integers(0, 1000),
)
def test_error_is_at_most_a_few_times_that_of_keras(
    units: list[int], features: int, lookback: int, batch: int, gain: float, seed: int
) -> None:
    weights = random_weights(features, units, gain, seed)
    windows = random_windows(batch, lookback, features, seed=seed)
    exact = in_float64(weights, windows)
    engine = Engine(export_onnx(weights), batch, lookback, features, max_batch=64)
    # Weights of three times the usual size amplify roundings, for Keras and for the engine in turn.
    factor = 4 if gain <= 1.0 else 12
    allowed = factor * np.abs(in_keras(weights, windows) - exact).max() + 1e-6
    idx = np.arange(batch)
    assert np.abs(engine.full(windows) - exact).max() <= allowed
    engine.prepare(idx, windows[:, :-1], idx)
    assert np.abs(engine.step(idx, windows[:, -1]) - exact).max() <= allowed


def test_a_large_batch_is_as_exact_as_a_small_one() -> None:
    weights, _ = reference_network()
    windows = random_windows(1500, 60, 6)
    exact = in_float64(weights, windows)
    assert np.abs(reference_engine(1).full(windows) - exact).max() < 1e-6


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_step_does_not_depend_on_the_other_symbols(data: st.DataObject) -> None:
    n = 40
    engine = reference_engine(n, max_batch=16)
    windows = random_windows(n, 60, 6)
    order = data.draw(st.permutations(range(n)))
    cuts = sorted(data.draw(st.sets(st.integers(1, n - 1), max_size=6)))
    for part in np.split(np.array(order), cuts):
        engine.prepare(part, windows[part, :-1], part + 100)
    alone = np.concatenate([engine.full(windows[i : i + 1]) for i in range(n)])
    wanted = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, unique=True)))
    assert engine.prepared(wanted, wanted + 100).all()
    stepped = engine.step(wanted, windows[wanted, -1])
    assert np.abs(stepped - alone[wanted]).max() <= 1e-6
    again = engine.step(wanted, windows[wanted, -1])
    np.testing.assert_array_equal(stepped, again)


def test_equal_batches_give_equal_bits_prepared_or_in_full() -> None:
    engine = reference_engine(13)
    windows = random_windows(13, 60, 6)
    idx = np.arange(13)
    engine.prepare(idx, windows[:, :-1], idx)
    np.testing.assert_array_equal(engine.step(idx, windows[:, -1]), engine.full(windows))


def test_only_the_exact_stamp_counts_as_prepared() -> None:
    engine = reference_engine(3)
    everyone = np.arange(3)
    assert not engine.prepared(everyone, np.zeros(3, np.int64)).any()
    engine.prepare(np.array([2, 0]), random_windows(2, 59, 6), np.array([7, 5]))
    assert engine.prepared(everyone, np.array([5, 5, 7])).tolist() == [True, False, True]
    engine.prepare(np.array([2]), random_windows(1, 59, 6), np.array([8]))
    assert engine.prepared(everyone, np.array([5, 5, 7])).tolist() == [True, False, False]


def test_warming_leaves_no_trace_and_nothing_to_run_is_fine() -> None:
    engine = reference_engine(4, max_batch=8)
    engine.warm()
    idx = np.arange(4)
    assert not engine.prepared(idx, np.zeros(4, np.int64)).any()
    assert engine.full(np.zeros((0, 60, 6), np.float32)).shape == (0,)
    assert engine.step(idx[:0], np.zeros((0, 6), np.float32)).shape == (0,)


def test_a_state_never_mixes_two_preparations() -> None:
    n = 64
    engine = reference_engine(n)
    idx = np.arange(n)
    newest = random_windows(1, 6).repeat(n, axis=0)
    sides = [random_windows(1, 59, 6, seed=seed).repeat(n, axis=0) for seed in (1, 2)]
    allowed = []
    for side in sides:
        engine.prepare(idx, side, idx)
        allowed.append(engine.step(idx, newest)[0])
    enough = threading.Event()

    def prepare_in_turns() -> None:
        for turn in count():
            engine.prepare(idx, sides[turn % 2], idx)
            if enough.is_set():
                return

    worker = threading.Thread(target=prepare_in_turns)
    worker.start()
    seen: set[int] = set()
    steps = count()
    try:
        # Until both have been seen: how often the worker gets a turn is up to the machine.
        while next(steps) < 300 or len(seen) < 2:
            y = engine.step(idx, newest)
            # Taken under the lock, all symbols belong to one preparation: no third value, no mix.
            assert np.abs(y - y[0]).max() <= 1e-6
            seen.add(int(np.abs(np.array(allowed) - y[0]).argmin()))
            assert np.abs(np.array(allowed) - y[0]).min() <= 1e-6
    finally:
        enough.set()
        worker.join()


def test_graphs_that_do_not_belong_together_are_refused() -> None:
    _, pair = reference_network()
    other = export_onnx(random_weights(6, [8], 1.0, seed=1))
    with pytest.raises(BundleError, match="not the prefix and the step of one network"):
        Engine(OnnxPair(pair.prefix, other.step), 1, 60, 6)
    with pytest.raises(BundleError, match="with 7 features"):
        Engine(pair, 1, 60, 7)
    with pytest.raises(BundleError, match="not the prefix"):
        Engine(OnnxPair(pair.step, pair.prefix), 1, 60, 6)


@pytest.mark.parametrize("size", [0, 1, 1000, -1])
def test_a_broken_graph_is_refused(size: int) -> None:
    _, pair = reference_network()
    with pytest.raises(BundleError):
        Engine(OnnxPair(pair.prefix[:size], pair.step), 1, 60, 6)


def test_a_graph_that_fails_when_it_runs_is_refused_before_it_serves() -> None:
    import onnx
    from onnx import helper, numpy_helper

    _, pair = reference_network()
    model = onnx.load_model_from_string(pair.step)
    model.graph.node[-1].output[0] = "said"
    # Only of three symbols at a time does it come to an output.
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 3]), "threes"))
    model.graph.node.append(helper.make_node("Reshape", ["said", "threes"], ["folded"]))
    model.graph.node.append(helper.make_node("ReduceMax", ["folded"], ["y"], axes=[1], keepdims=0))
    engine = Engine(OnnxPair(pair.prefix, model.SerializeToString()), 4, 60, 6)
    with pytest.raises(BundleError, match="the graph does not run") as refused:
        engine.warm()
    assert len(str(refused.value).splitlines()) == 1


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    import onnx

    _, pair = reference_network()
    model = onnx.load_model_from_string(pair.prefix)
    path = tmp_path / "prefix.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    with pytest.raises(BundleError, match="weights in another file"):
        Engine(OnnxPair(path.read_bytes(), pair.step), 1, 60, 6)


def test_the_runtime_sends_no_telemetry(tmp_path: Path) -> None:
    """By default it would store an identifier of this machine and send telemetry."""
    code = "from model.inference.onnx_session import cuda_offered\ncuda_offered()\n"
    plain = {k: v for k, v in os.environ.items() if k not in {"CI", "ORT_DISABLE_TELEMETRY"}}
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=plain | home)
    assert list(tmp_path.rglob("*")) == []


def test_a_window_of_one_row_needs_no_preparation_but_may_have_it() -> None:
    weights, pair = reference_network()
    windows = random_windows(5, 1, 6)
    engine = Engine(pair, 5, 1, 6)
    engine.warm()
    idx = np.arange(5)
    engine.prepare(idx, windows[:, :-1], idx)
    assert np.abs(engine.step(idx, windows[:, -1]) - in_float64(weights, windows)).max() < 1e-6
    np.testing.assert_array_equal(engine.full(windows), engine.step(idx, windows[:, -1]))


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="power of two"):
        reference_engine(1, max_batch=100)
    with pytest.raises(ValueError, match="above 0"):
        Engine(reference_network()[1], 1, 0, 6)


def test_weights_that_do_not_fit_together_are_refused() -> None:
    weights, _ = reference_network()
    with pytest.raises(ValueError, match="LSTM layer 2 has weights of shapes"):
        LstmWeights(
            (weights.layers[0], weights.layers[0]), weights.dense_kernel, weights.dense_bias
        )
    with pytest.raises(ValueError, match="the dense layer must map 64 inputs"):
        LstmWeights(weights.layers[:1], weights.dense_kernel, weights.dense_bias)
    with pytest.raises(ValueError, match="at least one"):
        LstmWeights((), weights.dense_kernel, weights.dense_bias)


def test_equal_weights_are_exported_to_equal_bytes() -> None:
    weights, pair = reference_network()
    assert export_onnx(weights) == pair


def test_the_device_is_chosen_with_a_reason() -> None:
    _, pair = reference_network()
    ticks = count()

    def now_s() -> float:
        return float(next(ticks))

    assert choose_device("cpu", pair, 60, 6, 4, now_s) == (
        "cpu",
        "inference runs on the cpu, as configured",
    )
    device, why = choose_device("auto", pair, 60, 6, 4, now_s)
    if cuda_offered():
        assert f"runs on the {device}" in why
    else:
        assert (device, why) == (
            "cpu",
            "inference runs on the cpu: the installed ONNX Runtime has no CUDA",
        )
        with pytest.raises(CandlecastError, match="has no CUDA: install candlecast"):
            reference_engine(1, device="gpu")


@pytest.mark.parametrize(("gpu_ms", "device"), [(0.4, "gpu"), (0.5, "cpu"), (3.0, "cpu")])
def test_the_faster_device_is_taken(gpu_ms: float, device: str) -> None:
    taken, why = faster_device(lambda of: {"cpu": 0.5, "gpu": gpu_ms}[of])
    assert taken == device
    assert why == f"took 0.500 ms on the cpu and {gpu_ms:.3f} ms on the gpu"


@pytest.mark.parametrize(
    "error",
    [
        CandlecastError("inference.device is gpu, but CUDA did not start"),
        RuntimeError("CUDA failure 2: out of memory\nwith a stack of calls below"),
    ],
)
def test_a_gpu_that_fails_is_not_used(error: Exception) -> None:
    def step_ms(device: Device) -> float:
        if device == "gpu":
            raise error
        return 0.5

    device, why = faster_device(step_ms)
    assert device == "cpu"
    assert why.startswith("took 0.500 ms; ONNX Runtime offers a gpu, but: CUDA ")
    assert "\n" not in why


def test_a_broken_graph_is_an_error_on_any_device() -> None:
    def step_ms(device: Device) -> float:
        raise BundleError(device)

    with pytest.raises(BundleError, match="cpu"):
        faster_device(step_ms)
