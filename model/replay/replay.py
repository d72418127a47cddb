"""Compute published forecasts again from history and report every difference.

The close that a forecast started from and the forecast price come from the candles and the network.
Interval and probabilities are computed from the *published* price, because the calibration learnt
from it: the network's last digits depend on the batch size, and a calibration would carry that
error on. Today's configuration is not used.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from model.core.errors import BundleError
from model.history.reader import ForecastGroup, HistoryReader, Published
from model.replay.as_of import ForecastInputs, forecast_inputs
from model.replay.calibration_replay import CalibrationReplay
from model.replay.recompute import BATCH_SIZE, Model, Models

if TYPE_CHECKING:
    from model.features.scaler import SymbolScaler
    from model.forecasts.outlook import Outlook
    from model.registry.registry import Registry
    from model.replay.recompute import Recomputed

    Progress = Callable[[str, int, int], None]

TOLERANCE: Final = 1e-6
"""Relative for prices and thresholds, absolute for shares and the network's output."""

_DAY_MS: Final = 86_400_000

_OVERLAP: Final = 10
"""The calibration replay starts this many candles before a state was saved."""


class Difference(NamedTuple):
    """A computed value and its difference from the published one.

    Attributes:
        forecast: as it was published.
        field: name of the value.
        published: published value; None if there was none.
        computed: computed value; None if there is none.
        by: relative for prices and thresholds, absolute for shares and the network's output;
            infinite if only one of the values exists.
    """

    forecast: Published
    field: str
    published: float | None
    computed: float | None
    by: float


@dataclass
class Replayed:
    """Result of a replay.

    Attributes:
        compared: number of forecasts that were computed again.
        skipped: number of forecasts that could not be, by reason.
        without: number of compared forecasts without interval and probabilities, by reason.
        largest: largest difference of each field.
        differences: those above `TOLERANCE`.
    """

    compared: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    without: Counter[str] = field(default_factory=Counter)
    largest: dict[str, float] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)

    def add_difference(self, found: Difference) -> None:
        """Add the comparison of one value."""
        self.largest[found.field] = max(self.largest.get(found.field, 0.0), found.by)
        if not found.by <= TOLERANCE:
            self.differences.append(found)


class _Case(NamedTuple):
    """A forecast with what is needed to compute it; None where that is missing."""

    inputs: ForecastInputs
    outlook: Outlook | None
    scaler: SymbolScaler | None


def replay(
    reader: HistoryReader,
    registry: Registry,
    step_ms: int,
    from_ms: int,
    until_ms: int,
    progress: Progress,
) -> Replayed:
    """Compute again the forecasts published from ``from_ms`` to before ``until_ms`` (Unix ms).

    Args:
        reader: candles and forecasts of one exchange and timeframe.
        registry: holds the models.
        step_ms: length of a candle.
        from_ms: earliest closing time of the newest candle of a forecast.
        until_ms: end of these closing times, exclusive.
        progress: called with a symbol, its forecasts done and their number.
    """
    replayed, models = Replayed(), Models(registry)
    for group in reader.forecast_groups(from_ms, until_ms):
        try:
            model = models.open(group.version, group.sha256)
        except BundleError:
            replayed.skipped["its model is not in the registry any more"] += group.forecasts
            continue
        done = 0
        for batch in _batches(_cases(reader, model, group, step_ms)):
            _compare(model, batch, replayed)
            done += len(batch)
            progress(group.symbol, done, group.forecasts)
    return replayed


