"""Compute published forecasts again from history and report every difference.

The close that a forecast started from and the price that was forecast come from the candles and
the network. Interval and probabilities come from the *published* price, which is what the
calibration learnt from: the network's last digits depend on how many symbols it runs at a time, and
a calibration would carry them on for ever. What the configuration says today has no part in it.
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
from model.replay.as_of import Known, as_known
from model.replay.calibration_replay import CalibrationReplay
from model.replay.recompute import TOGETHER, Model, Models

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
"""Candles before a state was saved from which on its calibration is followed."""


class Difference(NamedTuple):
    """A value, and how much it differs from what was published.

    Attributes:
        forecast: as it was published.
        field: the value's name.
        published: it was this then; None: there was none.
        computed: it is this now; None: there is none.
        by: relative for prices and thresholds, absolute for shares and the network's output;
            infinite where there is only one of both.
    """

    forecast: Published
    field: str
    published: float | None
    computed: float | None
    by: float


@dataclass
class Replayed:
    """What a replay found.

    Attributes:
        compared: forecasts that were computed again.
        skipped: forecasts that could not be, by reason.
        without: those of them whose interval and probabilities could not be, by reason.
        largest: the largest difference of each field.
        differences: those above `TOLERANCE`.
    """

    compared: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    without: Counter[str] = field(default_factory=Counter)
    largest: dict[str, float] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)

    def note(self, found: Difference) -> None:
        """Take down one comparison."""
        self.largest[found.field] = max(self.largest.get(found.field, 0.0), found.by)
        if not found.by <= TOLERANCE:
            self.differences.append(found)


class _Case(NamedTuple):
    """A forecast with all that is known of it; None: that is not known."""

    known: Known
    outlook: Outlook | None
    scaler: SymbolScaler | None


def replay(
    archive: HistoryReader,
    registry: Registry,
    step_ms: int,
    from_ms: int,
    until_ms: int,
    progress: Progress,
) -> Replayed:
    """Compute again what was published from ``from_ms`` to before ``until_ms`` (Unix ms).

    Args:
        archive: candles and forecasts of one exchange and timeframe.
        registry: the models that spoke.
        step_ms: length of a candle.
        from_ms: earliest closing of the newest candle of a forecast.
        until_ms: the latest is before this.
        progress: told how far a symbol is.
    """
    replayed, models = Replayed(), Models(registry)
    for spoken in archive.spoken(from_ms, until_ms):
        try:
            model = models.of(spoken.version, spoken.sha256)
        except BundleError:
            replayed.skipped["its model is not in the registry any more"] += spoken.forecasts
            continue
        done = 0
        for batch in _batches(_cases(archive, model, spoken, step_ms)):
            _compare(model, batch, replayed)
            done += len(batch)
            progress(spoken.symbol, done, spoken.forecasts)
    return replayed


def _cases(
    archive: HistoryReader, model: Model, spoken: ForecastGroup, step_ms: int
) -> Iterator[_Case]:
    """The forecasts of a model and a symbol, each with its calibration as it was."""
    symbol, states = spoken.symbol, archive.states(spoken)
    before = [at for at, (saved_ms, _) in enumerate(states) if saved_ms <= spoken.first_ms]
    states = states[before[-1] :] if before else states
    since_ms = states[0][0] - _OVERLAP * step_ms if before else spoken.first_ms - _DAY_MS
    made = archive.published(
        spoken, spoken.first_ms - (spoken.first_ms - since_ms) // step_ms * step_ms
    )
    retrace = CalibrationReplay(model.bundle.residuals, symbol, states, step_ms)
    scalers = model.scalers(symbol, archive.scalers(spoken))
    followed = None
    for known in as_known(archive, made, model.capacity, step_ms):
        outlook = retrace.outlook(known.forecast, known.window, followed)
        followed = known.followed
        if known.forecast.candle_close_ms >= spoken.first_ms:
            yield _Case(known, outlook, _scaler_at(scalers, known.forecast.published_ms))


def _scaler_at(
    scalers: Sequence[tuple[int, SymbolScaler]], published_ms: int
) -> SymbolScaler | None:
    """The newest one of its time; a first one has no rival, whatever the clock said."""
    of_then = [scaler for since_ms, scaler in scalers if since_ms <= published_ms]
    candidates = of_then or [scaler for _, scaler in scalers[:1]]
    return candidates[-1] if candidates else None


def _batches(cases: Iterator[_Case]) -> Iterator[list[_Case]]:
    """Cases that can be computed together."""
    for _, group in groupby(cases, key=lambda case: (id(case.scaler), case.known.window is None)):
        batch: list[_Case] = []
        for case in group:
            batch.append(case)
            if len(batch) == TOGETHER:
                yield batch
                batch = []
        if batch:
            yield batch


def _compare(model: Model, batch: Sequence[_Case], replayed: Replayed) -> None:
    """Compute forecasts of one scaler once more, and hold every value against what was said."""
    scaler = batch[0].scaler
    windows = [case.known.window for case in batch if case.known.window is not None]
    if not windows:
        replayed.skipped["candles are missing in history"] += len(batch)
        return
    if scaler is None:
        replayed.skipped["its scaler is not in history"] += len(batch)
        return
    made = [case.known.forecast for case in batch]
    rerun = model.run(
        scaler,
        np.stack(windows),
        np.array([forecast.last_close for forecast in made]),
        np.array([forecast.predicted_close for forecast in made]),
    )
    replayed.compared += len(batch)
    for at, case in enumerate(batch):
        for found in _of_network(made[at], rerun, at):
            replayed.note(found)
        if made[at].learnt is None:
            replayed.without["written before history kept what they rest on"] += 1
        elif case.outlook is None:
            replayed.without["history does not tell what they rest on"] += 1
        else:
            for found in _of_calibration(made[at], case.outlook):
                replayed.note(found)


def _of_network(forecast: Published, rerun: Recomputed, at: int) -> Iterator[Difference]:
    last, price, raw, out, edge, said = (float(column[at]) for column in rerun)
    yield _difference(forecast, "last_close", forecast.last_close, last, last)
    yield _difference(forecast, "predicted_close", forecast.predicted_close, price, price)
    yield _difference(forecast, "predicted_normalized", said, raw, 1.0)
    if forecast.out_of_range is not None:
        found = _difference(forecast, "out_of_range", forecast.out_of_range, out, 1.0)
        yield found._replace(by=max(found.by - edge, 0.0))


def _of_calibration(forecast: Published, outlook: Outlook) -> Iterator[Difference]:
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
