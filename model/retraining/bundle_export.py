"""Export a finished training run as the parts of a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.inference.onnx_export import export_onnx
from model.registry.bundle import BundleParts

if TYPE_CHECKING:
    from pathlib import Path

    from model.train_lstm import Trained


def pack_trained(trained: Trained, models: Path, created_ms: int) -> BundleParts:
    """Export the network and gather what serving and the next training need.

    Args:
        trained: what `model.train_lstm.train` gave.
        models: the folder it wrote ``lstm_model.keras`` into.
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
