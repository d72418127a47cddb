"""Define a model bundle, pack new ones and verify stored ones."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final

from model.core.errors import BundleError
from model.features.definitions import Indicators
from model.features.scaler import ScalerSet
from model.files.atomic import read_limited
from model.files.keras_archive import check_keras_content
from model.files.strict_json import as_number, fail
from model.forecasts.residuals import Residuals
from model.inference.onnx_export import OnnxPair
from model.registry.manifest import MANIFEST, Manifest

KERAS_FILE: Final = "model.keras"
LARGEST: Final[Mapping[str, int]] = {
    KERAS_FILE: 1 << 30,
    "prefix.onnx": 256 << 20,
    "step.onnx": 256 << 20,
    "scaler.json": 16 << 20,
    "calibration.json": 64 << 20,
}
"""The files of a bundle and the most bytes each may have."""

_LARGEST_MANIFEST: Final = 4 << 20
_LIBRARIES: Final = ("candlecast", "jax", "keras", "numpy", "onnx", "onnxruntime", "tensorflow")


@dataclass(frozen=True)
class BundleParts:
    """What training hands to the registry; features, target and symbols are the scalers'.

    Attributes:
        keras: bytes of ``model.keras``.
        onnx: the two graphs of the same network.
        scalers: one scaler per symbol.
        timeframe: ccxt timeframe.
        indicators: the periods behind the features.
        lookback: rows of a window.
        units: units of each LSTM layer.
        metrics: scores on data the network was not trained on; finite numbers.
        trained_from_ms: opening time of the first candle it has seen, Unix milliseconds.
        trained_to_ms: opening time of the last one, validation included.
        data_sha256: hash of those candles, 64 hexadecimal digits.
        created_ms: now, Unix milliseconds; becomes part of the version.
        calibration: what `Residuals.to_json` gave; by default no evidence.
    """

    keras: bytes
    onnx: OnnxPair
    scalers: ScalerSet
    timeframe: str
    indicators: Indicators
    lookback: int
    units: tuple[int, ...]
    metrics: Mapping[str, float]
    trained_from_ms: int
    trained_to_ms: int
    data_sha256: str
    created_ms: int
    calibration: str = field(default_factory=lambda: Residuals().to_json())


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        version: its name.
        path: its folder.
        manifest: what it says of itself.
        scalers: one scaler per symbol.
        onnx: the two graphs.
        residuals: what the calibration starts from.
        sha256: hash of the manifest and so, through the hashes in it, of everything.
    """

    version: str
    path: Path
    manifest: Manifest
    scalers: ScalerSet
    onnx: OnnxPair = field(repr=False)
    residuals: Residuals = field(repr=False)
    sha256: str

    def read_keras(self) -> bytes:
        """The bytes of ``model.keras``, verified anew.

        Raises:
            BundleError: the file is gone or has changed.
        """
        return _read_verified(self.path, KERAS_FILE, self.manifest)


def pack(parts: BundleParts) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest of a new bundle, and the content of its other files by name.

    Raises:
        BundleError: a metric that is not a finite number.
    """
    files = {
        KERAS_FILE: parts.keras,
        "prefix.onnx": parts.onnx.prefix,
        "step.onnx": parts.onnx.step,
        "scaler.json": parts.scalers.to_json().encode(),
        "calibration.json": parts.calibration.encode(),
    }
    manifest = Manifest(
        version="",
        timeframe=parts.timeframe,
        features=parts.scalers.features,
        indicators=parts.indicators,
        target=parts.scalers.target,
        lookback=parts.lookback,
        units=parts.units,
        symbols=tuple(parts.scalers.by_symbol),
        metrics={key: as_number(value, f"metric {key}") for key, value in parts.metrics.items()},
        trained_from_ms=parts.trained_from_ms,
        trained_to_ms=parts.trained_to_ms,
        data_sha256=parts.data_sha256,
        libraries=_library_versions(),
        files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    )
    created = datetime.fromtimestamp(parts.created_ms / 1000, UTC)
    digest = hashlib.sha256(manifest.to_json().encode()).hexdigest()
    return replace(manifest, version=f"{created:%Y%m%dT%H%M%SZ}-{digest[:6]}"), files


def _library_versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def open_bundle(path: Path, version: str) -> Bundle:
    """Verify the folder of a version and read what serving needs.

    Every file is read once and its hash compared before anything looks into it.

    Raises:
        BundleError: there is none, or anything about it is not as it was written.
    """
    if path.is_symlink() or not path.is_dir():
        msg = f"there is no model {version} in {path.parent}"
        raise BundleError(msg)
    text = read_limited(path / MANIFEST, _LARGEST_MANIFEST)
    manifest = Manifest.from_json(text)
    if manifest.version != version:
        fail(str(path), f"its manifest belongs to {manifest.version}")
    found = {entry.name for entry in path.iterdir()}
    if manifest.files.keys() != LARGEST.keys() or found != {MANIFEST, *LARGEST}:
        odd = sorted((found ^ {MANIFEST, *LARGEST}) | (manifest.files.keys() ^ LARGEST.keys()))
        fail(str(path), f"has missing or additional files: {ascii(odd)[:200]}")
    data = {name: _read_verified(path, name, manifest) for name in LARGEST}
    try:
        # Serving does not need it. It is refused here all the same: nobody shall ever load it.
        check_keras_content(io.BytesIO(data[KERAS_FILE]), str(path / KERAS_FILE))
    except ValueError as error:
        raise BundleError(str(error)) from None
    scalers = ScalerSet.from_json(data["scaler.json"])
    ours = (scalers.features, scalers.target, set(scalers.by_symbol))
    if ours != (manifest.features, manifest.target, set(manifest.symbols)):
        fail(str(path), "scaler.json and manifest.json differ in features, target or symbols")
    return Bundle(
        version=version,
        path=path,
        manifest=manifest,
        scalers=scalers,
        onnx=OnnxPair(data["prefix.onnx"], data["step.onnx"]),
        residuals=Residuals.from_json(data["calibration.json"]),
        sha256=hashlib.sha256(text).hexdigest(),
    )


def _read_verified(path: Path, name: str, manifest: Manifest) -> bytes:
    data = read_limited(path / name, LARGEST[name])
    if hashlib.sha256(data).hexdigest() != manifest.files[name]:
        fail(str(path / name), "has changed since it was written (SHA-256 differs)")
    return data
