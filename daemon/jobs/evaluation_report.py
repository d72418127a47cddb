"""Format the results of `candlecast evaluate` as a table, plain lines and JSON. Pure."""

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
_MAX_4_DECIMALS: Final = 10.0
"""Larger numbers are printed with one decimal."""


@dataclass(frozen=True)
class Scores:
    """The scores of one model.

    Attributes:
        model: its version.
        target: what the model forecasts, `log_return` or `close`.
        timeframe: ccxt timeframe.
        from_ms: opening time of the first forecast candle, Unix milliseconds.
        to_ms: opening time of the last forecast candle.
        symbols: scores by ccxt symbol.
        overall: scores over all symbols.
        reference_direction: by symbol, the reference's direction accuracy: the share of
            consecutive differences with the forecast sign; None for targets other than `close`.
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
        """Each symbol's scores, then the overall scores if there are several symbols."""
        yield from self.symbols.items()
        if len(self.symbols) > 1:
            yield ALL, self.overall


def title(scores: Scores) -> str:
    """The model, the timeframe and the span of the evaluation."""
    first, last = (
        f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}"
        for ms in (scores.from_ms, scores.to_ms)
    )
    return f"Model {scores.model}, {scores.timeframe}\n{first} to {last} UTC"


def table(scores: Scores) -> Table:
    """Format a table for 80 columns, with two lines per symbol: values and intervals."""
    shown = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        title=title(scores),
        title_style="bold",
        title_justify="left",
    )
    shown.add_column("Symbol", overflow="fold", min_width=8)
    headings = (
        "Candles",
        "Error\n(price)",
        "Error\n(%)",
        "Last\nvalue\n(%)",
        "Ratio",
        "Direction\n(%)",
    )
    for heading in headings:
        shown.add_column(heading, justify="right", no_wrap=True)
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
    """Format plain lines for a file or a pipe, one per symbol."""
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
    """Explain the scores: the verdict and the columns."""
    yield _verdict(scores.overall.mae_ratio)
    yield (
        "Ratio: the model's error divided by the last-value forecast's; below 1 is skill. "
        "Direction: share of moves forecast with the right sign, without candles that did not "
        f"move; chance is 50 %. Intervals: {100 * LEVEL:g} %."
    )
    if scores.reference_direction is None:
        yield (
            "The signs of consecutive differences are not compared: for returns, a forecast "
            "without skill is right in 66 %."
        )
    else:
        shares = ", ".join(
            f"{s} {100 * share:.1f} %" for s, share in scores.reference_direction.items()
        )
        yield f"Consecutive differences forecast with the right sign: {shares}."


def as_json(scores: Scores) -> str:
    """Format every number unrounded; null for a missing one."""
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
        return "The model is better than the last-value forecast."
    if ratio.low > 1.0:
        return "The model is worse than the last-value forecast."
    return "On these candles, the model and the last-value forecast do not differ significantly."


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
    """Format a number to the width of a column; the default is four decimals below 10."""
    if not isfinite(value):
        return "–"
    return format(value, form or (".4f" if value < _MAX_4_DECIMALS else ".1f"))


def _with_ends(estimate: Estimate, form: str = "") -> str:
    value, low, high = (_text(number, form) for number in estimate)
    return f"{value}\n{low} {high}"


def _inline(estimate: Estimate, form: str = "") -> str:
    value, low, high = (_text(number, form) for number in estimate)
    return f"{value} ({low} to {high})"
