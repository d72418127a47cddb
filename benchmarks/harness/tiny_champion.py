"""Write an untrained champion and a configuration for a benchmark's daemon."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import yaml

from daemon.sandbox.recording import build_playback
from model.core.candle import Timeframe
from model.features.definitions import LOG_RETURN_FEATURES, Indicators
from model.features.scaler import ScalerSet, SymbolScaler
from model.features.streaming import FeatureBank
from model.forecasts.residuals import LEVELS, MIN_RESIDUALS, Residuals, SymbolResiduals
from model.inference.onnx_export import LstmLayer, LstmWeights, export_onnx
from model.registry.bundle import BundleParts
from model.registry.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from benchmarks.harness.processes import Exchange

UNITS: Final = (64, 32)
LOOKBACK: Final = 60
HISTORY: Final = 900
INSTANCE: Final = "benchmark"

_SECOND: Final = Timeframe.parse("1s")


def random_weights(seed: int = 7) -> LstmWeights:
    """The reference network's shapes, with weights large enough for the output to react."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> NDArray[np.float32]:
        return rng.normal(0.0, 0.3, shape).astype(np.float32)

    inputs = len(LOG_RETURN_FEATURES)
    layers = []
    for units in UNITS:
        layers.append(LstmLayer(draw(inputs, 4 * units), draw(units, 4 * units), draw(4 * units)))
        inputs = units
    return LstmWeights(tuple(layers), draw(inputs, 1), draw(1))


def fitted_scalers(symbols: Sequence[str], ohlcv: NDArray[np.float64]) -> ScalerSet:
    """Scalers fitted on candles ``[symbols, rows, 5]``, all symbols at once."""
    bank = FeatureBank(LOG_RETURN_FEATURES, Indicators(), len(symbols))
    rows = bank.prime(np.arange(len(symbols)), ohlcv)[:, Indicators().warmup :]
    least, most = rows.min(axis=1), rows.max(axis=1)
    scalers = {
        symbol: SymbolScaler(least[i], most[i], -0.01, 0.02) for i, symbol in enumerate(symbols)
    }
    return ScalerSet(LOG_RETURN_FEATURES, "log_return", scalers)


def some_residuals(symbols: Sequence[str]) -> Residuals:
    """As many residuals as a training gives, enough for every forecast to have an interval."""
    quantiles = tuple((4.0 * LEVELS - 2.0).tolist())
    return Residuals(by_symbol=dict.fromkeys(symbols, SymbolResiduals(MIN_RESIDUALS, quantiles)))


def _plain_keras() -> bytes:
    """A `.keras` file that names no class: serving needs none."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(zipfile.ZipInfo(name), b"{}")
    return content.getvalue()


def promote(state: Path, symbols: Sequence[str], ohlcv: NDArray[np.float64], seed: int = 7) -> str:
    """Write a champion for ``symbols`` into the registry of a state folder; its version."""
    registry = Registry(state / "registry")
    version = registry.write(
        BundleParts(
            keras=_plain_keras(),
            onnx=export_onnx(random_weights(seed)),
            scalers=fitted_scalers(symbols, ohlcv),
            calibration=some_residuals(symbols).to_json(),
            timeframe=_SECOND.text,
            indicators=Indicators(),
            lookback=LOOKBACK,
            units=UNITS,
            metrics={},
            trained_from_ms=0,
            trained_to_ms=_SECOND.ms,
            data_sha256="0" * 64,
            created_ms=1_776_859_560_000,
        )
    )
    registry.promote(version)
    return version


def past(exchange: Exchange) -> NDArray[np.float64]:
    """The candles of every symbol before the exchange's start, ``[symbols, HISTORY, 5]``."""
    symbols = exchange.symbols
    playback = build_playback(
        len(symbols), _SECOND, exchange.origin_ms, slice_rows=exchange.slice_rows
    )
    until_ms = exchange.origin_ms + HISTORY * _SECOND.ms
    return np.stack([playback.history(s, exchange.origin_ms, until_ms)[1] for s in symbols])


def prepare(folder: Path, exchange: Exchange, broker_port: int, http_port: int) -> Path:
    """Prepare ``folder`` for `candlecast run` with a champion; returns the configuration's path."""
    symbols = exchange.symbols
    promote(folder / "state", symbols, past(exchange))
    sections = {
        "exchange": {
            "name": "binance",
            "endpoint": {"rest": exchange.rest_url, "ws": exchange.ws_url},
        },
        "trading": {"symbols": symbols, "timeframe": exchange.timeframe},
        "mqtt": {"port": broker_port, "instance": INSTANCE},
        "http": {"port": http_port},
    }
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(sections), encoding="utf-8")
    return config
