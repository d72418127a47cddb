"""What a consumer of the published forecasts knows: newest, outcome, running errors. Pure."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_RECENT: Final = 500
_CLOSES: Final = 12

Key = tuple[str, str, str]
"""Symbol, exchange, timeframe: brokers may carry several markets."""


class Outcome(NamedTuple):
    """How one forecast turned out; both returns are relative to the close it started from."""

    predicted: float
    realised: float

    @property
    def hit(self) -> bool | None:
        """Whether the direction was right; None when either did not move."""
        sign = self.predicted * self.realised
        return None if sign == 0.0 else sign > 0.0


class Row:
    """One symbol: its newest forecast, the outcome of the one before, and the running errors.

    Attributes:
        message: the newest forecast, decoded.
        outcome: of the forecast before; None where its candle was missed.
        closes: the last closes, oldest first.
        scored: how many forecasts were held against what happened.
    """

    def __init__(self, message: Mapping[str, Any]) -> None:
        """Begin with a first forecast."""
        self.message = message
        self.outcome: Outcome | None = None
        self.closes = deque([float(message["last_close"])], maxlen=_CLOSES)
        self.scored = 0
        self.model_error = 0.0
        self.last_value_error = 0.0

    def update(self, message: Mapping[str, Any]) -> bool:
        """Take in the next forecast; its starting close is what became of the one before.

        Returns:
            False for one that was seen already: retained messages and reconnections repeat them.
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
        last = before["last_close"]
        happened = message["last_close"]
        self.outcome = Outcome(before["predicted_close"] / last - 1, happened / last - 1)
        self.scored += 1
        self.model_error += abs(self.outcome.predicted - self.outcome.realised)
        self.last_value_error += abs(self.outcome.realised)
        return True

    def is_valid(self, now_ms: int) -> bool:
        """Whether there is a forecast at ``now_ms``: what has expired is none."""
        return bool(now_ms < self.message["valid_until_ms"])

    @property
    def mae_ratio(self) -> float | None:
        """Sum of errors ÷ sum of the last-value forecast's errors; None before both are known."""
        return self.model_error / self.last_value_error if self.last_value_error else None


SORTS: Final[Mapping[str, Callable[[Row, int], float]]] = {
    "symbol": lambda row, now_ms: 0.0,  # noqa: ARG005 - rows come in the order of their symbols
    "error": lambda row, now_ms: -(row.mae_ratio or 0.0),  # noqa: ARG005
    "ready": lambda row, now_ms: -float(row.message["latency_ms"]["ready"]),  # noqa: ARG005
    "change": lambda row, now_ms: -abs(row.message["predicted_return"]),  # noqa: ARG005
    "staleness": lambda row, now_ms: min(0, row.message["valid_until_ms"] - now_ms),
}
"""What rows can be sorted by; the largest, and the longest without a forecast, come first."""


class Board:
    """All symbols of a broker at a glance.

    Attributes:
        title: what stands above the table.
        rows: by symbol, exchange and timeframe.
        trouble: why nothing is heard at the moment; None while there is a connection.
        states: how each instance says that it is, by its name.
        refused: messages that could not be read.
    """

    def __init__(self, title: str) -> None:
        """Create an empty board under a title."""
        self.title = title
        self.rows: dict[Key, Row] = {}
        self.trouble: str | None = None
        self.states: dict[str, str] = {}
        self.forecasts = 0
        self.late = 0
        self.refused = 0
        self._ready_ms: deque[float] = deque(maxlen=_RECENT)

    def update(self, message: Mapping[str, Any]) -> Row:
        """Take in one published forecast, decoded; returns its symbol's row."""
        key = message["symbol"], message["exchange"], message["timeframe"]
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = Row(message)
        elif not row.update(message):
            return row
        self.forecasts += 1
        self.late += bool(message["late"])
        self._ready_ms.append(message["latency_ms"]["ready"])
        return row

    def hear(self, status: Mapping[str, Any]) -> None:
        """Take in how an instance is."""
        self.states[status["instance"]] = status["state"]

    def chosen(self, pattern: str, sort: str, now_ms: int) -> list[tuple[str, Row]]:
        """Rows whose name holds ``pattern``, whatever its case, in the order of `SORTS`.

        A row is named by its symbol, and by its market too where the broker carries several.
        """
        # One step for the interpreter: another thread may be adding to the dictionary.
        rows = sorted(list(self.rows.items()))  # noqa: C414
        several = len({key[1:] for key, _ in rows}) > 1
        named = [(" ".join(key) if several else key[0], row) for key, row in rows]
        found = [(name, row) for name, row in named if pattern.lower() in name.lower()]
        return sorted(found, key=lambda item: SORTS[sort](item[1], now_ms))

    def latency_ms(self, quantile: float) -> float | None:
        """A quantile (0 to 1) of the last 500 latencies, nearest rank; None before the first."""
        ordered = sorted(list(self._ready_ms))  # noqa: C414 - see `chosen`
        if not ordered:
            return None
        return ordered[max(0, math.ceil(quantile * len(ordered)) - 1)]

    def summary(self) -> str:
        """Forecasts, latency and error against the last value in one line."""
        return " · ".join(self.parts())

    def parts(self) -> list[str]:
        """What the summary consists of."""
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
            + (f", {self.refused} unreadable" if self.refused else ""),
            f"ready p50 {p50:.2f} ms, p99 {p99:.2f} ms",
            f"error ÷ last value's {ratio} (n={scored})",
        ]
