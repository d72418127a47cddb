"""Run the network in two parts: older rows ahead of time, the newest row when a candle closes.

`Engine.prepare` runs a symbol's older rows to the states of all layers and keeps them with a stamp;
`Engine.step` adds the newest row. `Engine.full` runs a whole window and keeps nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from model.core.errors import BundleError
from model.inference.onnx_export import LstmLayer, LstmWeights, OnnxPair, export_onnx
from model.inference.onnx_session import Batch, Device, OnnxGraph, cuda_offered

__all__ = [
    "Device",
    "Engine",
    "LstmLayer",
    "LstmWeights",
    "OnnxPair",
    "choose_device",
    "export_onnx",
    "faster_device",
]

IntArray = NDArray[np.int64]

PREFIX_BATCH: Final = 16
"""Windows in one run of the prefix on a CPU: larger batches gain nothing, they miss the cache."""

_MAX_STATE_SIZE: Final = 1 << 17
_REPEATS: Final = 21
"""Timed steps per device."""

_NO_STAMP: Final = np.iinfo(np.int64).min


class Engine:
    """The network of one bundle, with the prepared states of numbered symbols.

    Threads: `prepare` and `full` may run in a worker thread while `prepared`, `step` and `full` run
    in another. A lock makes states and stamps of one `prepare` visible together; it is held for the
    copy only. Between `prepared` and `step` the caller must not start a newer preparation of the
    same symbols.

    Args:
        pair: the two graphs, see `model.inference.onnx_export`.
        n_symbols: symbols are numbered 0 … n_symbols - 1; ``idx`` must not name one twice.
        lookback: rows of a window (T), at least 1.
        n_features: values of a row (F).
        device: see `choose_device`.
        threads: threads of one run on the CPU.
        max_batch: symbols of one run at most, a power of two; more take several runs.

    Raises:
        BundleError: graphs that are broken or of another shape.
        CandlecastError: no GPU where one was asked for.
        ValueError: ``max_batch`` is not a power of two, or ``lookback`` is below 1.
    """

    def __init__(
        self,
        pair: OnnxPair,
        n_symbols: int,
        lookback: int,
        n_features: int,
        *,
        device: Device = "cpu",
        threads: int = 1,
        max_batch: int = 1024,
    ) -> None:
        if max_batch < 1 or max_batch & (max_batch - 1) or lookback < 1:
            msg = f"max_batch ({max_batch}) must be a power of two, lookback ({lookback}) above 0"
            raise ValueError(msg)
        self.device: Final = device
        self.n_symbols: Final = n_symbols
        self.lookback: Final = lookback
        self.n_features: Final = n_features
        self.prefix_batch: Final = min(max_batch, PREFIX_BATCH) if device == "cpu" else max_batch
        self._prefix = OnnxGraph(
            pair.prefix, device=device, threads=threads, max_batch=self.prefix_batch
        )
        self._step = OnnxGraph(pair.step, device=device, threads=threads, max_batch=max_batch)
        size = self._state_size()
        self._lock = threading.Lock()
        self._states = np.zeros((n_symbols, size), np.float32)
        self._stamps = np.full(n_symbols, _NO_STAMP, np.int64)

    def warm(self) -> None:
        """Run both graphs once at every batch size, because the first run of a size is slow.

        Raises:
            BundleError: a graph does not run.
        """
        if self.lookback > 1:
            self._prefix.warm([(self.lookback - 1, self.n_features)])
        self._step.warm([(self._states.shape[1],), (self.n_features,)])

    def full(self, windows: Batch) -> Batch:
        """Run whole windows ``[k, T, F]`` and return the outputs ``[k]``."""
        return self._step.run(self._run_prefix(windows[:, :-1]), windows[:, -1])

    def prepare(self, idx: IntArray, windows: Batch, stamp: IntArray) -> None:
        """Run the older rows of symbols and keep the states.

        Pass ``prefix_batch`` symbols at a time: that is as fast as all at once and short.

        Args:
            idx: ``[k]`` symbol numbers.
            windows: ``[k, T-1, F]`` scaled rows, oldest first.
            stamp: ``[k]`` compared by `prepared`.
        """
        states = self._run_prefix(windows)
        with self._lock:
            self._states[idx] = states
            self._stamps[idx] = stamp

    def prepared(self, idx: IntArray, stamp: IntArray) -> NDArray[np.bool_]:
        """Tell which symbols have states with exactly this stamp, ``[k]``."""
        with self._lock:
            held = self._stamps.take(idx)
        return np.equal(held, stamp)

    def step(self, idx: IntArray, rows: Batch) -> Batch:
        """Run the newest rows ``[k, F]`` of prepared symbols and return the outputs ``[k]``.

        The kept states do not change: a forming candle can be run repeatedly.
        """
        with self._lock:
            states = self._states.take(idx, axis=0)
        return self._step.run(states, rows)

    def _run_prefix(self, rows: Batch) -> Batch:
        if rows.shape[1] == 0:
            return np.zeros((len(rows), self._states.shape[1]), np.float32)
        return self._prefix.run(rows)

    def _state_size(self) -> int:
        size = self._step.shapes.get("state", (None, None))[-1] or 0
        prefix = {"rows": (None, None, self.n_features), "state": (None, size)}
        step = {"state": (None, size), "row": (None, self.n_features), "y": (None,)}
        if self._prefix.shapes != prefix or self._step.shapes != step or size > _MAX_STATE_SIZE:
            msg = (
                f"the graphs {self._prefix.shapes} and {self._step.shapes} are not the prefix and "
                f"the step of one network with {self.n_features} features"
            )
            raise BundleError(msg)
        return size


def choose_device(
    setting: Literal["auto", "cpu", "gpu"],
    pair: OnnxPair,
    lookback: int,
    n_features: int,
    n_symbols: int,
    now_s: Callable[[], float],
) -> tuple[Device, str]:
    """Choose the device of a network; ``auto`` measures a step of all symbols on both.

    Args:
        setting: `inference.device` of the configuration.
        pair: the network.
        lookback: rows of a window.
        n_features: values of a row.
        n_symbols: symbols that may close at once.
        now_s: a monotonic clock, seconds.

    Returns:
        The device, and a sentence with the reason for the log.

    Raises:
        BundleError: graphs that are broken or of another shape.
    """
    if setting != "auto":
        return setting, f"inference runs on the {setting}, as configured"
    if not cuda_offered():
        return "cpu", "inference runs on the cpu: the installed ONNX Runtime has no CUDA"

    def step_ms(device: Device) -> float:
        return _step_ms(Engine(pair, n_symbols, lookback, n_features, device=device), now_s)

    device, reason = faster_device(step_ms)
    return device, f"inference runs on the {device}: a step of {n_symbols} symbols {reason}"


def faster_device(step_ms: Callable[[Device], float]) -> tuple[Device, str]:
    """Measure both devices; if the GPU fails, choose the CPU.

    Args:
        step_ms: sets up a device and returns the milliseconds of a step on it.

    Returns:
        The device, and the end of a sentence whose subject is the measured step.

    Raises:
        BundleError: graphs that are broken or of another shape.
    """
    cpu_ms = step_ms("cpu")
    try:
        gpu_ms = step_ms("gpu")
    # The graphs are valid, they ran on the CPU; the parts of CUDA raise various errors.
    except Exception as error:  # noqa: BLE001
        reason = str(error).partition("\n")[0].removeprefix("inference.device is gpu, but ")
        return "cpu", f"took {cpu_ms:.3f} ms; ONNX Runtime offers a gpu, but: {reason}"
    device: Device = "gpu" if gpu_ms < cpu_ms else "cpu"
    return device, f"took {cpu_ms:.3f} ms on the cpu and {gpu_ms:.3f} ms on the gpu"


def _step_ms(engine: Engine, now_s: Callable[[], float]) -> float:
    engine.warm()
    idx = np.arange(engine.n_symbols)
    rows = np.zeros((engine.n_symbols, engine.n_features), np.float32)
    times = []
    for _ in range(_REPEATS):
        start = now_s()
        engine.step(idx, rows)
        times.append(now_s() - start)
    return 1000.0 * float(np.median(times))
