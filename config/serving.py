"""Define the settings of inference, MQTT, HTTP, scoring, logging and folders."""

from __future__ import annotations

import ipaddress
import math
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from config.named_files import SYSTEM, read_secret
from config.section import Port, Section, Text

_MAX_THRESHOLD: Final = 0.5


def _topic_level(text: str) -> str:
    if any(char in text for char in "/+#\0"):
        msg = "is one level of an MQTT topic and may not hold / + # or NUL"
        raise ValueError(msg)
    return text


def _host(text: str) -> str:
    """Accept a host name or an address, refuse the other parts of a URL."""
    if "/" in text:
        msg = "is a name or an address, without a scheme or a path; the port is a setting"
        raise ValueError(msg)
    if text.startswith("["):
        msg = "is an address without brackets, such as ::1"
        raise ValueError(msg)
    if text.count(":") == 1:
        msg = "is a name or an address without a port, which is a setting"
        raise ValueError(msg)
    return text


Host = Annotated[Text, AfterValidator(_host)]
HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,253}$")]


def _pair(certificate: Path | None, key: Path | None) -> None:
    if (certificate is None) != (key is None):
        msg = "needs certificate_file and key_file, or none of them"
        raise ValueError(msg)


def _secret(value: SecretStr | None, file: Path | None, setting: str) -> str | None:
    if value is not None:
        return value.get_secret_value()
    return None if file is None else read_secret(file, setting)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on ``host``; the only known name is localhost.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "here.lan")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _threshold(value: object) -> Literal["auto"] | float:
    if value == "auto":
        return "auto"
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not 0.0 < number <= _MAX_THRESHOLD:
        msg = f"is neither auto nor a return above 0 and up to {_MAX_THRESHOLD}"
        raise ValueError(msg)
    return number


class Inference(Section):
    """Running the network."""

    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="where the network runs")
    latency_budget_ms: float = Field(
        50.0, gt=0, le=60_000, description="from the closing message to a forecast ready to send"
    )
    forming: bool = Field(default=False, description="forecast forming candles too")


class MqttTls(Section):
    """TLS of the broker connection."""

    ca_file: Path | None = Field(
        None, description="authority's certificate (PEM); `system`: this machine's authorities"
    )
    certificate_file: Path | None = Field(None, description="client certificate (PEM)")
    key_file: Path | None = Field(None, description="its key (PEM, without a passphrase)")

    @property
    def trusts_machine(self) -> bool:
        """Whether the machine's own authorities are used."""
        return self.ca_file == Path(SYSTEM)

    @model_validator(mode="after")
    def _in_pairs(self) -> Self:
        _pair(self.certificate_file, self.key_file)
        if self.certificate_file is not None and self.ca_file is None:
            msg = "has a certificate_file but no ca_file, without which there is no TLS"
            raise ValueError(msg)
        return self


class Mqtt(Section):
    """The MQTT broker."""

    host: Host = Field("127.0.0.1", description="broker's host")
    port: Port = Field(1883, description="broker's port")
    version: Literal["5", "3.1.1"] = Field("5", description="protocol")
    instance: Annotated[Text, AfterValidator(_topic_level)] | None = Field(
        None, description="this daemon's name in topics and payloads; null: the host name"
    )
    username: Text | None = Field(None, description="user name")
    password: SecretStr | None = Field(None, description="password; only from the environment")
    password_file: Path | None = Field(None, description="file that holds the password")
    tls: MqttTls = Field(MqttTls(), description="encryption")
    keepalive_s: int = Field(30, ge=1, le=65_535, description="seconds between keep-alive packets")

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
        """The password from the environment or its file; None if neither is set.

        Raises:
            ConfigError: the file cannot be read.
        """
        return _secret(self.password, self.password_file, "mqtt.password_file")


class HttpTls(Section):
    """TLS of the pages."""

    certificate_file: Path | None = Field(None, description="the server's certificate (PEM)")
    key_file: Path | None = Field(None, description="its key (PEM, without a passphrase)")

    @model_validator(mode="after")
    def _in_pairs(self) -> Self:
        _pair(self.certificate_file, self.key_file)
        return self


class Http(Section):
    """Metrics, health and status pages."""

    host: Host = Field("127.0.0.1", description="address to listen on")
    port: int = Field(9108, ge=0, le=65_535, description="port; 0: one that is free")
    names: tuple[HostName, ...] = Field((), description="host names of the pages, without a port")
    username: Text | None = Field(None, description="user name; null: no login")
    password: SecretStr | None = Field(None, description="password; only from the environment")
    password_file: Path | None = Field(None, description="file that holds the password")
    tls: HttpTls = Field(HttpTls(), description="encryption")

    @model_validator(mode="after")
    def _protected_unless_loopback(self) -> Self:
        secrets = (self.password is not None) + (self.password_file is not None)
        if secrets != (self.username is not None):
            msg = "needs username and one of password and password_file, or none of them"
            raise ValueError(msg)
        protected = self.username is not None and self.tls.certificate_file is not None
        if not protected and not is_loopback(self.host):
            msg = (
                f"host {self.host} can be reached from other machines: set username, password_file "
                "and tls, or host 127.0.0.1"
            )
            raise ValueError(msg)
        return self

    def read_login(self) -> tuple[str, str] | None:
        """User name and password; None without a login.

        Raises:
            ConfigError: the password's file cannot be read.
        """
        password = _secret(self.password, self.password_file, "http.password_file")
        return None if self.username is None or password is None else (self.username, password)


class Metrics(Section):
    """Prometheus series."""

    max_symbols: int = Field(100, ge=0, le=10_000, description="symbols with series of their own")


class Accuracy(Section):
    """Scores of past forecasts."""

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
    """The daemon's log."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least level")
    format: Literal["text", "json"] = Field("text", description="text lines or JSON objects")


class Paths(Section):
    """Folders."""

    state: Path | None = Field(
        None,
        description="registry and history; null: $STATE_DIRECTORY, else state/ beside the file",
    )
    data: Path = Field(Path("data"), description="candle CSVs, relative to the working directory")
    models: Path = Field(Path("models"), description="training output outside the registry")
