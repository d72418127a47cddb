"""Open, verify, compile and warm models of the registry so that they can serve."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from model.core.errors import BundleError, Misfit, NoChampion, Unservable
from model.features.definitions import Indicators
from model.forecasts.rules import Rules
from model.inference.engine import Engine, choose_device
from model.inference.onnx_weights import check_graphs
from model.registry.manifest import check_fit
from model.registry.registry import Registry
from model.serving import ServedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model.registry.bundle import Bundle

log = logging.getLogger("candlecast.control")


class ModelRequirements(NamedTuple):
    """What a model must have been trained for, and how it runs.

    Attributes:
        registry: folder of the bundles.
        symbols: ccxt symbols; their order is the slot of every per-symbol array.
        timeframe: ccxt timeframe.
        features: names, in order.
        indicators: periods.
        target: what the network forecasts.
        lookback: candles in a window.
        device: where the network runs.
        rules: settings of intervals and probabilities.
        fit_unknown: also serve symbols that the model was not trained on, with a scaler fitted to
            their first window.
    """

    registry: Path
    symbols: tuple[str, ...]
    timeframe: str
    features: tuple[str, ...]
    indicators: Indicators
    target: str
    lookback: int
    device: Literal["auto", "cpu", "gpu"]
    rules: Rules
    fit_unknown: bool


def open_champion(requirements: ModelRequirements) -> Bundle:
    """Open the promoted model, verified and checked against the requirements.

    Raises:
        NoChampion: no model was promoted yet.
        BundleError: the champion does not verify, or was trained for something else.
    """
    try:
        version = Registry(requirements.registry).champion()
    except NoChampion:
        msg = (
            "no model has been promoted; "
            "run: candlecast fetch && candlecast train --promote && candlecast run"
        )
        raise NoChampion(msg) from None
    return open_model(requirements, version)


def open_model(requirements: ModelRequirements, version: str) -> Bundle:
    """Open any model, verified and checked against the requirements.

    Raises:
        BundleError: it does not verify, was trained for something else, or its graphs have other
            layers than its manifest says or weights that are not finite.
    """
    bundle = Registry(requirements.registry).open(version)
    check_fit(
        bundle.manifest,
        timeframe=requirements.timeframe,
        features=requirements.features,
        indicators=requirements.indicators,
        target=requirements.target,
        lookback=requirements.lookback,
    )
    unknown = [s for s in requirements.symbols if s not in bundle.scalers.by_symbol]
    if unknown and not requirements.fit_unknown:
        msg = (
            f"model {bundle.version} was not trained on {', '.join(unknown)}; remove them from "
            "trading.symbols, train a model with them, or set model.unknown_symbols: fit_on_warmup"
        )
        raise Misfit(msg)
    check_graphs(bundle.onnx, bundle.manifest.units)
    return bundle


def make_served(
    requirements: ModelRequirements, bundle: Bundle, now_s: Callable[[], float]
) -> ServedModel:
    """Compile a bundle's network for the required symbols and device.

    Args:
        requirements: the symbols and how to run.
        bundle: opened and checked.
        now_s: a monotonic clock, seconds.

    Raises:
        BundleError: its graphs are broken or of another shape.
        CandlecastError: a GPU is required and there is none.
    """
    manifest = bundle.manifest
    shape = len(requirements.symbols), manifest.lookback, len(manifest.features)
    n_symbols, lookback, n_features = shape
    device, reason = choose_device(
        requirements.device, bundle.onnx, lookback, n_features, n_symbols, now_s
    )
    log.info("%s", reason)
    engine = Engine(bundle.onnx, *shape, device=device)
    return ServedModel(
        bundle,
        requirements.symbols,
        engine,
        requirements.rules,
        fit_unknown=requirements.fit_unknown,
    )


def open_first(requirements: ModelRequirements) -> Bundle:
    """Call `open_champion` for a daemon that is starting and has no other model to serve.

    Raises:
        NoChampion: no model was promoted yet.
        Misfit: the champion was trained for something else.
        Unservable: it cannot be served.
    """
    with _unservable_with_advice(requirements.registry):
        return open_champion(requirements)


def make_first(
    requirements: ModelRequirements, bundle: Bundle, now_s: Callable[[], float]
) -> ServedModel:
    """Call `make_served` for a daemon that is starting and has no other model to serve.

    Raises:
        Unservable: the network cannot be served.
        CandlecastError: a GPU is required and there is none.
    """
    with _unservable_with_advice(requirements.registry):
        return make_served(requirements, bundle, now_s)


@contextmanager
def _unservable_with_advice(root: Path) -> Iterator[None]:
    """Turn a `BundleError` into an `Unservable` that tells how to fix it."""
    try:
        yield
    except (NoChampion, Misfit):
        # Their messages already tell how to fix it.
        raise
    except BundleError as error:
        raise make_unservable(root, str(error)) from error


def make_unservable(root: Path, reason: str) -> Unservable:
    """Return the error to raise when the champion cannot be served at the start.

    No other model is served in its place: a person decides which model forecasts.

    Args:
        root: folder of the bundles.
        reason: why the champion cannot be served.
    """
    registry, version, previous = Registry(root), "", None
    try:
        version = registry.champion()
        previous = registry.previous()
        can_roll_back = previous is not None and bool(registry.open(previous))
    except BundleError:
        can_roll_back = False
    advice = (
        f"to serve {previous}, the model before it, run: candlecast models rollback"
        if can_roll_back
        else "train another one: candlecast train --promote"
    )
    return Unservable(f"the champion {version} cannot be served: {reason}; {advice}")


class ModelLoader:
    """Loads models that are ready to serve. The methods block: call them in a thread."""

    def __init__(self, requirements: ModelRequirements, now_s: Callable[[], float]) -> None:
        """Prepare.

        Args:
            requirements: of the models; symbols and ``fit_unknown`` may change later.
            now_s: a monotonic clock, seconds.
        """
        self._requirements = requirements
        self._now_s = now_s

    def allow_unknown(self, allow: bool) -> None:  # noqa: FBT001 - a value
        """Set whether symbols that a model was not trained on are served from now on."""
        self._requirements = self._requirements._replace(fit_unknown=allow)

    def open_champion(self, symbols: tuple[str, ...]) -> Bundle:
        """Open the champion and check that it can serve these symbols.

        Raises:
            BundleError: it cannot serve them.
        """
        return open_champion(self._requirements._replace(symbols=symbols))

    def load_champion(self, symbols: tuple[str, ...]) -> ServedModel:
        """Return the champion, ready to serve these symbols.

        Raises:
            BundleError: it cannot serve them.
        """
        return self._compile(self.open_champion(symbols), symbols)

    def load_version(self, version: str, symbols: tuple[str, ...]) -> ServedModel:
        """Return any model, ready to serve these symbols.

        Raises:
            BundleError: it cannot serve them.
        """
        requirements = self._requirements._replace(symbols=symbols)
        return self._compile(open_model(requirements, version), symbols)

    def _compile(self, bundle: Bundle, symbols: tuple[str, ...]) -> ServedModel:
        requirements = self._requirements._replace(symbols=symbols)
        served = make_served(requirements, bundle, self._now_s)
        served.warm()
        return served
