"""Test that the registry returns what was written and opens nothing else."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.core.errors import BundleError, NoChampion, Overtaken
from model.features.definitions import LOG_RETURN_FEATURES, Indicators
from model.registry.decisions import DecisionEntry
from model.registry.registry import Manifest, Registry, check_fit
from tests.support.bundles import VERSION_FILES, numbers_in, parts


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "state" / "registry")


def test_a_written_bundle_is_read_back(registry: Registry) -> None:
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


def test_a_decision_moves_the_pointer_only_from_the_champion_it_was_made_about(
    registry: Registry,
) -> None:
    first, second, third = (registry.write(parts(n)) for n in range(3))
    registry.apply_decision(DecisionEntry(1, "promote", "retrain", first, None))
    registry.apply_decision(DecisionEntry(2, "keep", "retrain", second, first))
    assert (registry.champion(), len(registry.decisions())) == (first, 2)
    registry.promote(third)
    for action in ("promote", "keep"):
        with pytest.raises(Overtaken, match=f"{third} became champion while {second} was judged"):
            registry.apply_decision(DecisionEntry(3, action, "retrain", second, first))
    (registry.root / second / "step.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match="has changed"):
        registry.apply_decision(DecisionEntry(3, "promote", "retrain", second, third))
    # No action is reported that did not happen.
    assert (registry.champion(), len(registry.decisions())) == (third, 2)


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


@pytest.mark.parametrize("content", ["", "nonsense"])
def test_promoting_and_rolling_back_mend_a_damaged_pointer(
    registry: Registry, content: str
) -> None:
    first, second, third = (registry.write(parts(n)) for n in range(3))
    registry.promote(first)
    registry.promote(second)
    (registry.root / "champion").write_text(content)
    assert registry.rollback() == first
    assert (registry.champion(), registry.previous()) == (first, None)
    (registry.root / "champion").write_text(content)
    (registry.root / "previous").write_text(content)
    with pytest.raises(BundleError, match="previous: holds"):
        registry.rollback()
    # It is unknown whether the champion's own folder may be removed.
    with pytest.raises(BundleError, match="champion: holds"):
        registry.prune(keep=0)
    registry.promote(second)
    registry.promote(third)
    assert (registry.champion(), registry.previous()) == (third, second)


def test_a_full_disk_is_one_clear_line(registry: Registry) -> None:
    first, second = registry.write(parts(1)), registry.write(parts(2))
    registry.promote(first)
    writes: list[Callable[[], object]] = [
        lambda: registry.write(parts(3)),
        lambda: registry.promote(second),
        lambda: registry.record_decision(DecisionEntry(1, "keep", "hand", second, first)),
    ]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        for write in writes:
            with pytest.raises(BundleError, match="registry cannot be written: File too large"):
                write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (registry.champion(), registry.previous()) == (first, None)
    assert registry.list() == [first, second]
    registry.promote(second)
    assert not list(registry.root.glob(".unfinished*"))


def test_a_pointer_that_is_a_link_is_refused(registry: Registry) -> None:
    version = registry.write(parts())
    (registry.root / "elsewhere").write_text(version)
    (registry.root / "champion").symlink_to(registry.root / "elsewhere")
    with pytest.raises(BundleError, match="champion: cannot be read"):
        registry.champion()


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


def test_a_version_with_an_impossible_time_is_invalid(registry: Registry) -> None:
    version = registry.write(parts())
    impossible = "20269923T120003Z-aaaaaa"
    text = (registry.root / version / "manifest.json").read_text().replace(version, impossible)
    (registry.root / version / "manifest.json").write_text(text)
    (registry.root / version).rename(registry.root / impossible)
    with pytest.raises(BundleError, match="version: has the wrong form"):
        registry.open(impossible)


def test_a_model_that_fits_is_accepted_and_others_are_refused_with_a_reason(
    registry: Registry,
) -> None:
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
import os, sys
from itertools import count
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from model.registry.decisions import DecisionEntry
from tests.support.bundles import Registry, parts

registry = Registry(Path(sys.argv[1]))

def work(start):
    for number in count(start):
        version = registry.write(parts(number))
        champion = registry.champion() if (registry.root / "champion").exists() else None
        registry.apply_decision(DecisionEntry(number, "promote", "retrain", version, champion))
        if number % 3 == 2:
            registry.rollback()
            registry.prune(keep=2)

for line in sys.stdin:
    # A fork is ready at once, so that the kill falls anywhere into the work.
    child = os.fork()
    if child == 0:
        work(int(line))
    print(child, flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


def test_a_killed_writer_leaves_the_old_state_or_the_new_one(
    registry: Registry, repository: Path, rounds: Callable[[int, int], int]
) -> None:
    dice = Random(20261123)
    decided = 0
    command = [sys.executable, "-c", WRITER, str(registry.root), str(repository)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writers:
        assert writers.stdin is not None
        assert writers.stdout is not None
        least = rounds(30, 1000)
        # On a busy machine fewer writers come to a decision before they are killed.
        for turn in count():
            if turn >= least and decided > 20:
                break
            print(1000 * turn, file=writers.stdin, flush=True)
            writer = int(writers.stdout.readline())
            time.sleep(dice.uniform(0.0, 0.2))
            os.kill(writer, signal.SIGKILL)
            assert writers.stdout.readline() == "dead\n"
            decided = whole(registry, decided)
        writers.stdin.close()
    registry.promote(registry.write(parts(2_000_000)))
    assert not list(registry.root.glob(".unfinished*"))


def whole(registry: Registry, decided: int) -> int:
    """Require a registry in which nothing is mixed, cut or lost; how many decisions it knows."""
    versions, entries = registry.list(), registry.decisions()
    path = registry.root / "decisions.jsonl"
    assert len(entries) == (len(path.read_text().splitlines()) if path.exists() else 0)
    assert len(entries) >= decided
    for version in versions:
        assert len(numbers_in(registry, version)) == 1
    if (registry.root / "champion").exists():
        assert registry.champion() in versions
        assert registry.previous() in {None, *versions}
        # The promotion of the served model was recorded before.
        assert registry.champion() in {entry.version for entry in entries}
    return len(entries)
