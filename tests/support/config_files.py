"""Write configuration files and read the refusals of broken ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import load
from model.core.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "candlecast.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(write(folder, text), environ or {})
    return str(caught.value)
