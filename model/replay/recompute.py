"""Run the models of a registry again on past windows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from model.core.errors import BundleError
from model.features.scaler import ScalerSet, SymbolScaler
from model.forecasts.volatility import WARMUP
from model.inference.engine import Engine
from model.serving import ServedModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.history.reader import Saved
    from model.registry.bundle import Bundle
    from model.registry.registry import Registry

    Floats = NDArray[np.float64]

TOGETHER: Final = 256
"""Windows that are computed in one go."""

_EDGE: Final = 1e-6
"""A scaled value so close to an end of its range is outside or not by its last digits."""


class Recomputed(NamedTuple):
    """What came of k windows.

    Attributes:
        last: their last closes, ``[k]``.
        price: the forecasts of the next close, ``[k]``.
        raw: the network's output, ``[k]``.
        out_of_range: share of scaled values outside what the scaler was fitted on, ``[k]``.
        edge: share of those that lie on an end of that range, ``[k]``.
        said: the network's output behind the prices that were published, ``[k]``.
    """

    last: Floats
    price: Floats
    raw: Floats
    out_of_range: Floats
    edge: Floats
    said: Floats


class Models:
    """The models of a registry, each opened and compiled once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._opened: dict[str, Model | None] = {}

    def of(self, version: str, sha256: str) -> Model:
        """A model that spoke.

        Raises:
            BundleError: it is gone, or not what it was.
        """
        if version not in self._opened:
            self._opened[version] = None
            self._opened[version] = Model(self._registry.open(version))
        model = self._opened[version]
        if model is None or model.bundle.sha256 != sha256:
            msg = f"model {version} is not what it was"
            raise BundleError(msg)
        return model


class Model:
    """One model, run as the daemon runs it.

    Attributes:
        bundle: what it is made of.
        capacity: candles in a window.
    """

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        self._engine = Engine(bundle.onnx, TOGETHER, manifest.lookback, len(manifest.features))
        self.bundle: Final = bundle
        self.capacity: Final = max(manifest.indicators.warmup + manifest.lookback, WARMUP)

    def scalers(self, symbol: str, fitted: Saved) -> list[tuple[int, SymbolScaler]]:
        """What a symbol was scaled by, and since when (Unix milliseconds), ascending.

        Args:
            symbol: ccxt symbol.
            fitted: scalers of history, which count where the bundle has none; damaged ones are
                left out.
        """
        if (own := self.bundle.scalers.by_symbol.get(symbol)) is not None:
            return [(0, own)]
        scalers = []
        for since_ms, state in fitted:
            try:
                scaler = SymbolScaler.decode(state, len(self.bundle.manifest.features))
            except BundleError:
                continue
            scalers.append((since_ms, scaler))
        return scalers

    def run(
        self, scaler: SymbolScaler, windows: Floats, last_close: Floats, predicted: Floats
    ) -> Recomputed:
        """Forecast from windows of one symbol.

        Args:
            scaler: of the symbol.
            windows: ``[k, capacity, 5]``, k at most `TOGETHER`.
            last_close: as published, ``[k]``.
            predicted: as published, ``[k]``.
        """
        own = self.bundle.scalers
        alone = replace(self.bundle, scalers=ScalerSet(own.features, own.target, {"": scaler}))
        served = ServedModel(alone, [""] * len(windows), self._engine)
        idx = np.arange(len(windows))
        served.rebuild(idx, windows)
        rows = served.windows(idx)
        raw = served.full(rows)
        last = windows[:, -1, 3]
        edge = np.minimum(np.abs(rows), np.abs(rows - 1.0)) <= _EDGE
        return Recomputed(
            last,
            served.price(idx, raw, last),
            raw.astype(np.float64),
            served.out_of_range(idx),
            edge.mean(axis=(1, 2)),
            _raw(served, idx, last_close, predicted),
        )


def _raw(served: ServedModel, idx: NDArray[np.intp], last: Floats, price: Floats) -> Floats:
    """The network's output behind prices: `ServedModel.price` is a line through it, or its exp."""
    zero, one = (
        served.price(idx, np.full(len(idx), value, dtype=np.float32), last) for value in (0.0, 1.0)
    )
    if served.target != "close":
        zero, one, price = np.log(zero / last), np.log(one / last), np.log(price / last)
    said: Floats = (price - zero) / (one - zero)
    return said
