"""Define the settings of exchange, symbols, network and indicators."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from config.section import Section, Text
from model.core.candle import Timeframe
from model.core.errors import ConfigError
from model.core.symbol_hint import likely_symbol
from model.core.symbols import topic_level
from model.features import definitions
from model.features.definitions import CLOSE_FEATURES, FEATURES, LOG_RETURN_FEATURES

_DEFAULTS = definitions.Indicators()

Period = Annotated[int, Field(ge=2, le=1000)]
_SYMBOL = r"^[^\s/:+#\x00]+/[^\s/:+#\x00]+(:[^\s/:+#\x00]+)?$"


def _valid_symbol(value: object) -> object:
    likely = likely_symbol(value) if isinstance(value, str) else None
    if likely is not None:
        msg = f"is not of the form BASE/QUOTE or BASE/QUOTE:SETTLE; did you mean {likely}?"
        raise ValueError(msg)
    return value


Symbol = Annotated[str, StringConstraints(pattern=_SYMBOL), BeforeValidator(_valid_symbol)]


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


class Endpoint(Section):
    """Other addresses of the exchange."""

    schemes: ClassVar = {"rest": ("http", "https"), "ws": ("ws", "wss")}

    rest: Text | None = Field(None, description="scheme, host and port for REST addresses")
    ws: Text | None = Field(None, description="scheme, host and port for websocket addresses")

    @field_validator("rest", "ws")
    @classmethod
    def _only_an_origin(cls, value: str | None, info: Any) -> str | None:  # noqa: ANN401
        if value is None:
            return None
        schemes = cls.schemes[info.field_name]
        msg = (
            f"must be {' or '.join(schemes)}://host:port without path, user or query, "
            "an IPv6 address in brackets"
        )
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
    """The forecast symbols and their timeframe."""

    symbols: tuple[Symbol, ...] = Field(
        ("BTC/USDT",), min_length=1, description="ccxt symbols, BASE/QUOTE or BASE/QUOTE:SETTLE"
    )
    timeframe: Annotated[str, AfterValidator(_known_timeframe)] = Field(
        "1m", description="ccxt timeframe of fixed duration"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_symbol(cls, raw: object) -> object:
        """Accept `symbol` of the reference classes for a list of one."""
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
    def _no_duplicates(cls, symbols: tuple[str, ...]) -> tuple[str, ...]:
        repeated = [symbol for symbol, count in Counter(symbols).items() if count > 1]
        if repeated:
            msg = f"lists {', '.join(repeated)} more than once"
            raise ValueError(msg)
        return symbols

    @field_validator("symbols")
    @classmethod
    def _no_shared_topics(cls, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse symbols with the same topic, in which ``/`` and ``:`` become ``-``."""
        known: dict[str, str] = {}
        for symbol in symbols:
            other = known.setdefault(topic_level(symbol), symbol)
            if other != symbol:
                msg = (
                    f"lists {other} and {symbol}, which would share one MQTT topic "
                    f"({topic_level(symbol)}); keep one of them"
                )
                raise ValueError(msg)
        return symbols


class Model(Section):
    """The network and its training."""

    target: Literal["close", "log_return"] = Field(
        "log_return", description="what the network forecasts of the next candle"
    )
    features: tuple[Annotated[str, AfterValidator(_known_feature)], ...] | None = Field(
        None,
        min_length=1,
        description="columns of a window, in order; null: the default of the target",
    )
    lookback_periods: int = Field(60, ge=2, le=10_000, description="candles in a window")
    lstm_units: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (64, 32), min_length=1, max_length=8, description="units of each LSTM layer"
    )
    dropout_rate: float = Field(0.2, ge=0, lt=1, description="share dropped after each layer")
    training: Literal["stretches", "windows"] = Field(
        "stretches", description="what a gradient step is computed on"
    )
    learning_rate: float = Field(0.001, gt=0, le=1, description="Adam's step size")
    epochs: int = Field(50, ge=1, le=10_000, description="passes over the training data at most")
    batch_size: int = Field(32, ge=1, le=65_536, description="samples per gradient step")
    train_split: float = Field(0.7, gt=0, lt=1, description="first share of the rows: training")
    val_split: float = Field(0.15, gt=0, lt=1, description="next share of the rows: validation")
    max_filled: float = Field(
        0.05, ge=0, le=1, description="share of periods that may be without a candle"
    )
    loss: Literal["mse", "mae"] | None = Field(
        None, description="training loss; null: mse for close, mae for log_return"
    )
    unknown_symbols: Literal["refuse", "fit_on_warmup"] = Field(
        "refuse", description="what to do with symbols that the model was not trained on"
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
        """The configured features, or the default of the target."""
        return self.features or (CLOSE_FEATURES if self.target == "close" else LOG_RETURN_FEATURES)


class Indicators(Section):
    """Periods of the technical indicators, in candles."""

    rsi_period: Period = Field(_DEFAULTS.rsi_period, description="Wilder's RSI")
    macd_fast: Period = Field(_DEFAULTS.macd_fast, description="fast EMA of the MACD")
    macd_slow: Period = Field(_DEFAULTS.macd_slow, description="slow EMA of the MACD")
    macd_signal: Period = Field(_DEFAULTS.macd_signal, description="EMA of the MACD line")
    bb_period: Period = Field(_DEFAULTS.bb_period, description="Bollinger bands' moving average")
    bb_std: float = Field(
        _DEFAULTS.bb_std, gt=0, le=10, description="Bollinger bands' standard deviations"
    )

    @model_validator(mode="after")
    def _check_periods(self) -> Self:
        definitions.Indicators(**self.model_dump())
        return self
