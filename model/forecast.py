"""A forecast: what is known at the moment it is published, and its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, Final, NamedTuple, Self

import orjson

SCHEMA: Final = 1
"""Version of the published JSON, described by ``docs/prediction.schema.json``."""


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
    """

    length: int
    filled: int
    out_of_range: float
    final_by: str


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
        seq: ``candle_close_ms`` ÷ timeframe.
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


def payload(forecast: Forecast, instance: str) -> bytes:
    """The JSON of ``docs/prediction.schema.json``, compact, fields in the contract's order.

    Args:
        forecast: its floats are plain ``float``, not numpy scalars.
        instance: name of the daemon that publishes.

    Raises:
        ValueError: a number is not finite; JSON has no such thing.
    """
    _require_finite(forecast)
    interval, chances, skill = forecast.interval, forecast.probabilities, forecast.skill
    window, model, latency = forecast.window, forecast.model, forecast.latency
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "instance": instance,
        "exchange": forecast.exchange,
        "symbol": forecast.symbol,
        "timeframe": forecast.timeframe,
        "seq": forecast.seq,
        "candle_open_ms": forecast.candle_open_ms,
        "candle_close_ms": forecast.candle_close_ms,
        "target_close_ms": forecast.target_close_ms,
        "valid_until_ms": forecast.valid_until_ms,
        "published_ms": forecast.published_ms,
        "last_close": forecast.last_close,
        "predicted_close": forecast.predicted_close,
        "predicted_normalized": forecast.predicted_normalized,
        "predicted_return": forecast.predicted_return,
        "interval": None if interval is None else interval._asdict(),
        "probabilities": None if chances is None else chances._asdict(),
        "window": {
            "length": window.length,
            "filled": window.filled,
            "out_of_range": window.out_of_range,
            "final_by": window.final_by,
        },
        "skill": None if skill is None else skill._asdict(),
        "model": model.as_json(),
        "latency_ms": {
            "ready": round(latency.ready_ms, 3),
            "queue": round(latency.queue_ms, 3),
            "inference": round(latency.inference_ms, 3),
        },
        "late": forecast.late,
    }
    return orjson.dumps(document)


def batch_payload(batch_id: str, part: tuple[int, int], payloads: Sequence[bytes]) -> bytes:
    """Join forecasts of one flush, already encoded by `payload`, into one message.

    Args:
        batch_id: the same for all parts of a flush.
        part: number of this part, from 1, and how many there are.
        payloads: at most a hundred forecasts.
    """
    number, parts = part
    head = orjson.dumps({"schema": SCHEMA, "batch_id": batch_id, "part": number, "parts": parts})
    return head[:-1] + b',"predictions":[' + b",".join(payloads) + b"]}"


def _require_finite(forecast: Forecast) -> None:
    # orjson writes NaN as null, which would read as "not enough evidence". A sum is finite only
    # if every number in it is; none of these comes near the largest float.
    total = (
        forecast.last_close
        + forecast.predicted_close
        + forecast.predicted_normalized
        + forecast.predicted_return
        + forecast.window.out_of_range
        + sum(forecast.latency)
    )
    for group in (forecast.interval, forecast.probabilities, forecast.skill):
        if group is not None:
            total += sum(group)
    if not isfinite(total):
        msg = f"forecast {forecast.identity} holds a number that is not finite"
        raise ValueError(msg)
