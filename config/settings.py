"""Load and validate the settings from a YAML file and ``CANDLECAST__SECTION__KEY`` variables.

The environment overrides the file, and the file overrides the defaults. An unknown key or an
invalid value is refused with the path of its key, its value (unless it may be a secret) and what is
allowed. Settings that earlier versions had are ignored; `Settings.ignored` lists them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, ValidationError, field_validator

from config.forecasting import Exchange, Indicators, Model, Trading
from config.named_files import check_folder, finder, with_files_found
from config.retired import without_retired
from config.retraining import Registry, Retrain
from config.section import Section
from config.serving import (
    Accuracy,
    Calibration,
    History,
    Http,
    Inference,
    Logging,
    Metrics,
    Mqtt,
    Paths,
    Signal,
)
from config.yaml_loader import explain, overlay, read_mapping, retired_variables
from model.core.errors import ConfigError

__all__ = ["Indicators", "Model", "Settings", "load", "read_yaml"]


class Settings(Section):
    """Every setting of candlecast; made by :func:`load`."""

    exchange: Exchange = Field(Exchange(), description="the exchange")
    trading: Trading = Field(Trading(), description="forecast symbols and their timeframe")
    model: Model = Field(Model(), description="the network and its training")
    indicators: Indicators = Field(Indicators(), description="indicator periods")
    inference: Inference = Field(Inference(), description="running the network")
    mqtt: Mqtt = Field(Mqtt(), description="the broker")
    http: Http = Field(Http(), description="metrics and health pages")
    metrics: Metrics = Field(Metrics(), description="Prometheus series")
    accuracy: Accuracy = Field(Accuracy(), description="scores of past forecasts")
    calibration: Calibration = Field(Calibration(), description="intervals around a forecast")
    signal: Signal = Field(Signal(), description="probabilities short, neutral and long")
    history: History = Field(History(), description="candles and forecasts in SQLite")
    registry: Registry = Field(
        Registry(), description="number of models kept, and rules of promotion"
    )
    retrain: Retrain = Field(Retrain(), description="the nightly job")
    logging: Logging = Field(Logging(), description="logging")
    paths: Paths = Field(Paths(), description="folders")

    # Absolute folder of registry and history.
    _state_dir: Path = PrivateAttr(default=Path("state"))
    # Retired settings that the file or the environment holds.
    _ignored: tuple[str, ...] = PrivateAttr(default=())

    @field_validator("*", mode="before")
    @classmethod
    def _empty_section(cls, value: object) -> object:
        """Accept null for a section whose keys are all commented out."""
        return {} if value is None else value

    @property
    def state_dir(self) -> Path:
        """Absolute folder of registry and history."""
        return self._state_dir

    @property
    def ignored(self) -> tuple[str, ...]:
        """Retired settings that were ignored: dotted keys of the file, then variables."""
        return self._ignored

    def check_folders(self) -> None:
        """Check that the folders exist or can be created.

        Raises:
            ConfigError: a folder cannot be used.
        """
        check_folder(self.state_dir, "paths.state")
        check_folder(self.paths.data, "paths.data")
        check_folder(self.paths.models, "paths.models")

    @property
    def registry_dir(self) -> Path:
        """Folder of the model bundles."""
        return self._state_dir / "registry"

    @property
    def instance(self) -> str:
        """This daemon's name in topics and payloads."""
        return self.mqtt.instance or socket.gethostname() or "candlecast"


def shipped() -> Path:
    """Path of the configuration file with every setting at its default."""
    return Path(__file__).with_name("config.yaml")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read the configuration as a plain dictionary, with the overrides of the environment.

    The reference classes read their own sections of it and ignore the rest. Nothing is validated.

    Raises:
        ConfigError: the file is missing, unreadable or not a YAML mapping.
    """
    raw, _ = without_retired(read_mapping(Path(path)))
    return overlay(raw, Settings, os.environ)


def load(path: str | Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read and validate the configuration.

    Raises:
        ConfigError: one line per finding.
    """
    path = Path(path)
    raw, ignored = without_retired(read_mapping(path))
    for section in ("mqtt", "http"):
        if isinstance(raw.get(section), dict) and raw[section].get("password") is not None:
            msg = (
                f"{path}: {section}.password: secrets are refused in this file; "
                f"set CANDLECAST__{section.upper()}__PASSWORD or {section}.password_file"
            )
            raise ConfigError(msg)
    find = finder(path.resolve().parent, environ)
    raw = with_files_found(overlay(raw, Settings, environ), Settings, find)
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(explain(error, Settings, path, environ)) from None
    settings._state_dir = _state_dir(settings.paths.state, path, environ)  # noqa: SLF001
    settings._ignored = (*ignored, *retired_variables(environ))  # noqa: SLF001
    return settings


def _state_dir(configured: Path | None, path: Path, environ: Mapping[str, str]) -> Path:
    """The state folder, independent of the working directory."""
    beside = path.resolve().parent
    if configured is not None:
        return beside / configured
    # systemd separates several folders by colons; the first is the unit's own.
    systemd = environ.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(systemd) if systemd else beside / "state"
