"""The result of `candlecast evaluate`: as a table, as plain lines, as JSON. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.table import Table

from model.stats.bootstrap import LEVEL, Estimate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from model.stats.scores import Evaluation

ALL: Final = "all"
_FOUR_PLACES: Final = 10.0


@dataclass(frozen=True)
class Scores:
    """How good one model's forecasts were.

    Attributes:
        model: its version.
        target: what it forecasts.
        timeframe: ccxt timeframe.
        from_ms: opening time of the first candle forecast, Unix milliseconds.
        to_ms: opening time of the last one.
        symbols: scores by ccxt symbol.
        overall: scores of all symbols together.
        reference_direction: by symbol, the share of consecutive differences whose sign was
            forecast; None for a target on which it means nothing.
    """

    model: str
    target: str
    timeframe: str
    from_ms: int
    to_ms: int
    symbols: Mapping[str, Evaluation]
    overall: Evaluation
    reference_direction: Mapping[str, float] | None

    def rows(self) -> Iterator[tuple[str, Evaluation]]:
        """Every symbol, and all together where there are several."""
        yield from self.symbols.items()
        if len(self.symbols) > 1:
            yield ALL, self.overall


def title(scores: Scores) -> str:
    """Which forecasts are judged."""
    first, last = (
        f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}"
        for ms in (scores.from_ms, scores.to_ms)
    )
    return f"Model {scores.model}, {scores.timeframe}\n{first} to {last} UTC"


def table(scores: Scores) -> Table:
    """Two lines a symbol, the numbers and their intervals; 80 columns hold it."""
    shown = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        title=title(scores),
        title_style="bold",
        title_justify="left",
    )
    shown.add_column("Symbol", overflow="fold", min_width=8)
    heads = (
        "Candles",
        "Error\n(price)",
        "Error\n(%)",
        "Last\nvalue\n(%)",
        "Ratio",
        "Direction\n(%)",
    )
    for head in heads:
        shown.add_column(head, justify="right", no_wrap=True)
    for symbol, result in scores.rows():
        shown.add_row(
            symbol,
            str(result.candles),
            "" if symbol == ALL else _text(result.mae.value, ".5g"),
            _with_ends(result.mae_percent),
            _text(result.last_value_percent),
            _with_ends(result.mae_ratio),
            _with_ends(_percent(result.direction), ".1f"),
        )
    return shown


def lines(scores: Scores) -> Iterator[str]:
    """The same for a file or a pipe: one line a symbol."""
    yield title(scores).replace("\n", ", ")
    for symbol, result in scores.rows():
        price = "" if symbol == ALL else f"error {_inline(result.mae, '.5g')}, "
        yield (
            f"{symbol}: {result.candles} candles, {price}"
            f"error % {_inline(result.mae_percent)}, "
            f"last value's % {result.last_value_percent:.4f}, "
            f"ratio {_inline(result.mae_ratio)}, "
            f"direction % {_inline(_percent(result.direction), '.1f')}"
        )


def notes(scores: Scores) -> Iterator[str]:
    """What the numbers say, and how to read them."""
    yield _verdict(scores.overall.mae_ratio)
    yield (
        "Ratio: error divided by the last-value forecast's; below 1 is skill. Direction: moves "
        "called right, candles without a move left out; a coin is right in 50 %. "
        f"Intervals: {100 * LEVEL:g} %."
    )
    if scores.reference_direction is None:
        yield (
            "The signs of consecutive differences are not compared: on returns, a forecast that is "
            "worth nothing is right in 66 %."
        )
    else:
        shares = ", ".join(
            f"{s} {100 * share:.1f} %" for s, share in scores.reference_direction.items()
        )
        yield f"Signs of consecutive differences forecast right: {shares}."


def as_json(scores: Scores) -> str:
    """Every number, unrounded; null where there is none."""
    document = {
        "model": scores.model,
        "target": scores.target,
        "timeframe": scores.timeframe,
        "from_ms": scores.from_ms,
        "to_ms": scores.to_ms,
        "interval_level": LEVEL,
        "symbols": {symbol: _document(result) for symbol, result in scores.symbols.items()},
        ALL: _document(scores.overall),
        "reference_direction": scores.reference_direction,
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _verdict(ratio: Estimate) -> str:
    if ratio.high < 1.0:
        return "The model forecasts better than the last value."
    if ratio.low > 1.0:
        return "The model forecasts worse than the last value."
    return "On these candles the model cannot be told from the last value."


def _document(result: Evaluation) -> dict[str, Any]:
    return {
        name: {end: _number(number) for end, number in value._asdict().items()}
        if isinstance(value, Estimate)
        else _number(value)
        for name, value in result._asdict().items()
    }


def _number(value: float) -> float | None:
    return value if isfinite(value) else None


def _percent(share: Estimate) -> Estimate:
    return Estimate(*(100.0 * end for end in share))


def _text(value: float, form: str = "") -> str:
    """A number as wide as a column can take; without a form, four places below 10."""
    if not isfinite(value):
        return "–"
    return format(value, form or (".4f" if value < _FOUR_PLACES else ".1f"))


def _with_ends(estimate: Estimate, form: str = "") -> str:
    value, low, high = (_text(number, form) for number in estimate)
    return f"{value}\n{low} {high}"


def _inline(estimate: Estimate, form: str = "") -> str:
    value, low, high = (_text(number, form) for number in estimate)
    return f"{value} ({low} to {high})"
