"""Run the network in two parts: older rows ahead of time, the newest row when a candle closes.

`prepare` runs a symbol's older rows to the states of all layers and keeps them under a stamp;
`step` adds the newest row. `full` does both at once and keeps nothing.
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
"""Windows in one run of the prefix on a CPU: what a larger batch saves, its cache misses cost."""

_LARGEST_STATE: Final = 1 << 17
_REPEATS: Final = 21
_NEVER: Final = np.iinfo(np.int64).min


class Engine:
    """The network of one bundle, with the prepared states of numbered symbols.

    Threads: `prepare` and `full` may run in a worker thread while `prepared`, `step` and `full` run
    in another. States and stamps of a `prepare` appear together, under a lock that is held for the
    copy alone, so no state is ever half of one preparation and half of another. Between asking
    `prepared` and calling `step`, the caller hands out no newer preparation of the same symbols.

    Args:
        pair: the two graphs, see `model.onnx_export`.
        n_symbols: symbols are numbered 0 … n_symbols - 1; ``idx`` must not name one twice.
        lookback: rows of a window (T), at least 1.
        n_features: values of a row (F).
        device: see `choose_device`.
        threads: threads of one run on the CPU.
        max_batch: most symbols of one run, a power of two; more are run in several.

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
            pair.prefix, device=device, threads=threads, largest=self.prefix_batch
        )
        self._step = OnnxGraph(pair.step, device=device, threads=threads, largest=max_batch)
        size = self._state_size()
        self._lock = threading.Lock()
        self._states = np.zeros((n_symbols, size), np.float32)
        self._stamps = np.full(n_symbols, _NEVER, np.int64)

    def warm(self) -> None:
        """Run both graphs once at every batch size, so that no forecast pays for a first run.

        Raises:
            BundleError: one of them does not run.
        """
        if self.lookback > 1:
            self._prefix.warm([(self.lookback - 1, self.n_features)])
        self._step.warm([(self._states.shape[1],), (self.n_features,)])

    def full(self, windows: Batch) -> Batch:
        """The network's outputs ``[k]`` for whole windows ``[k, T, F]``."""
        return self._step.run(self._run_prefix(windows[:, :-1]), windows[:, -1])

    def prepare(self, idx: IntArray, windows: Batch, stamp: IntArray) -> None:
        """Run the older rows of symbols and keep the states.

        The caller cuts long work: ``prefix_batch`` symbols at a time are as fast as all at once.

        Args:
            idx: ``[k]`` symbol numbers.
            windows: ``[k, T-1, F]`` scaled rows, oldest first.
            stamp: ``[k]`` what `prepared` will be asked for.
        """
        states = self._run_prefix(windows)
        with self._lock:
            self._states[idx] = states
            self._stamps[idx] = stamp

    def prepared(self, idx: IntArray, stamp: IntArray) -> NDArray[np.bool_]:
        """Which symbols hold the states of exactly this stamp, ``[k]``."""
        with self._lock:
            held = self._stamps.take(idx)
        return np.equal(held, stamp)

    def step(self, idx: IntArray, rows: Batch) -> Batch:
        """The network's outputs ``[k]`` for the newest rows ``[k, F]`` of prepared symbols.

        States stay as they are: a forming candle can be stepped again and again.
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
        if self._prefix.shapes != prefix or self._step.shapes != step or size > _LARGEST_STATE:
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
    """Decide where a network runs; ``auto`` measures what all symbols closing at once cost.

    Args:
        setting: what the configuration asks for.
        pair: the network.
        lookback: rows of a window.
        n_features: values of a row.
        n_symbols: symbols that may close at once.
        now_s: a monotonic clock, seconds.

    Returns:
        The device, and a sentence for the log that says why.

    Raises:
        BundleError: graphs that are broken or of another shape.
    """
    if setting != "auto":
        return setting, f"inference runs on the {setting}, as configured"
    if not cuda_offered():
        return "cpu", "inference runs on the cpu: the installed ONNX Runtime has no CUDA"

    def step_ms(device: Device) -> float:
        return _step_ms(Engine(pair, n_symbols, lookback, n_features, device=device), now_s)

    device, why = faster_device(step_ms)
    return device, f"inference runs on the {device}: a step of {n_symbols} symbols {why}"


def faster_device(step_ms: Callable[[Device], float]) -> tuple[Device, str]:
    """Measure both devices; a GPU that fails in any way is none.

    Args:
        step_ms: sets a device up and says how long a step takes on it, milliseconds.

    Returns:
        The device, and the rest of a sentence that begins with what was measured.

    Raises:
        BundleError: graphs that are broken or of another shape.
    """
    cpu_ms = step_ms("cpu")
    try:
        gpu_ms = step_ms("gpu")
    # The CPU has run the same graphs, and each part of CUDA raises what it likes.
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
