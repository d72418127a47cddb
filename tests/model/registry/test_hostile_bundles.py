"""Test that damaged and malicious bundles are refused."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.core.errors import BundleError
from model.features.definitions import LOG_RETURN_FEATURES
from model.registry.registry import Registry
from tests.support.bundles import VERSION_FILES, numbers_in, parts


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "state" / "registry")


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def sign_again(folder: Path, **changes: object) -> None:
    """What an attacker who can write into the folder could do: correct hashes, changed fields."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in VERSION_FILES
        if name != "manifest.json"
    }
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


def wrong_hash(folder: Path) -> None:
    (folder / "model.keras").write_bytes(b"keras8")


def truncated(folder: Path) -> None:
    with (folder / "prefix.onnx").open("r+b") as file:
        file.truncate(3)


def truncated_manifest(folder: Path) -> None:
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(100)


def missing_file(folder: Path) -> None:
    (folder / "calibration.json").unlink()


def additional_file(folder: Path) -> None:
    (folder / "custom_objects.py").write_text("raise SystemExit")


def additional_h5(folder: Path) -> None:
    (folder / "model.h5").write_bytes(b"\x89HDF")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["model.h5"] = hashlib.sha256(b"\x89HDF").hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def name_outside(folder: Path) -> None:
    (folder.parent / "x").write_bytes(b"keras0")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../x"] = manifest["files"].pop("model.keras")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "model.keras").unlink()


def linked_file(folder: Path) -> None:
    shutil.move(folder / "step.onnx", folder.parent / "step.onnx")
    (folder / "step.onnx").symlink_to(folder.parent / "step.onnx")


def pipe_for_a_file(folder: Path) -> None:
    (folder / "scaler.json").unlink()
    os.mkfifo(folder / "scaler.json")


def folder_for_a_file(folder: Path) -> None:
    (folder / "scaler.json").unlink()
    (folder / "scaler.json").mkdir()


def pickled_scaler(folder: Path) -> None:
    (folder / "scaler.json").write_bytes(pickle.dumps(Bomb(folder.parent / "exploded")))
    sign_again(folder)


