"""Test that the documented figures of training are those of the installed backend."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def installed() -> str:
    """The backend that `model.lstm_model` chooses from what `make install` installs."""
    lock = (ROOT / "systemd" / "requirements.lock").read_text(encoding="utf-8")
    locked = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    assert {"keras", "tensorflow"} <= locked
    return "jax" if "jax" in locked else "tensorflow"


@pytest.mark.parametrize("name", ["training", "night"])
def test_results_are_of_the_installed_backend(installed: str, name: str) -> None:
    result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert result.get("run", result)["backend"] == installed


def test_the_page_names_the_installed_backend(installed: str) -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    section = page.partition("\n## Training\n")[2].partition("\n## ")[0]
    assert f"The service trains on {installed}" in section
