"""A challenger beside the champion: scored like it, judged once, and never in its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daemon.control.shadow import Shadow, TrialSources
from model.features.scaler import ScalerSet
from model.history.store import History
from model.inference.engine import Engine
from model.registry.bundle import Bundle
from model.registry.registry import Registry
from model.serving import ServedModel
from model.shared_state.live_trial import Trial, TrialFiles
from model.stats.promotion_gate import GateRules, Losses, decide
from tests.support.pipeline_harness import (
    CAPACITY,
    LOOKBACK,
    MINUTE,
    SYMBOLS,
    T0,
    Route,
    Tape,
    network,
    running,
)
from tests.support.tiny_models import Floats, promote, random_candles

CANDLES = 100
"""Of evidence: the gate wants so many at least."""

ROWS = CAPACITY + 2 * CANDLES + 20
RULES = GateRules(gate_days=CANDLES / 1_440, margin=0.002, max_age_days=30.0)
FASTER = 100.0
"""Pauses are so many times shorter."""

pytestmark = pytest.mark.may_block("the test itself looks into the files")


@pytest.fixture(scope="module")
def candles() -> dict[str, Floats]:
    """More of them than elsewhere: a trial takes its time."""
    return {symbol: random_candles(ROWS, seed) for seed, symbol in enumerate(SYMBOLS)}


class Counting(ServedModel):
    """Counts its forecasts, so that a test can wait for them."""

    forecasts = 0

    def full(self, windows: np.ndarray[Any, np.dtype[np.float32]]) -> Any:
        raw = super().full(windows)
        self.forecasts += len(windows)
        return raw


class Place:
    """A registry whose models are told apart by how far their forecasts go astray."""

    def __init__(self, folder: Path, candles: dict[str, Floats]) -> None:
        self.folder = folder
        self.registry = Registry(folder / "registry")
        self.candles = candles
        self.astray: dict[str, float] = {}
        self.made = 0
        self.loads = 0
        self.asked: tuple[str, ...] = ()
        self.tried: Counting | None = None
        self.files = TrialFiles(folder / "trial")

    def model(self, astray: float, *, champion: bool = False) -> str:
        """Add a model; its forecasts are off by ``astray`` returns of a candle."""
        before = self._champion()
        self.made += 1
        made_ms = T0 + self.made * 60_000
        bundle = promote(self.registry.root, self.candles, seed=self.made, created_ms=made_ms)
        if not champion and before is not None:
            (self.registry.root / "champion").write_text(before + "\n")
        self.astray[bundle.version] = astray
        return bundle.version

    def _champion(self) -> str | None:
        path = self.registry.root / "champion"
        return path.read_text().strip() if path.exists() else None

    def open(self, version: str) -> Bundle:
        """The model, going astray as far as it shall."""
        bundle = self.registry.open(version)
        scalers = {
            symbol: replace(scaler, target_offset=0.0, target_scale=2e-3 * self.astray[version])
            for symbol, scaler in bundle.scalers.by_symbol.items()
        }
        chosen = ScalerSet(bundle.scalers.features, bundle.scalers.target, scalers)
        return replace(bundle, scalers=chosen)

    def load(self, version: str, symbols: tuple[str, ...]) -> ServedModel:
        self.loads += 1
        self.asked = symbols
        bundle = self.open(version)
        engine = Engine(bundle.onnx, len(symbols), LOOKBACK, len(bundle.manifest.features))
        self.tried = Counting(bundle, symbols, engine)
        return self.tried

    @property
    def by_shadow(self) -> list[tuple[str, str]]:
        """Versions and actions that were decided live."""
        return [(e.version, e.action) for e in self.registry.decisions() if e.by == "shadow"]


@pytest.fixture
def place(tmp_path: Path, candles: dict[str, Floats]) -> Iterator[Place]:
    yield Place(tmp_path, candles)
    network.cache_clear()


class Stage:
    """A path, the champion on it, and a shadow beside."""

    def __init__(self, route: Route, shadow: Shadow, place: Place) -> None:
        self.route = route
        self.shadow = shadow
        self.place = place

    async def minutes(self, market: Tape, first: int, count: int) -> None:
        """Let so many candles close, each forecast by both models before the next."""
        for end in range(first, first + count):
            self.route.at(end)
            for symbol in SYMBOLS:
                self.route.close(market, symbol, end - 1)
            await self.route.scheduler.wait_idle()
            # Quiet for as long as the shadow needs.
            if (served := self.place.tried) is not None:
                enough = served.forecasts + len(SYMBOLS)
                with suppress(TimeoutError):
                    await until(lambda: served.forecasts >= enough, 0.5)  # noqa: B023
            await asyncio.sleep(0.005)

    def sample(self, name: str, **labels: str) -> float:
        found = self.route.metrics.registry.get_sample_value(f"candlecast_shadow_{name}", labels)
        assert found is not None
        return found


@asynccontextmanager
async def staged(place: Place, history: History, market: Tape, end: int) -> AsyncIterator[Stage]:
    route = Route(place.open(place.registry.champion()), history)
    clock = route.clock

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / FASTER)

    clock.sleep = sleep  # type: ignore[method-assign]
    clock.monotonic = lambda: FASTER * asyncio.get_running_loop().time()  # type: ignore[method-assign]
    async with running(route):
        route.warm(market, end)
        await route.scheduler.wait_idle()
        shadow = Shadow(
            sources=TrialSources(place.registry, place.load, place.files, RULES),
            table=route.table,
            scheduler=route.scheduler,
            accuracy=route.accuracy,
            clock=clock,
            metrics=route.metrics,
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(shadow.run())
            yield Stage(route, shadow, place)
            task.cancel()


async def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


def offline(bundle: Bundle, market: Tape, symbol: str, open_ms: int) -> float:
    """What a model forecasts of a candle, from the candles alone."""
    end = (open_ms - T0) // MINUTE.ms
    rows = market.features(symbol, bundle)[end - LOOKBACK : end]
    scaler = bundle.scalers.by_symbol[symbol]
    scaled = (rows - scaler.feature_min) / (scaler.feature_max - scaler.feature_min)
    raw = network(bundle.onnx, rows.shape[1]).full(scaled[None].astype(np.float32))[0]
    return float(market.values[symbol][end - 1, 3] * np.exp(raw * scaler.target_scale))


def assert_true(place: Place, market: Tape, losses: Losses, trial: Trial) -> None:
    """Each loss is that of the model it stands for."""
    assert losses.champion is not None
    models = {version: place.open(version) for version in trial[:2]}
    columns = (column.tolist() for column in (*losses[:4], losses.champion))
    for number, open_ms, last_value, challenger, champion in zip(*columns, strict=True):
        symbol, at = trial.symbols[number], (int(open_ms) - T0) // MINUTE.ms
        last, close = market.values[symbol][at - 1 : at + 1, 3]
        assert last_value == pytest.approx(abs(close - last) / last)
        for version, loss in ((trial.challenger, challenger), (trial.champion, champion)):
            price = offline(models[version], market, symbol, open_ms)
            assert loss == pytest.approx(abs(price - close) / last, abs=2e-7)
    pairs = set(zip(losses.symbol.tolist(), losses.open_ms.tolist(), strict=True))
    assert len(pairs) == len(losses.symbol)


async def test_a_better_challenger_is_promoted_by_live_evidence_that_survives_a_restart(
    place: Place, history: History, market: Tape
) -> None:
    champion = place.model(astray=3.0, champion=True)
    challenger = place.model(astray=0.05)
    half = CANDLES // 2
    async with staged(place, history, market, CAPACITY) as stage:
        await until(place.files.current)
        await stage.minutes(market, CAPACITY + 1, half)
        await until(lambda: len(place.files.losses().symbol) >= 3 * (half - 8))
        trial = place.files.current()
        assert trial == Trial(challenger, champion, SYMBOLS)
        assert_true(place, market, place.files.losses(), trial)
        assert stage.sample("candles") >= half - 8
        assert stage.sample("mae_ratio", role="challenger") < 1.1
        assert stage.sample("mae_ratio", role="champion") > 1.5
        assert stage.sample("info", version=challenger) == 1.0
        assert place.by_shadow == []
    gathered = len(place.files.losses().symbol)
    async with staged(place, history, market, CAPACITY + half) as stage:
        await stage.minutes(market, CAPACITY + half + 1, half + 30)
        await until(lambda: place.by_shadow)
        published = stage.route.published.forecasts
        assert {f["model"]["version"] for f in published} == {champion}
    assert gathered > 0
    assert place.by_shadow == [(challenger, "promote")]
    assert place.registry.champion() == challenger
    (entry,) = place.registry.decisions()
    assert entry.gate is not None
    assert entry.gate.rule == "better"
    assert CANDLES <= entry.gate.candles <= CANDLES + 30
    assert place.files.current() is None


async def test_a_worse_challenger_is_kept_out_once_and_the_next_one_gets_its_turn(
    place: Place, history: History, market: Tape
) -> None:
    champion = place.model(astray=0.05, champion=True)
    worse = place.model(astray=3.0)
    async with staged(place, history, market, CAPACITY) as stage:
        await until(place.files.current)
        # A newer one comes every night: the trial under way goes on.
        newer = place.model(astray=2.0)
        await stage.minutes(market, CAPACITY + 1, CANDLES + 30)
        await until(lambda: place.by_shadow)
        assert place.by_shadow == [(worse, "keep")]
        await until(lambda: (found := place.files.current()) and found.challenger == newer)
        assert place.registry.champion() == champion
        # Whoever promotes another one meanwhile ends the trial: its evidence compares with nobody.
        newest = place.model(astray=1.0, champion=True)
        windows, served = stage.route.table.windows, place.load(newest, SYMBOLS)
        stage.route.pipeline.replace_model(served, windows, [-1] * len(windows))
        await until(lambda: place.files.current() is None)


async def test_a_trial_beside_a_champion_that_is_none_any_more_promotes_nobody(
    place: Place, history: History, market: Tape
) -> None:
    champion = place.model(astray=3.0, champion=True)
    challenger = place.model(astray=0.05)
    open_ms, zero = T0 + MINUTE.ms * np.arange(CANDLES), np.zeros(CANDLES)
    found = Losses(zero.astype(int), open_ms, zero + 1.0, zero + 0.5, zero + 1.0)
    decision = decide(found, RULES, MINUTE.ms)
    assert decision.promote
    async with staged(place, history, market, CAPACITY) as stage:
        # The daemon is about to see it, and serves the trial's champion until then.
        newest = place.model(astray=1.0, champion=True)
        stage.shadow._conclude(Trial(challenger, champion, SYMBOLS), decision)  # noqa: SLF001
    assert place.by_shadow == []
    assert place.registry.champion() == newest


async def test_when_the_symbols_change_a_trial_goes_on_with_those_it_has(
    place: Place, history: History, market: Tape
) -> None:
    champion = place.model(astray=1.0, champion=True)
    challenger = place.model(astray=0.05)
    place.files.begin(Trial(challenger, champion, ("GONE/U", *SYMBOLS[1:])))
    async with staged(place, history, market, CAPACITY) as stage:
        await until(lambda: place.loads)
        assert place.asked == SYMBOLS[1:]
        # One that was removed and added again has another window than before.
        windows, served = stage.route.table.windows, place.load(champion, SYMBOLS)
        stage.route.pipeline.replace_model(served, windows, [-1] * len(windows))
        await until(lambda: place.loads == 3)
        assert place.asked == SYMBOLS[1:]
    place.files.begin(Trial(challenger, champion, ("GONE/U",)))
    async with staged(place, history, market, CAPACITY):
        await until(lambda: place.files.current() == Trial(challenger, champion, SYMBOLS))


async def test_beside_a_champion_that_the_daemon_does_not_serve_nothing_is_tried(
    place: Place, history: History, market: Tape
) -> None:
    served = place.model(astray=1.0, champion=True)
    async with staged(place, history, market, CAPACITY) as stage:
        refused = place.model(astray=1.0, champion=True)
        challenger = place.model(astray=0.05)
        # A look takes a tenth of a second here; loading a model again and again would not be free.
        await asyncio.sleep(0.5)
        assert stage.route.table.served.version == served != refused
        assert (place.loads, place.files.current()) == (0, None)
        place.registry.promote(served)
        await until(lambda: place.loads)
        current = place.files.current()
        assert current is not None
        assert current.challenger == challenger


async def test_a_challenger_that_cannot_be_served_costs_one_line(
    place: Place, history: History, market: Tape, caplog: pytest.LogCaptureFixture
) -> None:
    place.model(astray=0.05, champion=True)
    broken = place.model(astray=0.05)
    (place.registry.root / broken / "step.onnx").write_bytes(b"no network")
    async with staged(place, history, market, CAPACITY) as stage:
        await until(lambda: "no live trial" in caplog.text)
        await stage.minutes(market, CAPACITY + 1, 5)
        assert len(stage.route.published.forecasts) == 3 * 6
        assert np.isnan(stage.sample("candles"))
    assert caplog.text.count("no live trial") == 1


def test_without_a_newer_model_there_is_no_trial(place: Place) -> None:
    older = place.model(astray=1.0, champion=True)
    newest = place.model(astray=1.0, champion=True)
    shadow = Shadow.__new__(Shadow)
    shadow._registry, shadow._unfit = place.registry, set()  # noqa: SLF001
    assert shadow._challengers(newest) == []  # noqa: SLF001
    # Rolled back by a person: what was rolled back has had its chance.
    place.registry.rollback()
    assert place.registry.champion() == older
    assert shadow._challengers(older) == []  # noqa: SLF001
