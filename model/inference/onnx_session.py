"""Run one ONNX graph with ONNX Runtime in batches of fixed sizes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from model.core.errors import BundleError, CandlecastError

if TYPE_CHECKING:
    import onnxruntime

Device = Literal["cpu", "gpu"]
Batch = NDArray[np.float32]
Shape = tuple[int | None, ...]

_CUDA: Final = "CUDAExecutionProvider"
_CPU: Final = "CPUExecutionProvider"
_ERRORS_ONLY: Final = 3


class OnnxGraph:
    """A graph whose inputs and only output share their first axis, the batch.

    A batch is padded to the next power of two, so that only a few sizes ever occur and `warm` can
    run all of them beforehand; larger batches are cut. `run` may be called from several threads.

    Args:
        model: the serialized graph.
        device: where to run.
        threads: threads of one run on the CPU.
        largest: greatest batch, a power of two.

    Attributes:
        shapes: shape of each input and output by name; None is a free axis.

    Raises:
        BundleError: not an ONNX graph of 32-bit floats with one output.
        CandlecastError: there is no GPU to run it on.
    """

    def __init__(self, model: bytes, *, device: Device, threads: int, largest: int) -> None:
        self._session = _open(model, device, threads)
        self._largest: Final = largest
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        nodes = [*inputs, *outputs]
        if len(outputs) != 1 or any(node.type != "tensor(float)" for node in nodes):
            msg = "the graph must take and give 32-bit floats and have one output"
            raise BundleError(msg)
        self._inputs: Final = [node.name for node in inputs]
        self._outputs: Final = [node.name for node in outputs]
        self.shapes: Final[Mapping[str, Shape]] = {
            node.name: tuple(axis if isinstance(axis, int) else None for axis in node.shape)
            for node in nodes
        }

    def run(self, *batches: Batch) -> Batch:
        """Run k samples: one array ``[k, …]`` per input gives ``[k, …]``."""
        done = [self._run(*chunk) for chunk in self._chunks(batches)]
        return done[0] if len(done) == 1 else np.concatenate(done)

    def warm(self, shapes: Sequence[Sequence[int]]) -> None:
        """Run every batch size once on zeros; ``shapes`` are without the batch axis.

        Raises:
            BundleError: the graph does not run.
        """
        size = 1
        try:
            while size <= self._largest:
                self.run(*(np.zeros((size, *shape), np.float32) for shape in shapes))
                size *= 2
        # ONNX Runtime raises a class of its own for each way to fail.
        except Exception as error:
            reason = str(error).partition("\n")[0]
            msg = f"the graph does not run: {reason}"
            raise BundleError(msg) from error

    def _chunks(self, batches: tuple[Batch, ...]) -> Iterator[list[Batch]]:
        # An empty request still needs one run, whose output has the right shape.
        for start in range(0, max(1, len(batches[0])), self._largest):
            yield [batch[start : start + self._largest] for batch in batches]

    def _run(self, *batches: Batch) -> Batch:
        size = len(batches[0])
        padded = 1 << max(0, size - 1).bit_length()
        feeds = {
            name: np.ascontiguousarray(batch) if size == padded else _pad(batch, padded)
            for name, batch in zip(self._inputs, batches, strict=True)
        }
        result: Batch = self._session.run(self._outputs, feeds)[0]
        return result[:size]


def _pad(batch: Batch, size: int) -> Batch:
    padded = np.zeros((size, *batch.shape[1:]), np.float32)
    padded[: len(batch)] = batch
    return padded


def runtime() -> Any:  # noqa: ANN401 - it is untyped
    """ONNX Runtime, imported when it is needed, and told to keep what it does to itself.

    Left alone it sends that to its maker, with an identifier that it keeps in the user's cache.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def cuda_offered() -> bool:
    """Whether the installed ONNX Runtime was built for CUDA."""
    return _CUDA in runtime().get_available_providers()


def _open(model: bytes, device: Device, threads: int) -> onnxruntime.InferenceSession:
    onnxruntime = runtime()
    if device == "gpu":
        if not cuda_offered():
            msg = (
                "inference.device is gpu, but the installed ONNX Runtime has no CUDA: install "
                "candlecast[gpu] (see docs/gpu.md), or set inference.device to auto or cpu"
            )
            raise CandlecastError(msg)
        # The libraries of NVIDIA's Python packages lie where no loader looks for them. What is
        # missing is printed, and told once more when CUDA does not start.
        with redirect_stdout(StringIO()):
            onnxruntime.preload_dlls(directory="")
    # Weights of a graph can be said to lie in another file, which no hash would cover; the key of
    # that file's name is spelled out in the graph.
    if b"location" in model:
        msg = "the graph refers to weights in another file"
        raise BundleError(msg)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    # A spinning worker would take a core from the event loop between two runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # TF32 keeps 10 bits of every product: not within the error the forecasts are held to.
    providers = [(_CUDA, {"use_tf32": "0"}), _CPU] if device == "gpu" else [_CPU]
    try:
        session = onnxruntime.InferenceSession(model, options, providers=providers)
    # ONNX Runtime raises a class of its own for each way a file can be broken.
    except Exception as error:
        reason = str(error).partition("\n")[0]
        if device == "gpu":
            msg = f"inference.device is gpu, but CUDA does not run the graph: {reason}"
            raise CandlecastError(msg) from error
        msg = f"ONNX Runtime refuses the graph: {reason}"
        raise BundleError(msg) from error
    if device == "gpu" and session.get_providers()[0] != _CUDA:
        msg = (
            "inference.device is gpu, but CUDA did not start: the driver, CUDA or cuDNN is missing "
            "(docs/gpu.md)"
        )
        raise CandlecastError(msg)
    return session
