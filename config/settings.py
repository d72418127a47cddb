"""Settings: the only place that reads YAML and ``CANDLECAST__SECTION__KEY`` variables.

The environment wins over the file, the file over the defaults. Whatever is unknown or impossible is
refused with the path of its key, its value (unless it may be a secret) and what is allowed.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from config.yamlfile import explain, overlay, read_mapping
from model.candle import Timeframe
from model.errors import ConfigError
from model.features import CLOSE_FEATURES, FEATURES, LOG_RETURN_FEATURES

Port = Annotated[int, Field(ge=1, le=65535)]
Period = Annotated[int, Field(ge=2, le=1000)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]
_SYMBOL = r"^[^\s/:+#\x00]+/[^\s/:+#\x00]+(:[^\s/:+#\x00]+)?$"
Symbol = Annotated[str, StringConstraints(pattern=_SYMBOL)]


def _known_timeframe(text: str) -> str:
    try:
        return Timeframe.parse(text).text
    except ConfigError:
        msg = "is not a timeframe of fixed duration; use e.g. 1s, 1m, 15m, 1h, 1d or 1w"
        raise ValueError(msg) from None


def _known_feature(name: str) -> str:
    if name not in FEATURES:
        msg = f"is not a feature; allowed: {', '.join(FEATURES)}"
        raise ValueError(msg)
    return name


def _topic_level(text: str) -> str:
    if any(char in text for char in "/+#\0"):
        msg = "is one level of an MQTT topic and may not hold / + # or NUL"
        raise ValueError(msg)
    return text


class Section(BaseModel):
    """One section: frozen, without unknown keys, without infinities."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_booleans(cls, value: object) -> object:
        """YAML reads yes, no, on and off as booleans, which Python takes for 1 and 0."""
        if isinstance(value, bool):
            msg = "is a boolean (YAML reads yes, no, on and off so); quote it if text is meant"
            raise ValueError(msg)  # noqa: TRY004 - pydantic collects ValueErrors
        return value


class Endpoint(Section):
    """Where the exchange is, when not where ccxt expects it."""

    schemes: ClassVar = {"rest": ("http", "https"), "ws": ("ws", "wss")}

    rest: Text | None = Field(None, description="scheme, host and port for REST addresses")
    ws: Text | None = Field(None, description="scheme, host and port for websocket addresses")

    @field_validator("rest", "ws")
    @classmethod
    def _only_an_origin(cls, value: str | None, info: Any) -> str | None:  # noqa: ANN401
        if value is None:
            return None
        schemes = cls.schemes[info.field_name]
        msg = f"must be {' or '.join(schemes)}://host:port without path, user or query"
        try:
            url = urlsplit(value)
            plain = (url.path in {"", "/"}) and not (url.query or url.fragment or url.username)
            fine = plain and url.scheme in schemes and bool(url.hostname) and url.port != 0
        except ValueError:
            fine = False
        if not fine:
            raise ValueError(msg)
        return value.rstrip("/")


class Exchange(Section):
    """The exchange whose candles are forecast."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")] = Field(
        "binance", description="ccxt id of an exchange that can watch candles"
    )
    endpoint: Endpoint = Field(Endpoint(), description="other addresses for the same exchange")


class Trading(Section):
    """What is forecast."""

    symbols: tuple[Symbol, ...] = Field(
        ("BTC/USDT",), min_length=1, description="ccxt symbols, BASE/QUOTE or BASE/QUOTE:SETTLE"
    )
    timeframe: Annotated[str, AfterValidator(_known_timeframe)] = Field(
        "1m", description="ccxt timeframe of fixed duration"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_symbol(cls, raw: object) -> object:
        """Accept the reference's `symbol` for a list of one."""
        if not isinstance(raw, dict) or "symbol" not in raw:
            return raw
        if "symbols" in raw:
            msg = "has both symbol and symbols; keep one of them"
            raise ValueError(msg)
        return {key: value for key, value in raw.items() if key != "symbol"} | {
            "symbols": [raw["symbol"]]
        }

    @field_validator("symbols")
    @classmethod
    def _no_twins(cls, symbols: tuple[str, ...]) -> tuple[str, ...]:
        twins = [symbol for symbol, count in Counter(symbols).items() if count > 1]
        if twins:
            msg = f"lists {', '.join(twins)} more than once"
            raise ValueError(msg)
        return symbols


