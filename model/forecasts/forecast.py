"""A forecast: what is known at the moment it is published, and its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import orjson

from model.core.candle import Timeframe
from model.core.market import MarketKey

if TYPE_CHECKING:
    from model.forecasts.rules import Rules

SCHEMA: Final = 1
"""Version of the published JSON, described by ``docs/prediction.schema.json``."""


class Market(NamedTuple):
    """What this daemon forecasts, and under which name.

    Attributes:
        instance: this daemon's name.
        exchange: ccxt exchange id.
        symbols: ccxt symbols at the start; their order is the slot of every per-symbol array.
        timeframe: the grid.
    """

    instance: str
    exchange: str
    symbols: tuple[str, ...]
    timeframe: Timeframe

    @property
    def key(self) -> MarketKey:
        """Exchange and timeframe."""
        return MarketKey(self.exchange, self.timeframe)


class Interval(NamedTuple):
    """Where the next close lies with probability ``level``; prices in quote currency."""

    level: float
    lower: float
    upper: float


class Probabilities(NamedTuple):
    """Chances that the next return is below -threshold, between, or above it."""

    threshold: float
    short: float
    neutral: float
    long: float


class WindowInfo(NamedTuple):
    """What the forecast was made from.

    Attributes:
        length: candles in the window.
        filled: how many of them had no trade.
        out_of_range: share of scaled values outside what the scaler was fitted on, 0 to 1.
        final_by: how the newest candle is known to be closed.
        repaired: how many of them had values that were put right, see `model.candle.repair_ohlcv`.
    """

    length: int
    filled: int
    out_of_range: float
    final_by: str
    repaired: int = 0


class Skill(NamedTuple):
    """Model error as a ratio to the last-value forecast's; below 1 is skill.

    Attributes:
        mae_ratio: sum of model errors ÷ sum of last-value errors.
        stderr: its standard error.
        n: candles it rests on.
    """

    mae_ratio: float
    stderr: float
    n: int


class ModelInfo(NamedTuple):
    """Which model spoke.

    Attributes:
        version: of the bundle.
        sha256: of its manifest.
        target: what it predicts.
        fitted_on_warmup: whether the symbol's scaler is not the bundle's, which does not know it,
            but was fitted to the first window.
    """

    version: str
    sha256: str
    target: str
    fitted_on_warmup: bool = False

    def as_json(self) -> dict[str, str]:
        """As it stands in a message."""
        told = {"version": self.version, "sha256": self.sha256, "target": self.target}
        return told | {"scaler": "warmup"} if self.fitted_on_warmup else told


class Basis(NamedTuple):
    """What interval and probabilities rest on; both are found again from it.

    Attributes:
        learnt: published forecasts of the symbol that the calibration had held against what came.
        rules: what was asked for.
    """

    learnt: int
    rules: Rules


class Latency(NamedTuple):
    """Milliseconds: arrival of the closing message to ready, of which queued and computed."""

    ready_ms: float
    queue_ms: float
    inference_ms: float


class Forecast(NamedTuple):
    """One published forecast; times in Unix milliseconds, prices in quote currency.

    Attributes:
        exchange: ccxt id.
        symbol: ccxt symbol.
        timeframe: ccxt timeframe.
        seq: ``candle_close_ms`` ÷ timeframe, rounded down.
        candle_open_ms: opening of the newest candle seen.
        candle_close_ms: its closing, the opening of the candle that is forecast.
        target_close_ms: closing of the candle that is forecast.
        valid_until_ms: when a consumer must stop using it.
        published_ms: wall clock when it was made ready.
        last_close: close of the newest candle seen.
        predicted_close: forecast of the next close.
        predicted_normalized: the network's raw output.
        predicted_return: ``predicted_close / last_close - 1``.
        interval: None until there is enough evidence.
        probabilities: None until there is enough evidence.
        window: what it was made from.
        skill: None until there is enough evidence.
        model: which model spoke.
        latency: how long it took.
        late: whether ``latency.ready_ms`` was over the budget.
        basis: what interval and probabilities rest on.
    """

    exchange: str
    symbol: str
    timeframe: str
    seq: int
    candle_open_ms: int
    candle_close_ms: int
    target_close_ms: int
    valid_until_ms: int
    published_ms: int
    last_close: float
    predicted_close: float
    predicted_normalized: float
    predicted_return: float
    interval: Interval | None
    probabilities: Probabilities | None
    window: WindowInfo
    skill: Skill | None
    model: ModelInfo
    latency: Latency
    late: bool
    basis: Basis

    @property
    def identity(self) -> tuple[str, str, str, int]:
        """Exchange, symbol, timeframe and target: published once, never revised."""
        return (self.exchange, self.symbol, self.timeframe, self.target_close_ms)


class ForecastRow(NamedTuple):
    """As much of a published forecast as scoring it needs; None where there was no interval."""

    symbol: str
    candle_close_ms: int
    target_close_ms: int
    last_close: float
    predicted_close: float
    lower: float | None
    upper: float | None

    @classmethod
    def of(cls, forecast: Forecast) -> Self:
        """Keep what scoring needs."""
        interval = forecast.interval
        return cls(
            forecast.symbol,
            forecast.candle_close_ms,
            forecast.target_close_ms,
            forecast.last_close,
            forecast.predicted_close,
            None if interval is None else interval.lower,
            None if interval is None else interval.upper,
        )


def batch_payload(batch_id: str, part: tuple[int, int], payloads: Sequence[bytes]) -> bytes:
    """Join forecasts of one flush, as `model.forecasts` writes them, into one message.

    Args:
        batch_id: the same for all parts of a flush.
        part: number of this part, from 1, and how many there are.
        payloads: at most a hundred forecasts.
    """
    number, parts = part
    head = orjson.dumps({"schema": SCHEMA, "batch_id": batch_id, "part": number, "parts": parts})
    return head[:-1] + b',"predictions":[' + b",".join(payloads) + b"]}"