def with_keras(folder: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(folder / "model.keras", "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    sign_again(folder)


PLAIN = {"metadata.json": b"{}", "config.json": b"{}", "model.weights.h5": b"0"}


def lambda_layer(folder: Path) -> None:
    layer = {"module": "keras.layers", "class_name": "Lambda", "config": {"function": "os.system"}}
    with_keras(folder, PLAIN | {"config.json": json.dumps({"layers": [layer]}).encode()})


def custom_object(folder: Path) -> None:
    layer = {"module": "os", "class_name": "system", "registered_name": "Custom>x"}
    with_keras(folder, PLAIN | {"config.json": json.dumps(layer).encode()})


def pickled_keras(folder: Path) -> None:
    (folder / "model.keras").write_bytes(pickle.dumps(Bomb(folder.parent / "exploded")))
    sign_again(folder)


def names_outside_in_keras(folder: Path) -> None:
    with_keras(folder, PLAIN | {"../../exploded": b"x"})


def encrypted_keras(folder: Path) -> None:
    with_keras(folder, PLAIN)
    path = folder / "model.keras"
    data = bytearray(path.read_bytes())
    for header, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        for found in re.finditer(re.escape(header), data):
            data[found.start() + flags] |= 1
    path.write_bytes(data)
    sign_again(folder)


def damaged_deflate(folder: Path) -> None:
    squeezed_and_damaged(folder, zipfile.ZIP_DEFLATED)


def damaged_lzma(folder: Path) -> None:
    squeezed_and_damaged(folder, zipfile.ZIP_LZMA)


def squeezed_and_damaged(folder: Path, method: int) -> None:
    with_keras(folder, PLAIN | {"config.json": b"{" + b" " * 2_000 + b"}"}, method)
    path = folder / "model.keras"
    data = bytearray(path.read_bytes())
    squeezed = data.find(b"config.json") + len("config.json")
    for at in range(squeezed + 4, squeezed + 9):
        data[at] ^= 0x5A
    path.write_bytes(data)
    sign_again(folder)


def h5_for_keras(folder: Path) -> None:
    (folder / "model.keras").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    sign_again(folder)


def huge_file(folder: Path) -> None:
    with (folder / "scaler.json").open("r+b") as file:
        file.truncate(1 << 40)


def huge_manifest(folder: Path) -> None:
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)


def huge_window(folder: Path) -> None:
    sign_again(folder, lookback=10**12)


def huge_units(folder: Path) -> None:
    sign_again(folder, units=[10**9])


def huge_period(folder: Path) -> None:
    indicators = json.loads((folder / "manifest.json").read_text())["indicators"]
    sign_again(folder, indicators=indicators | {"bb_period": 10**12})


def impossible_periods(folder: Path) -> None:
    indicators = json.loads((folder / "manifest.json").read_text())["indicators"]
    sign_again(folder, indicators=indicators | {"macd_fast": 99})


def unknown_feature(folder: Path) -> None:
    sign_again(folder, features=[*LOG_RETURN_FEATURES[:5], "tomorrow"])


def other_order_of_features(folder: Path) -> None:
    sign_again(folder, features=LOG_RETURN_FEATURES[::-1])


def other_target(folder: Path) -> None:
    sign_again(folder, target="close")


def no_such_target(folder: Path) -> None:
    sign_again(folder, target="__import__")


def other_symbols(folder: Path) -> None:
    sign_again(folder, symbols=["ETH/USDT"])


def repeated_symbol(folder: Path) -> None:
    sign_again(folder, symbols=["BTC/USDT", "BTC/USDT"])


def symbols_that_are_none(folder: Path) -> None:
    sign_again(folder, symbols="BTC/USDT")


def other_schema(folder: Path) -> None:
    sign_again(folder, schema=2)


def unknown_key(folder: Path) -> None:
    sign_again(folder, custom_objects={})


def no_timeframe(folder: Path) -> None:
    sign_again(folder, timeframe="1M")


def infinite_metric(folder: Path) -> None:
    sign_again(folder, metrics={"mae_ratio": float("inf")})


def other_version(folder: Path) -> None:
    sign_again(folder, version="20261123T120000Z-aaaaaa")


def step_of_another(folder: Path) -> None:
    (folder / "step.onnx").write_bytes(b"step1")


def everything_of_another(folder: Path) -> None:
    other = Registry(folder.parent)
    version = other.write(parts(1))
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / version, folder)


def linked_folder(folder: Path) -> None:
    shutil.move(folder, folder.parent / "elsewhere")
    folder.symlink_to(folder.parent / "elsewhere")


HOSTILE: list[Callable[[Path], None]] = [
    wrong_hash,
    truncated,
    truncated_manifest,
    missing_file,
    additional_file,
    additional_h5,
    name_outside,
    linked_file,
    pipe_for_a_file,
    folder_for_a_file,
    pickled_scaler,
    lambda_layer,
    custom_object,
    pickled_keras,
    names_outside_in_keras,
    encrypted_keras,
    damaged_deflate,
    damaged_lzma,
    h5_for_keras,
    huge_file,
    huge_manifest,
    huge_window,
    huge_units,
    huge_period,
    impossible_periods,
    unknown_feature,
    other_order_of_features,
    other_target,
    no_such_target,
    other_symbols,
    repeated_symbol,
    symbols_that_are_none,
    other_schema,
    unknown_key,
    no_timeframe,
    infinite_metric,
    other_version,
    step_of_another,
    everything_of_another,
    linked_folder,
]


@pytest.mark.parametrize("damage", HOSTILE, ids=lambda damage: damage.__name__)
def test_hostile_bundles_are_refused_and_nothing_of_them_runs(
    registry: Registry, damage: Callable[[Path], None]
) -> None:
    good = registry.write(parts(5))
    registry.promote(good)
    version = registry.write(parts())
    damage(registry.root / version)
    with pytest.raises(BundleError) as refused:
        registry.promote(version)
    assert len(str(refused.value).splitlines()) == 1
    assert not (registry.root / "exploded").exists()
    assert registry.champion() == good
    assert numbers_in(registry, good) == {5}