class Model(Section):
    """The network and its training."""

    target: Literal["close", "log_return"] = Field(
        "log_return", description="what the network forecasts of the next candle"
    )
    features: tuple[Annotated[str, AfterValidator(_known_feature)], ...] | None = Field(
        None, min_length=1, description="columns of a window, in order; null: the target's own"
    )
    lookback_periods: int = Field(60, ge=2, le=10_000, description="candles in a window")
    lstm_units: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (64, 32), min_length=1, max_length=8, description="units of each LSTM layer"
    )
    dropout_rate: float = Field(0.2, ge=0, lt=1, description="share dropped after each layer")
    learning_rate: float = Field(0.001, gt=0, le=1, description="Adam's step size")
    epochs: int = Field(50, ge=1, le=10_000, description="passes over the training data at most")
    batch_size: int = Field(32, ge=1, le=65_536, description="samples per gradient step")
    train_split: float = Field(0.7, gt=0, lt=1, description="first share of the rows: training")
    val_split: float = Field(0.15, gt=0, lt=1, description="next share of the rows: validation")
    loss: Literal["mse", "mae"] | None = Field(
        None, description="training loss; null: mse for close, mae for log_return"
    )
    seed: int = Field(42, ge=0, lt=2**32, description="seed of weights, dropout and shuffling")

    @model_validator(mode="after")
    def _leave_test_rows(self) -> Self:
        if self.train_split + self.val_split >= 1:
            msg = (
                f"train_split {self.train_split} + val_split {self.val_split} leaves no rows to "
                "test on; their sum must be below 1"
            )
            raise ValueError(msg)
        return self

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features, or the target's own where none are set."""
        return self.features or (CLOSE_FEATURES if self.target == "close" else LOG_RETURN_FEATURES)


class Indicators(Section):
    """Periods of the technical indicators, in candles."""

    rsi_period: Period = Field(14, description="Wilder's RSI")
    macd_fast: Period = Field(12, description="fast EMA of the MACD")
    macd_slow: Period = Field(26, description="slow EMA of the MACD")
    macd_signal: Period = Field(9, description="EMA of the MACD line")
    bb_period: Period = Field(20, description="Bollinger bands' moving average")
    bb_std: float = Field(2.0, gt=0, le=10, description="Bollinger bands' standard deviations")

    @model_validator(mode="after")
    def _fast_is_faster(self) -> Self:
        if self.macd_fast >= self.macd_slow:
            msg = f"macd_fast {self.macd_fast} must be below macd_slow {self.macd_slow}"
            raise ValueError(msg)
        return self


class Inference(Section):
    """Running the network."""

    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="where the network runs")
    latency_budget_ms: float = Field(
        50.0, gt=0, le=60_000, description="from the closing message to a forecast ready to send"
    )
    max_batch: int = Field(1024, ge=1, le=65_536, description="symbols per call, a power of two")
    threads: int = Field(1, ge=1, le=256, description="threads of ONNX Runtime")

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


class Settings(Section):
    """Every setting of candlecast; made by :func:`load`."""

    exchange: Exchange = Field(Exchange(), description="the exchange")
    trading: Trading = Field(Trading(), description="what is forecast")
    model: Model = Field(Model(), description="the network and its training")
    indicators: Indicators = Field(Indicators(), description="indicator periods")
    inference: Inference = Field(Inference(), description="running the network")
    mqtt: Mqtt = Field(Mqtt(), description="the broker")
    http: Http = Field(Http(), description="metrics and health pages")
    metrics: Metrics = Field(Metrics(), description="Prometheus series")
    accuracy: Accuracy = Field(Accuracy(), description="forecasts against what happened")
    history: History = Field(History(), description="candles and forecasts in SQLite")
    logging: Logging = Field(Logging(), description="logging")
    paths: Paths = Field(Paths(), description="folders")

    _state_dir: Path = PrivateAttr(default=Path("state"))

    @field_validator("*", mode="before")
    @classmethod
    def _empty_section(cls, value: object) -> object:
        """A section whose keys are all commented out is null in YAML."""
        return {} if value is None else value

    @property
    def state_dir(self) -> Path:
        """Absolute folder of registry and history."""
        return self._state_dir

    @property
    def registry_dir(self) -> Path:
        """Folder of the model bundles."""
        return self._state_dir / "registry"

    @property
    def instance(self) -> str:
        """This daemon's name in topics and payloads."""
        return self.mqtt.instance or socket.gethostname() or "candlecast"


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The configuration as a plain dictionary, the environment's overrides included.

    The reference classes read their own sections of it and ignore the rest; nothing is validated.

    Raises:
        ConfigError: the file is missing, unreadable or not a YAML mapping.
    """
    return overlay(read_mapping(Path(path)), Settings, os.environ)


def load(path: str | Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read, check and freeze the configuration.

    Raises:
        ConfigError: one line per finding.
    """
    path = Path(path)
    raw = read_mapping(path)
    if isinstance(raw.get("mqtt"), dict) and raw["mqtt"].get("password") is not None:
        msg = (
            f"{path}: mqtt.password: a secret does not belong into this file; "
            "set CANDLECAST__MQTT__PASSWORD or mqtt.password_file"
        )
        raise ConfigError(msg)
    try:
        settings = Settings.model_validate(overlay(raw, Settings, environ))
    except ValidationError as error:
        raise ConfigError(explain(error, Settings, path, environ)) from None
    settings._state_dir = _state_dir(settings.paths.state, path, environ)  # noqa: SLF001
    return settings


def _state_dir(configured: Path | None, path: Path, environ: Mapping[str, str]) -> Path:
    """Never relative to the working directory: what must last must be found again."""
    beside = path.resolve().parent
    if configured is not None:
        return beside / configured
    # systemd lists several folders separated by colons; the first is the unit's own.
    systemd = environ.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(systemd) if systemd else beside / "state"
