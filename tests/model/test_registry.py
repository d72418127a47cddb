"""The registry: what was written comes back, and nothing else is ever opened."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.engine import OnnxPair
from model.errors import BundleError, NoChampion
from model.features import LOG_RETURN_FEATURES, Indicators
from model.registry import BundleParts, Manifest, Registry, check_fit
from model.scaler import ScalerSet, SymbolScaler

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
    return BundleParts(
        keras=b"keras" + tag,
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
        calibration=json.dumps({"number": number}),
    )


def numbers_in(registry: Registry, version: str) -> set[int]:
    """The numbers that the parts of an opened bundle carry: one, unless it is mixed."""
    bundle = registry.open(version)
    return {
        int(bundle.read_keras()[5:]),
        int(bundle.onnx.prefix[6:]),
        int(bundle.onnx.step[4:]),
        int(-bundle.scalers.by_symbol["BTC/USDT"].feature_min[0]),
        int(bundle.manifest.metrics["mae_ratio"] - 1),
        int(bundle.calibration["number"]),
    }


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "state" / "registry")


def test_what_was_written_comes_back(registry: Registry) -> None:
    version = registry.write(parts(3))
    assert version.startswith("20261123T120003Z-")
    assert sorted(entry.name for entry in (registry.root / version).iterdir()) == list(
        VERSION_FILES
    )
    bundle = registry.open(version)
    assert numbers_in(registry, version) == {3}
    assert bundle.version == bundle.manifest.version == version
    assert bundle.manifest.features == LOG_RETURN_FEATURES
    assert bundle.manifest.symbols == ("BTC/USDT",)
    assert bundle.manifest.indicators == Indicators()
    assert bundle.manifest.libraries["numpy"] == np.__version__
    text = (bundle.path / "manifest.json").read_bytes()
    assert bundle.sha256 == hashlib.sha256(text).hexdigest()
    assert Manifest.from_json(text).to_json().encode() == text
    assert registry.write(parts(3)) == version
    assert registry.list() == [version]


def test_an_empty_registry_has_no_champion(registry: Registry) -> None:
    assert registry.list() == []
    with pytest.raises(NoChampion, match="train one with --promote"):
        registry.champion()
    assert registry.previous() is None
    with pytest.raises(BundleError, match="no previous model"):
        registry.rollback()
    with pytest.raises(BundleError, match="there is no model"):
        registry.promote("20261123T120000Z-aaaaaa")


def test_promotion_and_rollback_move_the_pointers(registry: Registry) -> None:
    first, second, third = (registry.write(parts(n)) for n in range(3))
    registry.promote(first)
    assert (registry.champion(), registry.previous()) == (first, None)
    registry.promote(second)
    registry.promote(second)
    assert (registry.champion(), registry.previous()) == (second, first)
    assert registry.rollback() == first
    assert (registry.champion(), registry.previous()) == (first, second)
    assert registry.rollback() == second
    registry.promote(third)
    assert (registry.champion(), registry.previous()) == (third, second)


def test_pruning_spares_champion_and_previous(registry: Registry) -> None:
    versions = [registry.write(parts(n)) for n in range(6)]
    registry.promote(versions[1])
    registry.promote(versions[0])
    assert registry.prune(keep=2) == tuple(versions[2:4])
    assert registry.list() == [*versions[:2], *versions[4:]]
    assert registry.prune(keep=0) == tuple(versions[4:])
    assert registry.list() == versions[:2]


def test_a_champion_that_does_not_verify_is_not_promoted(registry: Registry) -> None:
    first, second = registry.write(parts(1)), registry.write(parts(2))
    registry.promote(first)
    (registry.root / second / "step.onnx").write_bytes(b"step1")
    with pytest.raises(BundleError, match=r"step\.onnx: has changed"):
        registry.promote(second)
    assert registry.champion() == first


@pytest.mark.parametrize("version", ["", "..", "champion", "../x", "20261123T120000Z-AAAAAA"])
def test_only_versions_are_opened(registry: Registry, version: str) -> None:
    with pytest.raises(BundleError, match="not a version"):
        registry.open(version)


@pytest.mark.parametrize("content", ["", "../../etc", "x" * 200, "\0", "20261123T120000Z-aaaaaag"])
def test_a_damaged_pointer_is_refused(registry: Registry, content: str) -> None:
    registry.write(parts())
    (registry.root / "champion").write_text(content)
    with pytest.raises(BundleError, match="champion: "):
        registry.champion()


def test_a_pointer_that_is_a_link_is_refused(registry: Registry) -> None:
    version = registry.write(parts())
    (registry.root / "elsewhere").write_text(version)
    (registry.root / "champion").symlink_to(registry.root / "elsewhere")
    with pytest.raises(BundleError, match="champion: cannot be read"):
        registry.champion()


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def resign(folder: Path, **changes: object) -> None:
    """What somebody who can write into the folder would do: correct hashes, changed fields."""
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
    resign(folder)


def huge_file(folder: Path) -> None:
    with (folder / "scaler.json").open("r+b") as file:
        file.truncate(1 << 40)


def huge_manifest(folder: Path) -> None:
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)


def huge_window(folder: Path) -> None:
    resign(folder, lookback=10**12)


def huge_units(folder: Path) -> None:
    resign(folder, units=[10**9])


def huge_period(folder: Path) -> None:
    indicators = json.loads((folder / "manifest.json").read_text())["indicators"]
    resign(folder, indicators=indicators | {"bb_period": 10**12})


def impossible_periods(folder: Path) -> None:
    indicators = json.loads((folder / "manifest.json").read_text())["indicators"]
    resign(folder, indicators=indicators | {"macd_fast": 99})


def unknown_feature(folder: Path) -> None:
    resign(folder, features=[*LOG_RETURN_FEATURES[:5], "tomorrow"])


def other_order_of_features(folder: Path) -> None:
    resign(folder, features=LOG_RETURN_FEATURES[::-1])


def other_target(folder: Path) -> None:
    resign(folder, target="close")


def no_such_target(folder: Path) -> None:
    resign(folder, target="__import__")


def other_symbols(folder: Path) -> None:
    resign(folder, symbols=["ETH/USDT"])


def repeated_symbol(folder: Path) -> None:
    resign(folder, symbols=["BTC/USDT", "BTC/USDT"])


def symbols_that_are_none(folder: Path) -> None:
    resign(folder, symbols="BTC/USDT")


def other_schema(folder: Path) -> None:
    resign(folder, schema=2)


def unknown_key(folder: Path) -> None:
    resign(folder, custom_objects={})


def no_timeframe(folder: Path) -> None:
    resign(folder, timeframe="1M")


def infinite_metric(folder: Path) -> None:
    resign(folder, metrics={"mae_ratio": float("inf")})


def other_version(folder: Path) -> None:
    resign(folder, version="20261123T120000Z-aaaaaa")


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


def test_keras_bytes_are_verified_again_when_they_are_read(registry: Registry) -> None:
    bundle = registry.open(registry.write(parts()))
    (bundle.path / "model.keras").write_bytes(b"keras1")
    with pytest.raises(BundleError, match="has changed"):
        bundle.read_keras()


def test_parts_that_could_not_be_opened_are_not_written(registry: Registry) -> None:
    for bad in (
        replace(parts(), timeframe="1M"),
        replace(parts(), lookback=0),
        replace(parts(), metrics={"mae_ratio": float("nan")}),
        replace(parts(), data_sha256="unknown"),
        replace(parts(), calibration="[]"),
    ):
        with pytest.raises(BundleError):
            registry.write(bad)
    assert registry.list() == []
    registry.write(parts())
    assert not list(registry.root.glob(".unfinished*"))


@given(st.binary() | st.text())
def test_no_manifest_text_raises_anything_but_a_bundle_error(text: bytes | str) -> None:
    with pytest.raises(BundleError):
        Manifest.from_json(text)


def test_a_model_that_fits_is_let_pass_and_others_are_told_why(registry: Registry) -> None:
    version = registry.write(parts())
    manifest = registry.open(version).manifest
    wanted: dict[str, Any] = {
        "timeframe": "15m",
        "features": LOG_RETURN_FEATURES,
        "indicators": Indicators(),
        "target": "log_return",
        "lookback": 60,
    }
    check_fit(manifest, **wanted)
    with pytest.raises(BundleError) as refused:
        check_fit(manifest, **wanted | {"timeframe": "1m"})
    assert str(refused.value) == (
        f"model {version} was trained for timeframe 15m but trading.timeframe is 1m: set what the "
        "model has, or train a model with yours: candlecast train --promote"
    )
    with pytest.raises(BundleError) as refused:
        check_fit(manifest, **wanted | {"lookback": 30, "indicators": Indicators(rsi_period=7)})
    assert "lookback_periods 60 but model.lookback_periods is 30" in str(refused.value)
    assert "rsi_period 14 but indicators.rsi_period is 7" in str(refused.value)


WRITER = """
import sys
from pathlib import Path
from itertools import count
sys.path[:0] = sys.argv[2:4]
from tests_registry import Registry, parts

registry = Registry(Path(sys.argv[1]))
for number in count(int(sys.argv[4])):
    registry.promote(registry.write(parts(number)))
    print(number, flush=True)
    if number % 3 == 2:
        registry.rollback()
        registry.prune(keep=2)
"""


def test_a_killed_writer_leaves_the_old_state_or_the_new_one(
    registry: Registry, tmp_path: Path, repository: Path
) -> None:
    shutil.copy(__file__, tmp_path / "tests_registry.py")
    dice = Random(20261123)
    for start in range(0, 5000, 1000):
        arguments = [str(registry.root), str(repository), str(tmp_path), str(start)]
        command = [sys.executable, "-c", WRITER, *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == f"{start}\n".encode()
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(dice.uniform(0.0, 0.1))
            writer.send_signal(signal.SIGKILL)
        versions = registry.list()
        assert registry.champion() in versions
        assert registry.previous() in {None, *versions}
        for version in versions:
            assert len(numbers_in(registry, version)) == 1
    registry.promote(registry.write(parts(10_000)))
    assert not list(registry.root.glob(".unfinished*"))
