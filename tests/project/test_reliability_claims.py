"""Check that every test named in docs/reliability.md exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
ROWS = [
    row for row in re.findall(r"^\| (.+) \|$", PAGE, re.MULTILINE) if row != "Promise | Held by"
]


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_named_test_exists(file: str, name: str) -> None:
    text = (REPOSITORY / file).read_text(encoding="utf-8")
    assert re.search(rf"^(?:async )?def {name}\(|^{name} = ", text, re.MULTILINE)


def test_every_promise_names_a_test() -> None:
    assert len(ROWS) > 30
    for row in ROWS:
        assert "::test_" in row or "::Test" in row, row


def test_every_promise_is_listed_once() -> None:
    promises = [row.split(" | ", 1)[0] for row in ROWS]
    assert len(set(promises)) == len(promises)
    tests = [frozenset(re.findall(r"::(\w+)", row)) for row in ROWS]
    assert len(set(tests)) == len(tests)
