"""Test the record of decisions: reading back, the limit and damaged lines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.core.errors import BundleError
from model.registry import decisions
from model.registry.decisions import DECISIONS, DecisionEntry
from model.registry.registry import Registry
from model.stats.promotion_gate import Decision
from tests.support.bundles import NOON_MS, parts

GATE = Decision(
    promote=False,
    rule="symbol_worse",
    reason="error ratio 0.9990 against the champion's 1.0002, but on A/B worse",
    n=3000,
    candles=1000,
    symbols=3,
    from_ms=NOON_MS,
    to_ms=NOON_MS + 60_000_000,
    challenger_ratio=0.999,
    champion_ratio=1.0002,
    gain=0.0012,
    standard_error=0.0004,
    critical=1.66,
    detectable=0.001,
    worse=(2,),
)
ENTRY = DecisionEntry(NOON_MS, "keep", "retrain", "20261123T020000Z-3f9a1c", None, GATE)


def test_decisions_come_back_in_order(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    assert registry.decisions() == []
    first = replace(ENTRY, champion="20261122T020000Z-aaaaaa")
    second = DecisionEntry(NOON_MS + 1, "promote", "hand", "20261123T020000Z-3f9a1c", None)
    registry.record_decision(first)
    registry.record_decision(second)
    assert registry.decisions() == [first, second]
    (line, _) = (registry.root / DECISIONS).read_text().splitlines()
    assert json.loads(line)["gate"]["detectable"] == 0.001
    # It is no model, and no writer removes it.
    registry.write(parts())
    assert len(registry.list()) == 1
    assert len(registry.decisions()) == 2


def test_only_so_many_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "MAX_DECISIONS", 5)
    registry = Registry(tmp_path / "registry")
    for number in range(12):
        registry.record_decision(replace(ENTRY, at_ms=number))
    assert [entry.at_ms for entry in registry.decisions()] == [7, 8, 9, 10, 11]


def test_a_damaged_line_affects_no_other(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    registry.record_decision(ENTRY)
    path = registry.root / DECISIONS
    path.write_bytes(b'{"at_ms": 1}\n\xff\xff\n' + path.read_bytes() + b'{"at_')
    assert registry.decisions() == [ENTRY]
    registry.record_decision(ENTRY)
    assert path.read_text() == 2 * f"{ENTRY.to_json()}\n"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("action", "delete"),
        ("by", "nobody"),
        ("version", "../../etc"),
        ("champion", 5),
        ("at_ms", "now"),
        ("gate", {"promote": True}),
        ("gate", json.loads(ENTRY.to_json())["gate"] | {"worse": 5}),
        ("gate", json.loads(ENTRY.to_json())["gate"] | {"gain": "large"}),
    ],
)
def test_an_impossible_decision_is_refused(key: str, value: Any) -> None:
    with pytest.raises(BundleError, match=r"decisions\.jsonl"):
        DecisionEntry.from_json(json.dumps(json.loads(ENTRY.to_json()) | {key: value}))


@given(st.binary() | st.text())
def test_no_line_raises_anything_but_a_bundle_error(text: bytes | str) -> None:
    with pytest.raises(BundleError):
        DecisionEntry.from_json(text)


def test_a_report_is_removed_with_its_model(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    versions = [registry.write(parts(number)) for number in range(3)]
    for version in versions:
        registry.report(version).parent.mkdir(exist_ok=True)
        registry.report(version).write_text("page")
        registry.report(version).with_suffix(".png").write_bytes(b"plot")
    registry.promote(versions[0])
    assert registry.prune(keep=1) == (versions[1],)
    left = {path.name for path in (registry.root / "reports").iterdir()}
    assert left == {f"{version}{end}" for version in versions[::2] for end in (".md", ".png")}
