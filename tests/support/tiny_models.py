"""Make small models in milliseconds: random weights, and scalers fitted to given candles."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from model.features.definitions import LOG_RETURN_FEATURES, Indicators
from model.features.scaler import ScalerSet, SymbolScaler, Target
from model.features.streaming import FeatureBank
from model.forecasts.residuals import Residuals
from model.inference.onnx_export import LstmLayer, LstmWeights, export_onnx
from model.registry.bundle import Bundle, BundleParts
from model.registry.registry import Registry

SHORT = Indicators(rsi_period=4, macd_fast=3, macd_slow=6, macd_signal=3, bb_period=6)
"""Periods that settle within a hundred candles."""

NO_EVIDENCE = Residuals()

Floats = np.ndarray[Any, np.dtype[np.float64]]


def plain_keras(tag: bytes = b"not needed to serve") -> bytes:
    """A `.keras` file that names no class; the same tag gives the same bytes."""
    content = io.BytesIO()
    members = {"metadata.json": b"{}", "config.json": b"{}", "model.weights.h5": tag}
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return content.getvalue()


def drawn_weights(n_features: int, units: tuple[int, ...], seed: int = 7) -> LstmWeights:
    """Weights large enough that the output reacts to every input."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return rng.normal(0.0, 0.5, shape).astype(np.float32)

    inputs = (n_features, *units)
    layers = [LstmLayer(draw(n, 4 * u), draw(u, 4 * u), draw(4 * u)) for n, u in zip(inputs, units)]  # noqa: B905 - one input more than units
    return LstmWeights(tuple(layers), draw(units[-1], 1), draw(1))


def random_candles(rows: int, seed: int) -> Floats:
    """A market of its own, shape ``(rows, 5)``."""
    rng = np.random.default_rng(seed)
    close = 100.0 * (1 + seed) * np.exp(np.cumsum(rng.normal(0.0, 2e-3, rows)))
    opened = np.concatenate(([close[0]], close[:-1]))
    high = np.maximum(opened, close) * (1 + rng.uniform(0, 1e-3, rows))
    low = np.minimum(opened, close) * (1 - rng.uniform(0, 1e-3, rows))
    return np.column_stack([opened, high, low, close, rng.uniform(1.0, 9.0, rows)])


def fitted_scalers(
    candles: Mapping[str, Floats], features: tuple[str, ...], indicators: Indicators, target: Target
) -> ScalerSet:
    ohlcv = np.stack(list(candles.values()))
    bank = FeatureBank(features, indicators, len(ohlcv))
    rows = bank.prime(np.arange(len(ohlcv)), ohlcv)[:, indicators.warmup :]
    # Narrower than the data, so that some of it lies outside, and none on the border.
    least, most = np.quantile(rows, (0.033, 0.967), axis=1)
    close = ohlcv[:, :, 3]
    moves = (close if target == "close" else np.diff(np.log(close), axis=1)).astype(np.float64)
    low, high = moves.min(axis=1).tolist(), moves.max(axis=1).tolist()
    scalers = {
        symbol: SymbolScaler(least[i], most[i], low[i], high[i] - low[i])
        for i, symbol in enumerate(candles)
    }
    return ScalerSet(features, target, scalers)


def shifted(scalers: ScalerSet, symbols: Sequence[str], **change: float) -> ScalerSet:
    """The same scalers, but for the target's offset or scale of some symbols."""
    changed = {s: replace(scalers.by_symbol[s], **change) for s in symbols}  # type: ignore[arg-type]
    return ScalerSet(scalers.features, scalers.target, {**scalers.by_symbol, **changed})


def write(
    root: Path,
    candles: Mapping[str, Floats],
    *,
    timeframe: str = "1m",
    features: tuple[str, ...] = LOG_RETURN_FEATURES,
    indicators: Indicators = SHORT,
    target: Target = "log_return",
    lookback: int = 8,
    units: tuple[int, ...] = (6, 4),
    trained_to_ms: int = 60_000,
    seed: int = 7,
    created_ms: int = 1_776_859_560_000,
    residuals: Residuals = NO_EVIDENCE,
    weights: LstmWeights | None = None,
    scalers: ScalerSet | None = None,
) -> Bundle:
    """Write a bundle for these symbols into the registry at ``root``.

    Another ``seed`` draws another network; ``weights`` and ``scalers`` replace what would be drawn
    and fitted.
    """
    registry = Registry(root)
    version = registry.write(
        BundleParts(
            keras=plain_keras(),
            onnx=export_onnx(weights or drawn_weights(len(features), units, seed)),
            scalers=scalers or fitted_scalers(candles, features, indicators, target),
            timeframe=timeframe,
            indicators=indicators,
            lookback=lookback,
            units=units,
            metrics={},
            trained_from_ms=0,
            trained_to_ms=trained_to_ms,
            data_sha256="0" * 64,
            created_ms=created_ms,
            calibration=residuals.to_json(),
        )
    )
    return registry.open(version)


def promote(root: Path, candles: Mapping[str, Floats], **more: Any) -> Bundle:
    """Write a bundle as `write` does and make it the champion."""
    bundle = write(root, candles, **more)
    Registry(root).promote(bundle.version)
    return bundle
