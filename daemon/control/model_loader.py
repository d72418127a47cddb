"""From the promoted bundle to a model that can serve: open, verify, compare, compile, warm."""

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
    """What a model must be for, and how it runs.

    Attributes:
        registry: folder of the bundles.
        symbols: ccxt symbols; their order is the slot of every per-symbol array.
        timeframe: ccxt timeframe.
        features: names, in order.
        indicators: periods.
        target: what the network forecasts.
        lookback: candles in a window.
        device: where the network runs.
        threads: of one run on the CPU.
        max_batch: symbols of one run at most, a power of two.
        rules: what intervals and probabilities shall be.
        fit_unknown: serve symbols too that the model was not trained on, by a scaler fitted to
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
    threads: int
    max_batch: int
    rules: Rules
    fit_unknown: bool


def open_champion(recipe: ModelRequirements) -> Bundle:
    """Open the promoted model, verified and fit for what is asked.

    Raises:
        NoChampion: nothing was promoted yet.
        BundleError: the champion does not verify, or was trained for something else.
    """
    try:
        version = Registry(recipe.registry).champion()
    except NoChampion:
        msg = (
            "no model has been promoted; "
            "run: candlecast fetch && candlecast train --promote && candlecast run"
        )
        raise NoChampion(msg) from None
    return open_model(recipe, version)


def open_model(recipe: ModelRequirements, version: str) -> Bundle:
    """Open any model, verified and fit for what is asked.

    Raises:
        BundleError: it does not verify, was trained for something else, or its graphs are of other
            layers than its manifest says or hold weights that are not finite.
    """
    bundle = Registry(recipe.registry).open(version)
    check_fit(
        bundle.manifest,
        timeframe=recipe.timeframe,
        features=recipe.features,
        indicators=recipe.indicators,
        target=recipe.target,
        lookback=recipe.lookback,
    )
    unknown = [s for s in recipe.symbols if s not in bundle.scalers.by_symbol]
    if unknown and not recipe.fit_unknown:
        msg = (
            f"model {bundle.version} was not trained on {', '.join(unknown)}; remove them from "
            "trading.symbols, train a model with them, or set model.unknown_symbols: fit_on_warmup"
        )
        raise Misfit(msg)
    check_graphs(bundle.onnx, bundle.manifest.units)
    return bundle


def make_served(
    recipe: ModelRequirements, bundle: Bundle, now_s: Callable[[], float]
) -> ServedModel:
    """Compile a bundle's network for the recipe's symbols and device.

    Args:
        recipe: what is asked for.
        bundle: opened and fit.
        now_s: a monotonic clock, seconds.

    Raises:
        BundleError: graphs that are broken or of another shape.
        CandlecastError: no GPU where one was asked for.
    """
    manifest = bundle.manifest
    shape = len(recipe.symbols), manifest.lookback, len(manifest.features)
    n_symbols, lookback, n_features = shape
    device, why = choose_device(recipe.device, bundle.onnx, lookback, n_features, n_symbols, now_s)
    log.info("%s", why)
    engine = Engine(
        bundle.onnx, *shape, device=device, threads=recipe.threads, max_batch=recipe.max_batch
    )
    return ServedModel(bundle, recipe.symbols, engine, recipe.rules, fit_unknown=recipe.fit_unknown)


def open_first(recipe: ModelRequirements) -> Bundle:
    """Do as `open_champion` does, for a daemon that has no other model to go on with.

    Raises:
        NoChampion: nothing was promoted yet.
        Misfit: the champion was trained for something else.
        Unservable: it cannot be served.
    """
    with _first(recipe.registry):
        return open_champion(recipe)


def make_first(
    recipe: ModelRequirements, bundle: Bundle, now_s: Callable[[], float]
) -> ServedModel:
    """Do as `make_served` does, for a daemon that has no other model to go on with.

    Raises:
        Unservable: the network cannot be served.
        CandlecastError: no GPU where one was asked for.
    """
    with _first(recipe.registry):
        return make_served(recipe, bundle, now_s)


@contextmanager
def _first(root: Path) -> Iterator[None]:
    """Say what to do where the champion cannot be served."""
    try:
        yield
    except (NoChampion, Misfit):
        # They say what to do.
        raise
    except BundleError as error:
        raise unservable(root, str(error)) from error


def unservable(root: Path, why: str) -> Unservable:
    """What to tell when the champion cannot be served at the start.

    No other model is served in its place: which one forecasts is for a person to say.

    Args:
        root: folder of the bundles.
        why: what is wrong with the champion.
    """
    registry, version, previous = Registry(root), "", None
    try:
        version = registry.champion()
        previous = registry.previous()
        sound = previous is not None and bool(registry.open(previous))
    except BundleError:
        sound = False
    cure = (
        f"to serve {previous}, the model before it, run: candlecast models rollback"
        if sound
        else "train another one: candlecast train --promote"
    )
    return Unservable(f"the champion {version} cannot be served: {why}; {cure}")


class Loader:
    """Makes models ready to serve; every method blocks and belongs into a thread."""

    def __init__(self, recipe: ModelRequirements, now_s: Callable[[], float]) -> None:
        """Prepare.

        Args:
            recipe: what is asked for; its symbols and ``fit_unknown`` may change later.
            now_s: a monotonic clock, seconds.
        """
        self._recipe = recipe
        self._now_s = now_s

    def allow_unknown(self, allow: bool) -> None:  # noqa: FBT001 - a value
        """Say whether symbols that a model was not trained on are served from now on."""
        self._recipe = self._recipe._replace(fit_unknown=allow)

    def examine(self, symbols: tuple[str, ...]) -> Bundle:
        """The champion, if it can serve these symbols.

        Raises:
            BundleError: it cannot.
        """
        return open_champion(self._recipe._replace(symbols=symbols))

    def champion(self, symbols: tuple[str, ...]) -> ServedModel:
        """The champion, ready to serve these symbols.

        Raises:
            BundleError: it cannot.
        """
        return self._ready(self.examine(symbols), symbols)

    def version(self, version: str, symbols: tuple[str, ...]) -> ServedModel:
        """Any model, ready to serve these symbols.

        Raises:
            BundleError: it cannot.
        """
        recipe = self._recipe._replace(symbols=symbols)
        return self._ready(open_model(recipe, version), symbols)

    def _ready(self, bundle: Bundle, symbols: tuple[str, ...]) -> ServedModel:
        recipe = self._recipe._replace(symbols=symbols)
        served = make_served(recipe, bundle, self._now_s)
        served.warm()
        return served
