"""Define the parameters of a retrain run and check them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from model.core.errors import ConfigError
from model.core.market import MarketKey
from model.retraining.challenger import cut_for_gate

if TYPE_CHECKING:
    from pathlib import Path

    from model.core.candle import Timeframe
    from model.forecasts.rules import Rules
    from model.retraining.challenger import Cut
    from model.stats.promotion_gate import GateRules

_DAY_MS: Final = 86_400_000


@dataclass(frozen=True)
class RetrainJob:
    """The parameters of a run.

    Attributes:
        config: the configuration file, whose `model` and `indicators` sections train.
        key: hash of every setting that the result depends on.
        state: folder of registry and history.
        exchange: ccxt id.
        endpoint_rest: scheme, host and port that replace the exchange's; None keeps them.
        symbols: ccxt symbols.
        timeframe: candle length.
        days: span of candles, including the gate's.
        lookback: candles of a window.
        splits: configured shares of training and validation.
        gate: requirements for a promotion.
        calibration: settings of intervals and probabilities, for the report.
        keep: number of models to keep in the registry.
        warmup: candles that the indicators need.
        leave_out: leave out symbols with too few candles instead of failing.
        max_filled: share of filled candles from which on the log has a warning.
    """

    config: Path
    key: str
    state: Path
    exchange: str
    endpoint_rest: str | None
    symbols: tuple[str, ...]
    timeframe: Timeframe
    days: float
    lookback: int
    splits: tuple[float, float]
    gate: GateRules
    calibration: Rules
    keep: int
    warmup: int
    leave_out: bool
    max_filled: float

    @property
    def folder(self) -> Path:
        """Folder of the files that let a later run continue this one."""
        return self.state / "retrain"

    @property
    def market(self) -> MarketKey:
        """Exchange and timeframe of the candles."""
        return MarketKey(self.exchange, self.timeframe)

    @property
    def history(self) -> Path:
        """The database of candles."""
        return self.state / "history.sqlite"

    @property
    def rows(self) -> int:
        """Number of candles in the span."""
        return int(self.days * _DAY_MS) // self.timeframe.ms

    def cut(self, rows: int) -> Cut:
        """Split a number of candles into training, validation and gate.

        Raises:
            ConfigError: there are too few candles.
        """
        gate_rows = self.gate.candles(self.timeframe.ms)
        return cut_for_gate(rows, gate_rows, self.lookback, *self.splits)


def check_span(days: float, gate_days: float, keep_days: float) -> None:
    """Check that the spans of training, gate and history fit together.

    Raises:
        ConfigError: they do not; the message names the settings.
    """
    if not gate_days < days <= keep_days:
        msg = (
            f"retrain.days {days:g} must be more than registry.gate_days {gate_days:g} and at most "
            f"history.keep_days {keep_days:g}"
        )
        raise ConfigError(msg)
