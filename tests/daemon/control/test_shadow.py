"""Check that a challenger is scored beside the champion and decided on once."""

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
from tests.support.manual_clock import FixedWallClock
from tests.support.pipeline_harness import (
    CAPACITY,
    LOOKBACK,
    MINUTE,
    SYMBOLS,
    T0,
    PipelineHarness,
    SampleMarket,
    network,
    running,
)
from tests.support.tiny_models import Floats, promote, random_candles

CANDLES = 100
"""Candles of evidence that the gate requires."""

ROWS = CAPACITY + 2 * CANDLES + 20
RULES = GateRules(gate_days=CANDLES / 1_440, margin=0.002, max_age_days=30.0)
FASTER = 100.0
"""How many times shorter sleeps are."""

pytestmark = pytest.mark.may_block("the test itself looks into the files")


@pytest.fixture(scope="module")
def candles() -> dict[str, Floats]:
    """More candles than elsewhere: a trial is long."""
    return {symbol: random_candles(ROWS, seed) for seed, symbol in enumerate(SYMBOLS)}


class Counting(ServedModel):
    """Counts its forecasts: a test waits for them."""

    forecasts = 0

    def full(self, windows: np.ndarray[Any, np.dtype[np.float32]]) -> Any:
        raw = super().full(windows)
        self.forecasts += len(windows)
        return raw


