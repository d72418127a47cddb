"""Hold forecasts that are published together by column, and write them as JSON.

What they have in common is written once and one call formats all numbers. That costs a quarter of
encoding each document by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from model.core.candle import Candle
from model.forecasts.forecast import (
    SCHEMA,
    Basis,
    Forecast,
    ForecastRow,
    Interval,
    Latency,
    Market,
    ModelInfo,
    Probabilities,
    Skill,
    WindowInfo,
)

if TYPE_CHECKING:
    from model.forecasts.rules import Rules

Floats = NDArray[np.float64]
T = TypeVar("T")


class Columns(NamedTuple, Generic[T]):
    """The numbers of forecasts, one field each; the only place that fixes their order.

    Built from arrays ``[k]`` of all forecasts, read as one forecast's numbers or texts.
    """

    last_close: T
    predicted_close: T
    predicted_normalized: T
    predicted_return: T
    lower: T
    upper: T
    threshold: T
    short: T
    neutral: T
    long: T
    out_of_range: T
    mae_ratio: T
    stderr: T
    ready_ms: T
    queue_ms: T

    def table(self) -> Floats:
        """Arrays as one table, a row a forecast, ``[k, 15]``."""
        return np.ascontiguousarray(np.array(self, np.float64).T)


COLUMNS: Final = Columns._fields
"""Names of the columns of `ForecastBatch.numbers`."""

_PRICE_NAMES: Final = ("last_close", "predicted_close", "predicted_normalized", "predicted_return")
_OUTLOOK_NAMES: Final = ("lower", "upper", "threshold", "short", "neutral", "long")


def _pick(*names: str) -> Callable[[Sequence[bytes]], tuple[bytes, ...]]:
    """Return a reader of these columns; a `Columns` of each row would cost 0.6 µs more."""
    return itemgetter(*map(COLUMNS.index, names))


_PRICES_OF: Final = _pick(*_PRICE_NAMES)
_OUTLOOK_OF: Final = _pick(*_PRICE_NAMES, *_OUTLOOK_NAMES)
_SKILL_OF: Final = _pick("mae_ratio", "stderr")
_LATENCY_OF: Final = _pick("ready_ms", "queue_ms")
_OUT_OF_RANGE: Final = COLUMNS.index("out_of_range")

_TIMES: Final = (
    b'"seq":%d,"candle_open_ms":%d,"candle_close_ms":%d,"target_close_ms":%d,"valid_until_ms":%d'
)
_PRICES: Final = (
    b'"last_close":%b,"predicted_close":%b,"predicted_normalized":%b,"predicted_return":%b'
)
_INTERVAL: Final = b'"interval":{"level":%b,"lower":%%b,"upper":%%b}'
_CHANCES: Final = b'"probabilities":{"threshold":%b,"short":%b,"neutral":%b,"long":%b}'
_WINDOW: Final = (
    b'"window":{"length":%d,"filled":%%d,"out_of_range":%%b,"final_by":"%b","repaired":%%d}'
)
_SKILL: Final = b'"skill":{"mae_ratio":%b,"stderr":%b,"n":%d}'
_LATENCY: Final = b'"latency_ms":{"ready":%%b,"queue":%%b,"inference":%b}'


class Common(NamedTuple):
    """What the forecasts of one run of the network share.

    Attributes:
        lookback: candles in a window.
        rules: of intervals and probabilities.
        inference_ms: of the run.
        published_ms: wall clock when they were made ready.
    """

    lookback: int
    rules: Rules
    inference_ms: float
    published_ms: int


@dataclass(frozen=True, eq=False, slots=True)
class ForecastBatch:
    """k forecasts of one market.

    Attributes:
        market: what is forecast.
        common: what they share.
        candles: the newest candle of each.
        numbers: finite, one row each, see `COLUMNS`, ``[k, 15]``.
        known: whether there is evidence for interval and probabilities; otherwise they are 0.
        learnt: from how many closes that evidence comes.
        models: which model made each.
        filled: candles of each window that had no trade.
        repaired: candles of each window that had values that were put right.
        skills: None where there is not enough evidence.
        late: whether each was over the budget.

    Raises:
        ValueError: a number is not finite; JSON has no such thing.
    """

    market: Market
    common: Common
    candles: Sequence[Candle]
    numbers: Floats
    known: Sequence[bool]
    learnt: Sequence[int]
    models: Sequence[ModelInfo]
    filled: Sequence[int]
    repaired: Sequence[int]
    skills: Sequence[Skill | None]
    late: Sequence[bool]

    def __post_init__(self) -> None:
        """Refuse numbers that JSON would write as null, which means "not enough evidence"."""
        finite = np.isfinite(self.numbers)
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            msg = f"forecast of {self.candles[row]}: {COLUMNS[column]} is not finite"
            raise ValueError(msg)

    def __len__(self) -> int:
        """How many."""
        return len(self.candles)

    def __iter__(self) -> Iterator[Forecast]:
        """One by one."""
        return map(self.forecast, range(len(self)))

    def column(self, name: str) -> Floats:
        """One of `COLUMNS`, ``[k]``."""
        return self.numbers[:, COLUMNS.index(name)]

    def rows(self) -> Iterator[ForecastRow]:
        """The part of each that scoring needs."""
        step_ms = self.market.timeframe.ms
        columns = map(self.column, ("last_close", "predicted_close", "lower", "upper"))
        last, predicted, lower, upper = (column.tolist() for column in columns)
        known = self.known
        return map(
            ForecastRow,
            [candle.symbol for candle in self.candles],
            [candle.close_ms for candle in self.candles],
            [candle.close_ms + step_ms for candle in self.candles],
            last,
            predicted,
            [bound if is_known else None for bound, is_known in zip(lower, known, strict=True)],
            [bound if is_known else None for bound, is_known in zip(upper, known, strict=True)],
        )

    def forecast(self, row: int) -> Forecast:
        """One of them by itself, for those who look at single symbols."""
        market, common, candle = self.market, self.common, self.candles[row]
        numbers: Columns[float] = Columns._make(self.numbers[row].tolist())
        step_ms = market.timeframe.ms
        target_close_ms = candle.close_ms + step_ms
        interval, probabilities = None, None
        if self.known[row]:
            interval = Interval(common.rules.level, numbers.lower, numbers.upper)
            probabilities = Probabilities(
                numbers.threshold, numbers.short, numbers.neutral, numbers.long
            )
        return Forecast(
            exchange=market.exchange,
            symbol=candle.symbol,
            timeframe=market.timeframe.text,
            seq=candle.close_ms // step_ms,
            candle_open_ms=candle.open_ms,
            candle_close_ms=candle.close_ms,
            target_close_ms=target_close_ms,
            valid_until_ms=target_close_ms,
            published_ms=common.published_ms,
            last_close=numbers.last_close,
            predicted_close=numbers.predicted_close,
            predicted_normalized=numbers.predicted_normalized,
            predicted_return=numbers.predicted_return,
            interval=interval,
            probabilities=probabilities,
            window=WindowInfo(
                common.lookback,
                self.filled[row],
                numbers.out_of_range,
                candle.final_by or "rest",
                self.repaired[row],
            ),
            skill=self.skills[row],
            model=self.models[row],
            latency=Latency(numbers.ready_ms, numbers.queue_ms, common.inference_ms),
            late=self.late[row],
            basis=Basis(self.learnt[row], common.rules),
        )


class JsonWriter:
    """Writes forecasts of one market as the JSON of ``docs/prediction.schema.json``.

    Compact, fields in the contract's order.
    """

    def __init__(self, market: Market) -> None:
        """Prepare the fields that never change.

        Args:
            market: what is forecast.
        """
        self._step_ms = market.timeframe.ms
        # By the models that have forecast so far.
        self._model_fields: dict[ModelInfo, bytes] = {}
        # The fields of each symbol's messages that never change.
        self._heads = {
            symbol: orjson.dumps(
                {
                    "schema": SCHEMA,
                    "instance": market.instance,
                    "exchange": market.exchange,
                    "symbol": symbol,
                    "timeframe": market.timeframe.text,
                }
            )[:-1]
            for symbol in market.symbols
        }

    def write(self, forecasts: ForecastBatch) -> list[bytes]:
        """One document each."""
        if not len(forecasts):
            return []
        forms: dict[object, bytes] = {}
        documents: list[bytes] = []
        for candle, numbers, known, model, filled, repaired, skill, late in zip(
            forecasts.candles,
            _formatted(forecasts.numbers),
            forecasts.known,
            forecasts.models,
            forecasts.filled,
            forecasts.repaired,
            forecasts.skills,
            forecasts.late,
            strict=True,
        ):
            kind = candle.close_ms, candle.final_by, known, skill is None, model, late
            if kind not in forms:
                forms[kind] = self._form(forecasts.common, candle, known, skill, model, late)
            skilled = () if skill is None else (*_SKILL_OF(numbers), skill.n)
            values = (
                self._heads[candle.symbol],
                *(_OUTLOOK_OF if known else _PRICES_OF)(numbers),
                filled,
                numbers[_OUT_OF_RANGE],
                repaired,
                *skilled,
                *_LATENCY_OF(numbers),
            )
            documents.append(forms[kind] % values)
        return documents

    def _form(
        self,
        common: Common,
        candle: Candle,
        known: bool,  # noqa: FBT001 - a value
        skill: Skill | None,
        model: ModelInfo,
        late: bool,  # noqa: FBT001 - a value
    ) -> bytes:
        """A template with all fields that forecasts of a kind share; the others are %b."""
        if model not in self._model_fields:
            self._model_fields[model] = _model_field(model)
        close_ms, step_ms = candle.close_ms, self._step_ms
        target_close_ms = close_ms + step_ms
        seq = close_ms // step_ms
        fields = (
            b"%b",
            _TIMES % (seq, candle.open_ms, close_ms, target_close_ms, target_close_ms),
            b'"published_ms":%d' % common.published_ms,
            _PRICES,
            _INTERVAL % orjson.dumps(common.rules.level) if known else b'"interval":null',
            _CHANCES if known else b'"probabilities":null',
            _WINDOW % (common.lookback, (candle.final_by or "rest").encode()),
            b'"skill":null' if skill is None else _SKILL,
            self._model_fields[model],
            _LATENCY % orjson.dumps(common.inference_ms),
            b'"late":true}' if late else b'"late":false}',
        )
        return b",".join(fields)


def _model_field(model: ModelInfo) -> bytes:
    """The field of a document that names the model, as a template."""
    return b'"model":' + orjson.dumps(model.as_json()).replace(b"%", b"%%")


def _formatted(numbers: Floats) -> list[list[bytes]]:
    """Every number as JSON writes it."""
    text = orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)
    return [row.split(b",") for row in text[2:-2].split(b"],[")]