def _cases(
    reader: HistoryReader, model: Model, group: ForecastGroup, step_ms: int
) -> Iterator[_Case]:
    """Yield the forecasts of a model and a symbol, each with its outlook computed again."""
    symbol, states = group.symbol, reader.states(group)
    before = [at for at, (saved_ms, _) in enumerate(states) if saved_ms <= group.first_ms]
    states = states[before[-1] :] if before else states
    since_ms = states[0][0] - _OVERLAP * step_ms if before else group.first_ms - _DAY_MS
    published = reader.published(
        group, group.first_ms - (group.first_ms - since_ms) // step_ms * step_ms
    )
    calibration = CalibrationReplay(model.bundle.residuals, symbol, states, step_ms)
    scalers = model.scalers(symbol, reader.scalers(group))
    followed = None
    for inputs in forecast_inputs(reader, published, model.capacity, step_ms):
        outlook = calibration.outlook(inputs.forecast, inputs.window, followed)
        followed = inputs.followed
        if inputs.forecast.candle_close_ms >= group.first_ms:
            yield _Case(inputs, outlook, _scaler_at(scalers, inputs.forecast.published_ms))


def _scaler_at(
    scalers: Sequence[tuple[int, SymbolScaler]], published_ms: int
) -> SymbolScaler | None:
    """Return the newest scaler at that time; the first one if the clock was set back."""
    earlier = [scaler for since_ms, scaler in scalers if since_ms <= published_ms]
    candidates = earlier or [scaler for _, scaler in scalers[:1]]
    return candidates[-1] if candidates else None


def _batches(cases: Iterator[_Case]) -> Iterator[list[_Case]]:
    """Group consecutive cases with the same scaler."""
    for _, group in groupby(cases, key=lambda case: (id(case.scaler), case.inputs.window is None)):
        batch: list[_Case] = []
        for case in group:
            batch.append(case)
            if len(batch) == BATCH_SIZE:
                yield batch
                batch = []
        if batch:
            yield batch


def _compare(model: Model, batch: Sequence[_Case], replayed: Replayed) -> None:
    """Compute forecasts of one scaler again and compare every value with the published one."""
    scaler = batch[0].scaler
    windows = [case.inputs.window for case in batch if case.inputs.window is not None]
    if not windows:
        replayed.skipped["candles are missing in history"] += len(batch)
        return
    if scaler is None:
        replayed.skipped["its scaler is not in history"] += len(batch)
        return
    published = [case.inputs.forecast for case in batch]
    recomputed = model.run(
        scaler,
        np.stack(windows),
        np.array([forecast.last_close for forecast in published]),
        np.array([forecast.predicted_close for forecast in published]),
    )
    replayed.compared += len(batch)
    for at, case in enumerate(batch):
        for found in _network_differences(published[at], recomputed, at):
            replayed.add_difference(found)
        if published[at].learnt is None:
            replayed.without["written before history stored what they were computed from"] += 1
        elif case.outlook is None:
            replayed.without["history does not hold what they were computed from"] += 1
        else:
            for found in _calibration_differences(published[at], case.outlook):
                replayed.add_difference(found)


def _network_differences(
    forecast: Published, recomputed: Recomputed, at: int
) -> Iterator[Difference]:
    last, price, raw, out, edge, published_raw = (float(column[at]) for column in recomputed)
    yield _difference(forecast, "last_close", forecast.last_close, last, last)
    yield _difference(forecast, "predicted_close", forecast.predicted_close, price, price)
    yield _difference(forecast, "predicted_normalized", published_raw, raw, 1.0)
    if forecast.out_of_range is not None:
        found = _difference(forecast, "out_of_range", forecast.out_of_range, out, 1.0)
        yield found._replace(by=max(found.by - edge, 0.0))


def _calibration_differences(forecast: Published, outlook: Outlook) -> Iterator[Difference]:
    known = bool(outlook.known[0])
    for name, scale in (
        ("lower", forecast.last_close),
        ("upper", forecast.last_close),
        ("threshold", forecast.threshold or 1.0),
        ("short", 1.0),
        ("long", 1.0),
    ):
        computed = float(getattr(outlook, name)[0]) if known else None
        yield _difference(forecast, name, getattr(forecast, name), computed, scale)


def _difference(
    forecast: Published, name: str, published: float | None, computed: float | None, scale: float
) -> Difference:
    if published is None or computed is None:
        by = 0.0 if published is computed else math.inf
    else:
        by = abs(published - computed) / scale
    return Difference(forecast, name, published, computed, by)
