"""The `model` and `indicators` sections as the two reference classes read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from config.settings import Indicators, Model, read_yaml
from model.errors import ConfigError


def load_config(path: str | Path) -> dict[str, Any]:
    """Read a configuration file and fill in what `model` and `indicators` leave out.

    Other sections are handed through untouched: they belong to the daemon.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: not YAML, or one of the two sections is not a mapping.
    """
    if not Path(path).is_file():
        msg = f"no configuration file at {path}"
        raise FileNotFoundError(msg)
    config = read_yaml(path)
    for section, defaults in (("model", Model()), ("indicators", Indicators())):
        given = config.get(section) or {}
        if not isinstance(given, dict):
            msg = f"{path}: {section} must be a section with keys of its own, not {given!r}"
            raise ConfigError(msg)
        config[section] = {**defaults.model_dump(mode="json"), **given}
    return config
