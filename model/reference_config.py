"""Read the configuration for the reference classes; alone in `model`, it imports `config`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from config.settings import Indicators, Model, read_yaml
from model.core.candle import Timeframe
from model.core.errors import ConfigError


def trading_of(config: dict[str, Any]) -> tuple[tuple[str, ...], Timeframe | None]:
    """Return the symbols of the `trading` section and its timeframe; None without one.

    Raises:
        ConfigError: it is not a section, or its timeframe is invalid.
    """
    section = config.get("trading") or {}
    if not isinstance(section, dict):
        msg = f"trading must be a section with keys of its own, not {section!r}"
        raise ConfigError(msg)
    symbols = section.get("symbols") or section.get("symbol") or ()
    listed = (symbols,) if isinstance(symbols, str) else tuple(map(str, symbols))
    text = section.get("timeframe")
    return listed, None if text is None else Timeframe.parse(str(text))


def max_filled_of(config: dict[str, Any]) -> float:
    """Return `model.max_filled`.

    Raises:
        ConfigError: it is not a share.
    """
    share = config["model"]["max_filled"]
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        msg = f"model.max_filled is {share!r}; it must be a number from 0 to 1"
        raise ConfigError(msg)
    return float(share)


def trains_over_stretches(config: dict[str, Any]) -> bool:
    """Return whether `model.training` is "stretches".

    Raises:
        ConfigError: it is neither that nor "windows".
    """
    training = config["model"]["training"]
    if training not in ("stretches", "windows"):
        msg = f"model.training is {training!r}; it must be one of stretches, windows"
        raise ConfigError(msg)
    return bool(training == "stretches")


def load_config(path: str | Path) -> dict[str, Any]:
    """Read a configuration file and add the defaults of `model` and `indicators`.

    Other sections are returned unchanged: they belong to the daemon.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it is not YAML, or one of the two sections is not a mapping.
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
