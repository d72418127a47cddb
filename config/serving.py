"""Sections about how the daemon runs and where it speaks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    SecretStr,
    field_validator,
    model_validator,
)

from config.base import Port, Section, Text
from model.errors import ConfigError

_MOST_THRESHOLD: Final = 0.5


def _topic_level(text: str) -> str:
    if any(char in text for char in "/+#\0"):
        msg = "is one level of an MQTT topic and may not hold / + # or NUL"
        raise ValueError(msg)
    return text


def _threshold(value: object) -> Literal["auto"] | float:
    if value == "auto":
        return "auto"
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not 0.0 < number <= _MOST_THRESHOLD:
        msg = f"is neither auto nor a return above 0 and up to {_MOST_THRESHOLD}"
        raise ValueError(msg)
    return number


class Inference(Section):
    """Running the network."""

    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="where the network runs")
    latency_budget_ms: float = Field(
        50.0, gt=0, le=60_000, description="from the closing message to a forecast ready to send"
    )
    max_batch: int = Field(1024, ge=1, le=65_536, description="symbols per call, a power of two")
    threads: int = Field(1, ge=1, le=256, description="threads of ONNX Runtime")
    forming: bool = Field(default=False, description="forecast from forming candles, too")
    forming_interval_ms: float = Field(
        250.0, ge=1, le=3_600_000, description="least time between two such forecasts of a symbol"
    )

    @field_validator("max_batch")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            msg = "must be a power of two, for batches are padded to powers of two"
            raise ValueError(msg)
        return value


class Mqtt(Section):
    """The broker that carries forecasts."""

    host: Text = Field("127.0.0.1", description="broker's host")
    port: Port = Field(1883, description="broker's port")
    version: Literal["5", "3.1.1"] = Field("5", description="protocol")
    instance: Annotated[Text, AfterValidator(_topic_level)] | None = Field(
        None, description="this daemon's name in topics and payloads; null: the host name"
    )
    username: Text | None = Field(None, description="user name")
    password: SecretStr | None = Field(None, description="password; from the environment alone")
    password_file: Path | None = Field(None, description="file that holds the password")
    keepalive_s: int = Field(30, ge=1, le=65_535, description="seconds between signs of life")
    outbox_size: int = Field(
        4096, ge=1, le=1_000_000, description="forecasts kept while the broker is away"
    )

    @field_validator("version", mode="before")
    @classmethod
    def _number_or_text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password is not None and self.password_file is not None:
            msg = "has both password and password_file; keep one of them"
            raise ValueError(msg)
        return self

    def read_password(self) -> str | None:
        """The password from the environment or its file, None where neither is set.

        Raises:
            ConfigError: the file cannot be read.
        """
        if self.password is not None:
            return self.password.get_secret_value()
        if self.password_file is None:
            return None
        try:
            return self.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            msg = f"mqtt.password_file: cannot read {self.password_file}: {reason}"
            raise ConfigError(msg) from None


class Http(Section):
    """Metrics and health pages."""

    host: Text = Field("127.0.0.1", description="address to listen on")
    port: int = Field(9108, ge=0, le=65_535, description="port; 0: one that is free")


class Metrics(Section):
    """Prometheus series."""

    max_symbols: int = Field(100, ge=0, le=10_000, description="symbols with series of their own")


class Accuracy(Section):
    """Forecasts against what happened."""

    window: int = Field(1440, ge=2, le=100_000, description="candles in a rolling figure")
    min_n: int = Field(200, ge=2, description="scored forecasts before a figure is shown")

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.min_n > self.window:
            msg = f"min_n {self.min_n} must not exceed window {self.window}"
            raise ValueError(msg)
        return self


class Calibration(Section):
    """Intervals around a forecast."""

    level: float = Field(0.9, ge=0.5, le=0.98, description="share of closes inside the interval")
    gamma: float = Field(
        0.005, gt=0, le=0.02, description="step of the adaptation after every candle"
    )


class Signal(Section):
    """Probabilities short, neutral and long."""

    threshold: Annotated[Literal["auto"] | float, PlainValidator(_threshold)] = Field(
        "auto", description="return between neutral and not, as a fraction; auto: with volatility"
    )
    multiple: float = Field(
        0.6, gt=0, le=20, description="auto threshold in moves that half of the candles exceed"
    )


class History(Section):
    """Candles and forecasts in SQLite."""

    keep_days: int = Field(90, ge=1, le=36_500, description="days before a row is deleted")


class Logging(Section):
    """What the daemon says about itself."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least level")


class Paths(Section):
    """Folders."""

    state: Path | None = Field(
        None,
        description="registry and history; null: $STATE_DIRECTORY, else state/ beside the file",
    )
    data: Path = Field(Path("data"), description="candle CSVs, relative to the working directory")
    models: Path = Field(Path("models"), description="what training leaves outside the registry")
