"""Export a finished training run as the parts of a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.inference.onnx_export import export_onnx
from model.registry.bundle import BundleParts

if TYPE_CHECKING:
    from pathlib import Path

    from model.train_lstm import Trained


def bundle_parts(trained: Trained, models: Path, created_ms: int) -> BundleParts:
    """Export the network and collect the content of a bundle.

    Args:
        trained: the result of `model.train_lstm.train`.
        models: the folder with its ``lstm_model.keras``.
        created_ms: now, Unix milliseconds; becomes part of the version.
    """
    return BundleParts(
        keras=(models / "lstm_model.keras").read_bytes(),
        onnx=export_onnx(trained.weights),
        scalers=trained.scalers,
        timeframe=trained.timeframe,
        indicators=trained.indicators,
        lookback=trained.lookback,
        units=trained.units,
        metrics=trained.metrics,
        trained_from_ms=trained.trained_from_ms,
        trained_to_ms=trained.trained_to_ms,
        data_sha256=trained.data_sha256,
        created_ms=created_ms,
        calibration=trained.residuals.to_json(),
    )
