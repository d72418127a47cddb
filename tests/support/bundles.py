"""Make small model bundles for tests of the registry."""

from __future__ import annotations

import hashlib
import io
import zipfile

import numpy as np

from model.features.definitions import LOG_RETURN_FEATURES, Indicators
from model.features.scaler import ScalerSet, SymbolScaler
from model.forecasts.residuals import LEVELS, Residuals, SymbolResiduals
from model.inference.engine import OnnxPair
from model.registry.registry import BundleParts, Registry
from tests.support.tiny_models import plain_keras

NOON_MS = 1_795_435_200_000
VERSION_FILES = (
    "calibration.json",
    "manifest.json",
    "model.keras",
    "prefix.onnx",
    "scaler.json",
    "step.onnx",
)


def parts(number: int = 0) -> BundleParts:
    """A bundle whose every file carries its number."""
    scaler = SymbolScaler(np.zeros(6) - number, np.ones(6), 0.0, 1e-3)
    tag = str(number).encode()
    residuals = SymbolResiduals(200 + number, tuple((LEVELS - 0.5).tolist()))
    return BundleParts(
        keras=plain_keras(tag),
        onnx=OnnxPair(b"prefix" + tag, b"step" + tag),
        scalers=ScalerSet(LOG_RETURN_FEATURES, "log_return", {"BTC/USDT": scaler}),
        timeframe="15m",
        indicators=Indicators(),
        lookback=60,
        units=(64, 32),
        metrics={"mae_ratio": 1.0 + number},
        trained_from_ms=NOON_MS - 900_000_000,
        trained_to_ms=NOON_MS - 900_000,
        data_sha256=hashlib.sha256(tag).hexdigest(),
        created_ms=NOON_MS + 1000 * number,
        calibration=Residuals(by_symbol={"BTC/USDT": residuals}).to_json(),
    )


def numbers_in(registry: Registry, version: str) -> set[int]:
    """The numbers that the parts of an opened bundle carry: one, unless it is mixed."""
    bundle = registry.open(version)
    return {
        int(zipfile.ZipFile(io.BytesIO(bundle.read_keras())).read("model.weights.h5")),
        int(bundle.onnx.prefix[6:]),
        int(bundle.onnx.step[4:]),
        int(-bundle.scalers.by_symbol["BTC/USDT"].feature_min[0]),
        int(bundle.manifest.metrics["mae_ratio"] - 1),
        bundle.residuals.by_symbol["BTC/USDT"].n - 200,
    }
