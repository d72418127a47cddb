"""The output and the effects of `candlecast models`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.jobs.models import models_command
from model.core.errors import BundleError
from model.registry.registry import Registry
from tests.model.registry.test_decisions import ENTRY
from tests.support.bundles import NOON_MS, parts

DAY_MS = 86_400_000


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def printed(registry: Registry, action: str, version: str | None = None) -> str:
    return "\n".join(models_command(registry, action, version, NOON_MS + 3 * DAY_MS))


def test_promoting_by_hand_shows_the_skill_and_is_recorded(registry: Registry) -> None:
    first, second = registry.write(parts(0)), registry.write(parts(1))
    promoted = printed(registry, "promote", first)
    assert promoted.splitlines()[-1] == f"champion: {first}"
    assert "error ÷ last-value error on its test candles 1.0000" in promoted
    printed(registry, "promote", second)
    assert printed(registry, "rollback").splitlines()[-1] == f"champion: {first}"
    decisions = [(e.action, e.by, e.version, e.champion) for e in registry.decisions()]
    assert decisions == [
        ("promote", "hand", first, None),
        ("promote", "hand", second, first),
        ("rollback", "hand", first, second),
    ]


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ((0.9987, 1.0010), "no significant difference"),
        ((0.9970, 0.9999), "better"),
        ((1.0001, 1.0020), "worse"),
    ],
)
def test_a_ratio_below_1_within_noise_is_not_called_better(
    registry: Registry, ends: tuple[float, float], verdict: str
) -> None:
    metrics = {"mae_ratio": 0.9999, "mae_ratio_low": ends[0], "mae_ratio_high": ends[1]}
    version = registry.write(replace(parts(0), metrics=metrics))
    line = printed(registry, "promote", version).splitlines()[0]
    interval = f"(95 %: {ends[0]:.4f} to {ends[1]:.4f})"
    assert line.endswith(f"on its test candles 0.9999 {interval}: {verdict}")


def test_the_list_contains_models_and_decisions(registry: Registry) -> None:
    first, second = registry.write(parts(0)), registry.write(parts(1))
    printed(registry, "promote", first)
    registry.record_decision(replace(ENTRY, version=second, champion=first))
    one, other, _, head, promoted, kept = printed(registry, "list").splitlines()
    assert one.startswith(f"{first}  champion  15m log_return, 1 symbol, trained to ")
    assert one.endswith("3.0 days old, error ÷ last-value error 1.0000")
    assert other.startswith(f"{second}            15m")
    assert head == "Decisions, newest last:"
    assert promoted.endswith(f"{first} promoted by hand (champion before: none)")
    assert f"{second} not promoted by the nightly gate: error ratio 0.9990 against" in kept
    assert (
        "(symbol_worse; 1000 candles, n 3000, standard error 0.000400, detectable 0.001000" in kept
    )


@pytest.mark.parametrize("pointer", ["champion", "previous"])
def test_with_a_damaged_pointer_the_models_are_listed_and_one_is_promoted(
    registry: Registry, pointer: str
) -> None:
    first, second = registry.write(parts(0)), registry.write(parts(1))
    printed(registry, "promote", first)
    printed(registry, "promote", second)
    (registry.root / pointer).write_text("nonsense")
    listed = printed(registry, "list")
    assert all(f"\n{version}  " in f"\n{listed}" for version in (first, second))
    assert f"{pointer}: holds 'nonsense' instead of a version" in listed
    assert printed(registry, "promote", first).splitlines()[-1] == f"champion: {first}"
    assert "nonsense" not in printed(registry, "list")


def test_a_decision_that_cannot_be_recorded_prevents_no_rollback(registry: Registry) -> None:
    first, second = registry.write(parts(0)), registry.write(parts(1))
    registry.promote(first)
    registry.promote(second)
    (registry.root / "decisions.jsonl").mkdir()
    lines = models_command(registry, "rollback", None, NOON_MS)
    # The change is printed before the failure to record it.
    assert next(lines).startswith(first)
    assert next(lines) == f"champion: {first}"
    assert registry.champion() == first
    with pytest.raises(BundleError, match=r"decisions\.jsonl: is not a regular file"):
        next(lines)


def test_a_long_list_of_decisions_names_the_file(registry: Registry) -> None:
    version = registry.write(parts())
    for _ in range(25):
        registry.record_decision(replace(ENTRY, version=version))
    lines = printed(registry, "list").splitlines()
    assert len(lines) == 1 + 2 + 20
    assert "(5 earlier ones in " in lines[2]
    assert "decisions.jsonl)" in lines[2]


def test_showing_a_model_includes_its_decisions(registry: Registry) -> None:
    first, second = registry.write(parts(0)), registry.write(parts(1))
    printed(registry, "promote", first)
    registry.record_decision(replace(ENTRY, version=second, champion=first))
    shown = json.loads(printed(registry, "show"))
    assert (shown["version"], shown["role"], shown["report"]) == (first, "champion", None)
    assert shown["age_days"] == 3.0
    assert [entry["action"] for entry in shown["decisions"]] == ["promote", "keep"]
    other = json.loads(printed(registry, "show", second))
    assert (other["role"], len(other["decisions"])) == ("", 1)
    assert other["decisions"][0]["gate"]["challenger_ratio"] == 0.999
