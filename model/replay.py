"""What was published, computed again from history as it was known at the time.

Only what history holds is compared: the close that a forecast started from and the price that was
forecast. Intervals and probabilities depend on everything that their calibration had learnt, and
history keeps only the newest state of that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from model.archive import Archive, Published
from model.engine import Engine
from model.errors import BundleError
from model.serving import ServedModel
from model.volatility import WARMUP

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.bundle import Bundle
    from model.candle import Candle
    from model.registry import Registry

    Floats = NDArray[np.float64]
    Progress = Callable[[str, int, int], None]

TOLERANCE: Final = 1e-6
"""Relative for prices, absolute for the network's output."""

_TOGETHER: Final = 256
"""Windows that are computed in one go."""


class Difference(NamedTuple):
    """A value that came out differently.

    Attributes:
        forecast: as it was published.
        field: `last_close`, `predicted_close`, or `predicted_normalized`.
        published: its value then.
        computed: its value now.
        by: relative for prices, absolute for the network's output.
    """

    forecast: Published
    field: str
    published: float
    computed: float
    by: float


class Replayed(NamedTuple):
    """What a replay found.

    Attributes:
        compared: forecasts that were computed again.
        skipped: forecasts that could not be, by reason.
        largest: the largest difference of each field.
        differences: those above `TOLERANCE`.
    """

    compared: int
    skipped: Mapping[str, int]
    largest: Mapping[str, float]
    differences: Sequence[Difference]


class _Again(NamedTuple):
    """A forecast, and the window that it was made from, ``[capacity, 5]``."""

    forecast: Published
    window: Floats


def replay(
    archive: Archive,
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
    skipped: Counter[str] = Counter()
    differences: list[Difference] = []
    largest: dict[str, float] = {}
    compared = 0
    models = _Models(registry)
    every = sorted(archive.published(from_ms, until_ms), key=lambda f: (f.symbol, f.version))
    for (symbol, version), group in groupby(every, key=lambda f: (f.symbol, f.version)):
        made = list(group)
        try:
            model = models.of(version, made[0].sha256)
        except BundleError:
            skipped["its model is not in the registry any more"] += len(made)
            continue
        if not model.knows(symbol):
            skipped["its scaler was fitted while it ran"] += len(made)
            continue
        windows = _windows(archive, made, model.capacity, step_ms)
        whole = [again for again in windows if not np.isnan(again.window).any()]
        skipped["candles are missing in history"] += len(made) - len(whole)
        for start in range(0, len(whole), _TOGETHER):
            for found in model.compare(symbol, whole[start : start + _TOGETHER]):
                largest[found.field] = max(largest.get(found.field, 0.0), found.by)
                if not found.by <= TOLERANCE:
                    differences.append(found)
            progress(symbol, min(start + _TOGETHER, len(whole)), len(whole))
        compared += len(whole)
    return Replayed(compared, +skipped, largest, differences)


def _windows(
    archive: Archive, made: Sequence[Published], capacity: int, step_ms: int
) -> Iterator[_Again]:
    """The window behind each forecast, NaN where history has no candle, as it was known then."""
    first_ms = made[0].candle_close_ms - capacity * step_ms
    rows = (made[-1].candle_close_ms - first_ms) // step_ms
    known, flat = np.full((rows, 5), np.nan), np.ones(rows, dtype=np.bool_)
    revisions = archive.revisions(made[0].symbol, first_ms, made[-1].candle_close_ms)
    coming = iter(sorted(revisions, key=lambda candle: candle.received_ms))
    candle = next(coming, None)
    for forecast in made:
        while candle is not None and candle.received_ms <= forecast.published_ms:
            _take(candle, (candle.open_ms - first_ms) // step_ms, known, flat)
            candle = next(coming, None)
        end = (forecast.candle_close_ms - first_ms) // step_ms
        yield _Again(forecast, known[end - capacity : end].copy())


def _take(candle: Candle, row: int, known: Floats, flat: NDArray[np.bool_]) -> None:
    # That nothing was traded is concluded, not told: what the exchange told stays.
    if candle.filled and not flat[row]:
        return
    known[row], flat[row] = candle.ohlcv, candle.filled


class _Models:
    """The models of a registry, each opened and compiled once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._opened: dict[str, _Model | None] = {}

    def of(self, version: str, sha256: str) -> _Model:
        """A model that spoke.

        Raises:
            BundleError: it is gone, or not what it was.
        """
        if version not in self._opened:
            self._opened[version] = None
            self._opened[version] = _Model(self._registry.open(version))
        model = self._opened[version]
        if model is None or model.sha256 != sha256:
            msg = f"model {version} is not what it was"
            raise BundleError(msg)
        return model


class _Model:
    """One model, run as the daemon runs it."""

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        self._bundle = bundle
        self._engine = Engine(bundle.onnx, _TOGETHER, manifest.lookback, len(manifest.features))
        self.sha256 = bundle.sha256
        self.capacity = max(manifest.indicators.warmup + manifest.lookback, WARMUP)

    def knows(self, symbol: str) -> bool:
        """Whether the bundle holds the symbol's scaler."""
        return symbol in self._bundle.scalers.by_symbol

    def compare(self, symbol: str, again: Sequence[_Again]) -> Iterator[Difference]:
        """Forecast once more and hold every value against what was published."""
        count = len(again)
        served = ServedModel(self._bundle, [symbol] * count, self._engine)
        idx = np.arange(count)
        windows = np.stack([one.window for one in again])
        served.rebuild(idx, windows)
        raw = served.full(served.windows(idx)).astype(np.float64)
        last = windows[:, -1, 3]
        price = served.price(idx, raw.astype(np.float32), last)
        said = np.array([one.forecast.predicted_close for one in again])
        said_raw = _raw(served, idx, np.array([one.forecast.last_close for one in again]), said)
        for at, (forecast, _) in enumerate(again):
            for field, published, computed, scale in (
                ("last_close", forecast.last_close, float(last[at]), forecast.last_close),
                ("predicted_close", forecast.predicted_close, float(price[at]), price[at]),
                ("predicted_normalized", float(said_raw[at]), float(raw[at]), 1.0),
            ):
                by = abs(published - computed) / scale
                yield Difference(forecast, field, published, computed, float(by))


def _raw(served: ServedModel, idx: NDArray[np.intp], last: Floats, price: Floats) -> Floats:
    """The network's output behind prices: `ServedModel.price` is a line through it, or its exp."""
    zero, one = (
        served.price(idx, np.full(len(idx), value, dtype=np.float32), last) for value in (0.0, 1.0)
    )
    if served.target != "close":
        zero, one, price = np.log(zero / last), np.log(one / last), np.log(price / last)
    return (price - zero) / (one - zero)
