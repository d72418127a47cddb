"""Keep the newest forecast, its outcome and running errors of each symbol. No I/O."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MAX_LATENCIES: Final = 500
"""Forecasts that the latency quantiles cover."""

_MAX_CLOSES: Final = 12
"""Closes that the table draws as bars."""

Key = tuple[str, str, str]
"""Symbol, exchange, timeframe: a broker may carry several markets."""


class Outcome(NamedTuple):
    """The predicted and the realised return of one forecast, relative to the close before it."""

    predicted: float
    realised: float

    @property
    def hit(self) -> bool | None:
        """Whether the direction was right; None if either return is 0."""
        sign = self.predicted * self.realised
        return None if sign == 0.0 else sign > 0.0


class Row:
    """One symbol: its newest forecast, the outcome of the one before, and the running errors.

    Attributes:
        message: the newest forecast, decoded.
        outcome: of the forecast before; None if its candle was missed.
        closes: the last closes, oldest first.
        scored: how many forecasts were compared with their outcome.
        model_error: sum of the absolute errors of the predicted returns.
        last_value_error: the same sum for the last-value forecast, whose return is 0.
    """

    def __init__(self, message: Mapping[str, Any]) -> None:
        """Start with a first forecast."""
        self.message = message
        self.outcome: Outcome | None = None
        self.closes = deque([float(message["last_close"])], maxlen=_MAX_CLOSES)
        self.scored = 0
        self.model_error = 0.0
        self.last_value_error = 0.0

    def on_forecast(self, message: Mapping[str, Any]) -> bool:
        """Add the next forecast; its last close is the outcome of the one before.

        Returns:
            False for one that was added already: retained messages and reconnections repeat them.
        """
        before = self.message
        if message["seq"] <= before["seq"]:
            return False
        self.message = message
        if before["target_close_ms"] != message["candle_close_ms"]:
            self.closes.clear()
        self.closes.append(float(message["last_close"]))
        if before["target_close_ms"] != message["candle_close_ms"]:
            return True
        last, realised = before["last_close"], message["last_close"]
        self.outcome = Outcome(before["predicted_close"] / last - 1, realised / last - 1)
        self.scored += 1
        self.model_error += abs(self.outcome.predicted - self.outcome.realised)
        self.last_value_error += abs(self.outcome.realised)
        return True

    def is_valid(self, now_ms: int) -> bool:
        """Whether the forecast has not expired at ``now_ms``."""
        return bool(now_ms < self.message["valid_until_ms"])

    @property
    def mae_ratio(self) -> float | None:
        """Sum of errors ÷ sum of the last-value forecast's errors; None while the latter is 0."""
        return self.model_error / self.last_value_error if self.last_value_error else None


SORTS: Final[Mapping[str, Callable[[Row, int], float]]] = {
    "symbol": lambda row, now_ms: 0.0,  # noqa: ARG005 - rows come in the order of their symbols
    "error": lambda row, now_ms: -(row.mae_ratio or 0.0),  # noqa: ARG005
    "ready": lambda row, now_ms: -float(row.message["latency_ms"]["ready"]),  # noqa: ARG005
    "change": lambda row, now_ms: -abs(row.message["predicted_return"]),  # noqa: ARG005
    "staleness": lambda row, now_ms: min(0, row.message["valid_until_ms"] - now_ms),
}
"""Sort keys of rows; the largest, and the longest without a forecast, come first."""


class Board:
    """The forecasts and statistics of all symbols of a broker.

    Attributes:
        title: heading of the table.
        rows: by symbol, exchange and timeframe.
        error: why there is no connection; None while there is one.
        states: the published state of each instance, by its name.
        forecasts: how many were received.
        late: how many of them were late.
        unreadable: messages that could not be decoded.
    """

    def __init__(self, title: str) -> None:
        """Create an empty board under a title."""
        self.title = title
        self.rows: dict[Key, Row] = {}
        self.error: str | None = None
        self.states: dict[str, str] = {}
        self.forecasts = 0
        self.late = 0
        self.unreadable = 0
        self._ready_ms: deque[float] = deque(maxlen=_MAX_LATENCIES)

    def on_forecast(self, message: Mapping[str, Any]) -> Row:
        """Add one published forecast, decoded; returns its symbol's row."""
        key = message["symbol"], message["exchange"], message["timeframe"]
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = Row(message)
        elif not row.on_forecast(message):
            return row
        self.forecasts += 1
        self.late += bool(message["late"])
        self._ready_ms.append(message["latency_ms"]["ready"])
        return row

    def on_status(self, status: Mapping[str, Any]) -> None:
        """Note the state of an instance."""
        self.states[status["instance"]] = status["state"]

    def select_rows(self, pattern: str, sort: str, now_ms: int) -> list[tuple[str, Row]]:
        """Return names and rows that contain ``pattern`` in any case, sorted as `SORTS` says.

        A row is named by its symbol, and by its market too if the broker carries several.
        """
        # Copied in one step of the interpreter: another thread may add to the dictionary.
        rows = sorted(list(self.rows.items()))  # noqa: C414
        several = len({key[1:] for key, _ in rows}) > 1
        rows_by_name = [(" ".join(key) if several else key[0], row) for key, row in rows]
        found = [(name, row) for name, row in rows_by_name if pattern.lower() in name.lower()]
        return sorted(found, key=lambda item: SORTS[sort](item[1], now_ms))

    def latency_ms(self, quantile: float) -> float | None:
        """A quantile (0 to 1) of the last 500 latencies, nearest rank; None before the first."""
        ordered = sorted(list(self._ready_ms))  # noqa: C414 - see `select_rows`
        if not ordered:
            return None
        return ordered[max(0, math.ceil(quantile * len(ordered)) - 1)]

    def summary(self) -> str:
        """Return forecasts, latency and error against the last value in one line."""
        return " · ".join(self.parts())

    def parts(self) -> list[str]:
        """Return the parts of the summary."""
        p50, p99 = self.latency_ms(0.5), self.latency_ms(0.99)
        if p50 is None or p99 is None:
            return ["no forecast yet"]
        rows = list(self.rows.values())
        error = sum(row.model_error for row in rows)
        last_value_error = sum(row.last_value_error for row in rows)
        scored = sum(row.scored for row in rows)
        ratio = f"{error / last_value_error:.3f}" if last_value_error else "–"
        return [
            f"{self.forecasts} forecasts, {self.late} late"
            + (f", {self.unreadable} unreadable" if self.unreadable else ""),
            f"ready p50 {p50:.2f} ms, p99 {p99:.2f} ms",
            f"error ÷ last value's {ratio} (n={scored})",
        ]
