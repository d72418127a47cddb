"""Run the engines of `benchmarks.network.engine`, one family per process, driven by JSON lines."""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.tiny_champion import LOOKBACK, UNITS, random_weights
from benchmarks.network.window_graph import export_window
from model.inference.engine import Engine, export_onnx
from model.inference.onnx_session import runtime

Batch = NDArray[np.float32]
Pass = Callable[[], object]
Maker = Callable[[Batch], Pass]
"""Given windows ``[k, LOOKBACK, F]``, a function that runs them and gives outputs ``[k]``."""

_WEIGHTS: Final = random_weights()
_FEATURES: Final = _WEIGHTS.n_features
_LEAST: Final = 3
_MOST: Final = 2_000


def _ours() -> dict[str, Maker]:
    pair = export_onnx(_WEIGHTS)

    def step(x: Batch) -> Pass:
        engine = Engine(pair, len(x), LOOKBACK, _FEATURES)
        idx = np.arange(len(x))
        engine.prepare(idx, x[:, :-1], idx)
        newest = np.ascontiguousarray(x[:, -1])
        return lambda: engine.step(idx, newest)

    def full(x: Batch) -> Pass:
        engine = Engine(pair, len(x), LOOKBACK, _FEATURES)
        return lambda: engine.full(x)

    return {"our step, 1": step, "our full window, 1": full}


def _keras() -> Any:  # noqa: ANN401 - Keras is untyped
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((LOOKBACK, _FEATURES)),
            layers.LSTM(UNITS[0], return_sequences=True),
            layers.LSTM(UNITS[1]),
            layers.Dense(1),
        ]
    )
    arrays = [array for layer in _WEIGHTS.layers for array in layer]
    model.set_weights([*arrays, _WEIGHTS.dense_kernel, _WEIGHTS.dense_bias])
    return model


def _tensorflow(threads: int) -> dict[str, Maker]:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    model = _keras()

    def compiled(*, xla: bool) -> Maker:
        function = tf.function(lambda x: model(x, training=False), jit_compile=xla)
        return lambda x: lambda: function(tf.constant(x)).numpy()[:, 0]

    label = str(threads or "all")
    return {
        f"predict, {label}": lambda x: lambda: model.predict(x, verbose=0)[:, 0],
        f"model(x), {label}": lambda x: lambda: model(x, training=False).numpy()[:, 0],
        f"tf.function, {label}": compiled(xla=False),
        f"XLA, {label}": compiled(xla=True),
    }


def _onnxruntime() -> dict[str, Maker]:
    onnxruntime = runtime()

    def maker(threads: int) -> Maker:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(
            export_window(_WEIGHTS), options, providers=["CPUExecutionProvider"]
        )
        return lambda x: lambda: session.run(None, {"rows": x})[0]

    return {"ONNX Runtime, 1": maker(1), "ONNX Runtime, all": maker(0)}


def _openvino() -> dict[str, Maker]:
    openvino = importlib.import_module("openvino")
    model = openvino.Core().read_model(export_window(_WEIGHTS))

    def maker(threads: int, precision: str = "f32") -> Maker:
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        if threads:
            config["INFERENCE_NUM_THREADS"] = str(threads)
        compiled = openvino.Core().compile_model(model, "CPU", config)
        request = compiled.create_infer_request()
        return lambda x: lambda: np.array(request.infer({"rows": x})[0])

    return {
        "OpenVINO, 1": maker(1),
        "OpenVINO, all": maker(0),
        # What it takes by itself where the processor has it.
        "OpenVINO bf16, 1": maker(1, "bf16"),
        "OpenVINO bf16, all": maker(0, "bf16"),
    }


def _litert() -> dict[str, Maker]:
    interpreter_of = importlib.import_module("ai_edge_litert.interpreter").Interpreter
    import tensorflow as tf

    freezing = importlib.import_module("tensorflow.python.framework.convert_to_constants")
    model = _keras()

    def maker(threads: int) -> Maker:
        def make(x: Batch) -> Pass:
            function = tf.function(lambda rows: model(rows, training=False))
            concrete = function.get_concrete_function(tf.TensorSpec(x.shape, tf.float32))
            frozen = freezing.convert_variables_to_constants_v2(concrete)
            converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "network.tflite"
                path.write_bytes(converter.convert())
                interpreter = interpreter_of(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()
            (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

            def run() -> Batch:
                interpreter.set_tensor(given["index"], x)
                interpreter.invoke()
                values: Batch = interpreter.get_tensor(result["index"])[:, 0]
                return values

            return run

        return make

    return {"LiteRT, 1": maker(1), "LiteRT, all": maker(os.cpu_count() or 1)}


FAMILIES: Final[dict[str, Callable[[], dict[str, Maker]]]] = {
    "ours": _ours,
    "tensorflow 1": lambda: _tensorflow(1),
    "tensorflow all": lambda: _tensorflow(0),
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "litert": _litert,
}


class Family:
    """Answers the requests; what was built or failed once is kept."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._makers: dict[str, Maker] | None = None
        self._built: dict[tuple[str, int], Pass | str] = {}

    def answer(self, engine: str, windows: int, budget_s: float) -> dict[str, Any]:
        """Seconds of some passes and the outputs of the first windows, or an error."""
        key = engine, windows
        if key not in self._built:
            # One size at a time: nothing is gained by keeping the others in memory.
            self._built = {k: v for k, v in self._built.items() if k[1] == windows}
            self._built[key] = self._build(engine, windows)
        run = self._built[key]
        if isinstance(run, str):
            return {"error": run}
        outputs = np.asarray(run())
        seconds: list[float] = []
        while len(seconds) < _LEAST or (sum(seconds) < budget_s and len(seconds) < _MOST):
            started = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started)
        return {"seconds": seconds, "outputs": outputs[:8].tolist()}

    def _build(self, engine: str, windows: int) -> Pass | str:
        try:
            if self._makers is None:
                self._makers = FAMILIES[self._name]()
            x = np.random.default_rng(3).random((windows, LOOKBACK, _FEATURES), np.float32)
            run = self._makers[engine](x)
            run()
            run()
        except ModuleNotFoundError as error:
            return f"missing: {error.name}"
        # Each engine has exceptions of its own, and the table has room to say that it failed.
        except Exception as error:  # noqa: BLE001
            return f"failed: {type(error).__name__}: {str(error).splitlines()[0][:60]}"
        return run


def main(name: str) -> None:
    """Answer until the input ends."""
    # Libraries that chatter on the standard output must not break the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    family = Family(name)
    for line in sys.stdin:
        request = json.loads(line)
        answer = family.answer(request["engine"], request["windows"], request["budget_s"])
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