class ModelRegistry:
    """A registry of models whose forecasts differ in how far they are off."""

    def __init__(self, folder: Path, candles: dict[str, Floats]) -> None:
        self.folder = folder
        self.registry = Registry(folder / "registry")
        self.candles = candles
        self.offsets: dict[str, float] = {}
        self.made = 0
        self.loads = 0
        self.asked: tuple[str, ...] = ()
        self.tried: Counting | None = None
        self.files = TrialFiles(folder / "trial")

    def add_model(self, off: float, *, champion: bool = False) -> str:
        """Add a model; its forecasts are off by ``off`` returns of a candle."""
        before = self._champion()
        self.made += 1
        created_ms = T0 + self.made * 60_000
        bundle = promote(self.registry.root, self.candles, seed=self.made, created_ms=created_ms)
        if not champion and before is not None:
            (self.registry.root / "champion").write_text(before + "\n")
        self.offsets[bundle.version] = off
        return bundle.version

    def _champion(self) -> str | None:
        path = self.registry.root / "champion"
        return path.read_text().strip() if path.exists() else None

    def open(self, version: str) -> Bundle:
        """The model, with forecasts as far off as requested."""
        bundle = self.registry.open(version)
        scalers = {
            symbol: replace(scaler, target_offset=0.0, target_scale=2e-3 * self.offsets[version])
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
        """Versions and actions decided by live trials."""
        return [(e.version, e.action) for e in self.registry.decisions() if e.by == "shadow"]


@pytest.fixture
def models(tmp_path: Path, candles: dict[str, Floats]) -> Iterator[ModelRegistry]:
    yield ModelRegistry(tmp_path, candles)
    network.cache_clear()


class Stage:
    """A pipeline with the champion, and a shadow beside it."""

    def __init__(self, route: PipelineHarness, shadow: Shadow, models: ModelRegistry) -> None:
        self.route = route
        self.shadow = shadow
        self.models = models

    async def minutes(self, market: SampleMarket, first: int, count: int) -> None:
        """Close ``count`` candles, each forecast by both models before the next."""
        for end in range(first, first + count):
            self.route.at(end)
            for symbol in SYMBOLS:
                self.route.close(market, symbol, end - 1)
            await self.route.scheduler.wait_idle()
            # Wait until the shadow has forecast too.
            if (served := self.models.tried) is not None:
                enough = served.forecasts + len(SYMBOLS)
                with suppress(TimeoutError):
                    await until(lambda: served.forecasts >= enough, 0.5)  # noqa: B023
            await asyncio.sleep(0.005)

    def sample(self, name: str, **labels: str) -> float:
        found = self.route.metrics.registry.get_sample_value(f"candlecast_shadow_{name}", labels)
        assert found is not None
        return found


@asynccontextmanager
async def staged(
    models: ModelRegistry, history: History, market: SampleMarket, end: int
) -> AsyncIterator[Stage]:
    clock = FixedWallClock(T0, FASTER)
    route = PipelineHarness(models.open(models.registry.champion()), history, clock=clock)
    async with running(route):
        route.warm(market, end)
        await route.scheduler.wait_idle()
        shadow = Shadow(
            sources=TrialSources(models.registry, models.load, models.files, RULES),
            table=route.table,
            scheduler=route.scheduler,
            accuracy=route.accuracy,
            clock=clock,
            metrics=route.metrics,
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(shadow.run())
            yield Stage(route, shadow, models)
            task.cancel()


async def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


def offline(bundle: Bundle, market: SampleMarket, symbol: str, open_ms: int) -> float:
    """The price that a model forecasts for a candle, computed from the candles alone."""
    end = (open_ms - T0) // MINUTE.ms
    rows = market.features(symbol, bundle)[end - LOOKBACK : end]
    scaler = bundle.scalers.by_symbol[symbol]
    scaled = (rows - scaler.feature_min) / (scaler.feature_max - scaler.feature_min)
    raw = network(bundle.onnx, rows.shape[1]).full(scaled[None].astype(np.float32))[0]
    return float(market.values[symbol][end - 1, 3] * np.exp(raw * scaler.target_scale))


def assert_true(models: ModelRegistry, market: SampleMarket, losses: Losses, trial: Trial) -> None:
    """Check that each loss is that of its model."""
    assert losses.champion is not None
    bundles = {version: models.open(version) for version in trial[:2]}
    columns = (column.tolist() for column in (*losses[:4], losses.champion))
    for number, open_ms, last_value, challenger, champion in zip(*columns, strict=True):
        symbol, at = trial.symbols[number], (int(open_ms) - T0) // MINUTE.ms
        last, close = market.values[symbol][at - 1 : at + 1, 3]
        assert last_value == pytest.approx(abs(close - last) / last)
        for version, loss in ((trial.challenger, challenger), (trial.champion, champion)):
            price = offline(bundles[version], market, symbol, open_ms)
            assert loss == pytest.approx(abs(price - close) / last, abs=2e-7)
    pairs = set(zip(losses.symbol.tolist(), losses.open_ms.tolist(), strict=True))
    assert len(pairs) == len(losses.symbol)


async def test_a_better_challenger_is_promoted_by_live_evidence_that_survives_a_restart(
    models: ModelRegistry, history: History, market: SampleMarket
) -> None:
    champion = models.add_model(off=3.0, champion=True)
    challenger = models.add_model(off=0.05)
    half = CANDLES // 2
    async with staged(models, history, market, CAPACITY) as stage:
        await until(models.files.current)
        await stage.minutes(market, CAPACITY + 1, half)
        await until(lambda: len(models.files.losses().symbol) >= 3 * (half - 8))
        trial = models.files.current()
        assert trial == Trial(challenger, champion, SYMBOLS)
        assert_true(models, market, models.files.losses(), trial)
        assert stage.sample("candles") >= half - 8
        assert stage.sample("mae_ratio", role="challenger") < 1.1
        assert stage.sample("mae_ratio", role="champion") > 1.5
        assert stage.sample("info", version=challenger) == 1.0
        assert models.by_shadow == []
    gathered = len(models.files.losses().symbol)
    async with staged(models, history, market, CAPACITY + half) as stage:
        await stage.minutes(market, CAPACITY + half + 1, half + 30)
        await until(lambda: models.by_shadow)
        published = stage.route.published.forecasts
        assert {f["model"]["version"] for f in published} == {champion}
    assert gathered > 0
    assert models.by_shadow == [(challenger, "promote")]
    assert models.registry.champion() == challenger
    (entry,) = models.registry.decisions()
    assert entry.gate is not None
    assert entry.gate.rule == "better"
    assert CANDLES <= entry.gate.candles <= CANDLES + 30
    assert models.files.current() is None


async def test_a_worse_challenger_is_rejected_and_the_next_one_is_tried(
    models: ModelRegistry, history: History, market: SampleMarket
) -> None:
    champion = models.add_model(off=0.05, champion=True)
    worse = models.add_model(off=3.0)
    async with staged(models, history, market, CAPACITY) as stage:
        await until(models.files.current)
        # A newer challenger does not replace the trial under way.
        newer = models.add_model(off=2.0)
        await stage.minutes(market, CAPACITY + 1, CANDLES + 30)
        await until(lambda: models.by_shadow)
        assert models.by_shadow == [(worse, "keep")]
        await until(lambda: (found := models.files.current()) and found.challenger == newer)
        assert models.registry.champion() == champion
        # Promoting another model ends the trial, because its evidence is about the old champion.
        newest = models.add_model(off=1.0, champion=True)
        windows, served = stage.route.table.windows, models.load(newest, SYMBOLS)
        stage.route.pipeline.replace_model(served, windows, [-1] * len(windows))
        await until(lambda: models.files.current() is None)


async def test_a_trial_against_a_former_champion_is_discarded(
    models: ModelRegistry, history: History, market: SampleMarket
) -> None:
    champion = models.add_model(off=3.0, champion=True)
    challenger = models.add_model(off=0.05)
    open_ms, zero = T0 + MINUTE.ms * np.arange(CANDLES), np.zeros(CANDLES)
    found = Losses(zero.astype(int), open_ms, zero + 1.0, zero + 0.5, zero + 1.0)
    decision = decide(found, RULES, MINUTE.ms)
    assert decision.promote
    async with staged(models, history, market, CAPACITY) as stage:
        # The daemon has not loaded it yet and still serves the trial's champion.
        newest = models.add_model(off=1.0, champion=True)
        stage.shadow._conclude(Trial(challenger, champion, SYMBOLS), decision)  # noqa: SLF001
    assert models.by_shadow == []
    assert models.registry.champion() == newest


async def test_a_trial_continues_with_its_remaining_symbols(
    models: ModelRegistry, history: History, market: SampleMarket
) -> None:
    champion = models.add_model(off=1.0, champion=True)
    challenger = models.add_model(off=0.05)
    models.files.begin(Trial(challenger, champion, ("GONE/U", *SYMBOLS[1:])))
    async with staged(models, history, market, CAPACITY) as stage:
        await until(lambda: models.loads)
        assert models.asked == SYMBOLS[1:]
        # A symbol that was removed and added again has a new window.
        windows, served = stage.route.table.windows, models.load(champion, SYMBOLS)
        stage.route.pipeline.replace_model(served, windows, [-1] * len(windows))
        await until(lambda: models.loads == 3)
        assert models.asked == SYMBOLS[1:]
    models.files.begin(Trial(challenger, champion, ("GONE/U",)))
    async with staged(models, history, market, CAPACITY):
        await until(lambda: models.files.current() == Trial(challenger, champion, SYMBOLS))


async def test_no_trial_runs_while_the_champion_is_not_served(
    models: ModelRegistry, history: History, market: SampleMarket
) -> None:
    served = models.add_model(off=1.0, champion=True)
    async with staged(models, history, market, CAPACITY) as stage:
        refused = models.add_model(off=1.0, champion=True)
        challenger = models.add_model(off=0.05)
        # A poll takes a tenth of a second here; repeated loads would be counted.
        await asyncio.sleep(0.5)
        assert stage.route.table.served.version == served != refused
        assert (models.loads, models.files.current()) == (0, None)
        models.registry.promote(served)
        await until(lambda: models.loads)
        current = models.files.current()
        assert current is not None
        assert current.challenger == challenger


async def test_a_challenger_that_cannot_be_served_is_logged_once(
    models: ModelRegistry, history: History, market: SampleMarket, caplog: pytest.LogCaptureFixture
) -> None:
    models.add_model(off=0.05, champion=True)
    broken = models.add_model(off=0.05)
    (models.registry.root / broken / "step.onnx").write_bytes(b"no network")
    async with staged(models, history, market, CAPACITY) as stage:
        await until(lambda: "no live trial" in caplog.text)
        await stage.minutes(market, CAPACITY + 1, 5)
        assert len(stage.route.published.forecasts) == 3 * 6
        assert np.isnan(stage.sample("candles"))
    assert caplog.text.count("no live trial") == 1


def test_without_a_newer_model_there_is_no_trial(models: ModelRegistry) -> None:
    older = models.add_model(off=1.0, champion=True)
    newest = models.add_model(off=1.0, champion=True)
    shadow = Shadow.__new__(Shadow)
    shadow._registry, shadow._failed = models.registry, set()  # noqa: SLF001
    assert shadow._challengers(newest) == []  # noqa: SLF001
    # A model that a person rolled back gets no trial.
    models.registry.rollback()
    assert models.registry.champion() == older
    assert shadow._challengers(older) == []  # noqa: SLF001
