"""Test that the documented figures of training are those of the installed backend."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed() -> str:
    """The backend that `model.lstm_model` chooses from what `make install` installs."""
    lock = (ROOT / "systemd" / "requirements.lock").read_text(encoding="utf-8")
    locked = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    assert {"keras", "tensorflow"} <= locked
    return "jax" if "jax" in locked else "tensorflow"


@pytest.mark.parametrize(
    "figure",
    [
        r"^The service trains on (\w+):",
        r"^A whole run over [\d,]+ windows on (\w+): \d+ epochs",
        r"^(\w+), [\d,]+ forecasts judged",
    ],
)
def test_the_page_has_the_figures_of_the_installed_backend(installed: str, figure: str) -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert re.findall(figure, page, re.MULTILINE) == [installed]
