"""Test that every published forecast can be computed again from history."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from daemon.control.hot_swap import ChampionSource, HotSwap
from daemon.persistence.learned_state import LearnedStateStore
from model.core.market import MarketKey
from model.forecasts.residuals import LEVELS, Residuals, SymbolResiduals
from model.forecasts.rules import Rules
from model.forecasts.volatility import WARMUP
from model.history.reader import HistoryReader
from model.history.store import History
from model.inference.engine import Engine
from model.registry.bundle import Bundle
from model.registry.registry import Registry
from model.replay.replay import TOLERANCE, Replayed, replay
from model.serving import ServedModel
from tests.support.manual_clock import FixedWallClock
from tests.support.pipeline_harness import (
    LOOKBACK,
    MINUTE,
    SYMBOLS,
    T0,
    PipelineHarness,
    SampleMarket,
    network,
    running,
)
from tests.support.tiny_models import random_candles, write

MARKET = MarketKey.parse("binance", "1m")
FIRST = 650
LAST = 750
MIDNIGHT = next(row for row in range(FIRST, LAST) if (T0 + row * MINUTE.ms) % 86_400_000 == 0)
MIN_N = 15
FIELDS = {
    *("last_close", "predicted_close", "predicted_normalized", "out_of_range"),
    *("lower", "upper", "threshold", "short", "long"),
}

QUANTILES = tuple(np.sort(np.random.default_rng(1).normal(0.0, 1.0, len(LEVELS))).tolist())
RESIDUALS = Residuals(by_symbol={"A/U": SymbolResiduals(400, QUANTILES)})


class Exchange:
    """The parts that run throughout, while the daemon is restarted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.market = SampleMarket(
            {s: random_candles(LAST + 5, seed) for seed, s in enumerate(SYMBOLS)}
        )
        # The last symbol is none of those that the models were trained on.
        trained = {s: self.market.values[s][:FIRST] for s in SYMBOLS[:2]}
        self.bundles = [
            write(folder / "registry", trained, seed=seed, residuals=RESIDUALS) for seed in (7, 8)
        ]
        self.champion = self.bundles[0]
        self.clock = FixedWallClock(T0)
        self.row = FIRST

    def load(self, bundle: Bundle, rules: Rules) -> ServedModel:
        engine = Engine(bundle.onnx, len(SYMBOLS), LOOKBACK, len(bundle.manifest.features))
        return ServedModel(bundle, SYMBOLS, engine, rules, fit_unknown=True)

    @asynccontextmanager
    async def daemon(self, history: History, rules: Rules) -> AsyncIterator[Process]:
        served = self.load(self.champion, rules)
        capacity = max(self.champion.manifest.indicators.warmup + LOOKBACK, WARMUP)
        route = PipelineHarness(
            self.champion, history, clock=self.clock, served=served, capacity=capacity
        )
        async with running(route):
            process = Process(self, route, rules)
            await process.state_store.restore(served)
            await asyncio.to_thread(
                route.issuer.last_published.open, self.folder / "last-published"
            )
            await process.warm()
            yield process


class Process:
    def __init__(self, exchange: Exchange, route: PipelineHarness, rules: Rules) -> None:
        self.exchange = exchange
        self.route = route
        self.state_store = LearnedStateStore(route.recorder, MARKET, route.clock)
        self.hot_swap = HotSwap(
            champion=ChampionSource(
                version=lambda: exchange.champion.version,
                check=lambda _: None,
                load=lambda _: exchange.load(exchange.champion, rules),
            ),
            table=route.table,
            scheduler=route.scheduler,
            pipeline=route.pipeline,
            learned_state=self.state_store,
            clock=route.clock,
            metrics=route.metrics,
        )

    async def warm(self) -> None:
        """Fetch what closed until now, as a start does."""
        clock, row, market = self.exchange.clock, self.exchange.row, self.exchange.market
        clock.now_ms = max(clock.now_ms + 1, T0 + row * MINUTE.ms + 20)
        for symbol in SYMBOLS:
            fetched = [c._replace(received_ms=clock.now_ms) for c in market.span(symbol, 0, row)]
            self.route.pipeline.on_history(symbol, fetched)
        await self.route.scheduler.wait_idle()

    async def until(self, row: int) -> None:
        """Let candles close."""
        exchange = self.exchange
        while exchange.row < row:
            exchange.row += 1
            self.route.at(exchange.row)
            for symbol in SYMBOLS:
                self.route.close(exchange.market, symbol, exchange.row - 1)
            await self.route.scheduler.wait_idle()

    async def save(self) -> None:
        await self.state_store.save(self.route.table.served)

    async def gap(self) -> None:
        """Two candles of a symbol come too late, by REST, when the next ones have closed."""
        exchange, route, (silent, *others) = self.exchange, self.route, SYMBOLS
        for _ in range(3):
            exchange.row += 1
            route.at(exchange.row)
            for symbol in others:
                route.close(exchange.market, symbol, exchange.row - 1)
            await route.scheduler.wait_idle()
        route.close(exchange.market, silent, exchange.row - 1)
        assert route.wanted.pop() == silent
        now_ms = exchange.clock.now_ms
        late = exchange.market.span(silent, exchange.row - 3, exchange.row)
        route.pipeline.on_history(silent, [c._replace(received_ms=now_ms) for c in late])
        await route.scheduler.wait_idle()

    async def revise(self) -> None:
        """The exchange revises an earlier candle."""
        exchange, symbol, at = self.exchange, SYMBOLS[1], self.exchange.row - 6
        exchange.market.revise(symbol, at, 1.01)
        exchange.clock.now_ms += 500
        revised = exchange.market.candle(symbol, at)._replace(received_ms=exchange.clock.now_ms)
        self.route.pipeline.on_history(symbol, [revised])
        await self.route.scheduler.wait_idle()


async def run_with_restarts(folder: Path) -> None:
    """A kill, a gap, a revision, other rules, midnight, another model and the first one again."""
    exchange = Exchange(folder)
    usual, narrow = Rules(min_n=MIN_N), Rules(level=0.8, min_n=MIN_N, threshold=0.001)
    with closing(History(folder / "history.sqlite")) as history:
        async with exchange.daemon(history, usual) as first:
            await first.until(FIRST + 25)
            await first.save()
            await first.until(FIRST + 31)
        # Killed: nothing was saved since.
        async with exchange.daemon(history, usual) as second:
            await second.until(FIRST + 40)
            await second.gap()
            await second.until(FIRST + 50)
            await second.revise()
            await second.until(FIRST + 55)
            await second.save()
        async with exchange.daemon(history, narrow) as third:
            await third.until(MIDNIGHT - 2)
            await third.save()
            await third.until(MIDNIGHT + 10)
            for champion, row in ((1, MIDNIGHT + 20), (0, LAST)):
                exchange.champion = exchange.bundles[champion]
                await third.hot_swap.poll()
                assert third.route.table.served.version == exchange.champion.version
                await third.until(row)
            await third.save()


async def run_with_random_restarts(folder: Path, chance: Random) -> None:
    """Processes that end in random ways and start again under random rules."""
    exchange = Exchange(folder)
    some = [Rules(min_n=MIN_N), Rules(level=0.8, min_n=MIN_N), Rules(gamma=0.02, min_n=MIN_N + 9)]
    with closing(History(folder / "history.sqlite")) as history:
        while exchange.row < LAST - 15:
            async with exchange.daemon(history, chance.choice(some)) as process:
                for _ in range(chance.randint(1, 6)):
                    await chance.choice((process.gap, process.revise, process.save))()
                    await process.until(min(exchange.row + chance.randint(0, 12), LAST - 10))
                    if exchange.row > LAST - 15:
                        break
                    exchange.champion = chance.choice(exchange.bundles)
                    await process.hot_swap.poll()
                if chance.random() < 0.5:
                    await process.save()


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("life")
    asyncio.run(run_with_restarts(folder))
    yield folder
    network.cache_clear()


@pytest.fixture
def place(run_folder: Path, tmp_path: Path) -> Path:
    """Of one's own, to be changed."""
    return Path(shutil.copytree(run_folder, tmp_path / "place"))


def again(folder: Path, first: int = 0, last: int = LAST + 1) -> Replayed:
    span = T0 + first * MINUTE.ms, T0 + last * MINUTE.ms
    with closing(HistoryReader(folder / "history.sqlite", MARKET)) as archive:
        return replay(archive, Registry(folder / "registry"), MINUTE.ms, *span, lambda *_: None)


def query(folder: Path, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "history.sqlite")) as database, database:
        return database.execute(statement, values).fetchall()


def test_every_value_of_every_forecast_is_reproduced(run_folder: Path) -> None:
    found = again(run_folder)
    assert found.differences == []
    assert (found.skipped, found.without) == ({}, {})
    assert set(found.largest) == FIELDS
    assert max(found.largest.values()) <= TOLERANCE
    assert query(run_folder, "SELECT count(*) FROM forecast") == [(found.compared,)]
    # Every case occurs: evidence and none, two rules, two models.
    without = query(run_folder, "SELECT count(*) FROM forecast WHERE lower IS NULL")[0][0]
    assert 2 * MIN_N < without < found.compared / 2
    assert query(run_folder, "SELECT count(*) FROM rules") == [(2,)]
    assert query(run_folder, "SELECT count(DISTINCT model) FROM forecast") == [(2,)]
    assert query(run_folder, "SELECT count(*) FROM scaler") == [(2,)]
    assert len(query(run_folder, "SELECT DISTINCT day FROM calibration")) == 2
    back = """SELECT count(*) FROM forecast AS a JOIN forecast AS b ON b.symbol = a.symbol
              AND b.close_s = a.close_s + 60 AND b.model = a.model AND b.learnt < a.learnt"""
    assert query(run_folder, back) == [(3,)]


def test_replay_is_exact_after_any_sequence_of_restarts(tmp_path: Path) -> None:
    chance = Random(18)
    asyncio.run(run_with_random_restarts(tmp_path, chance))
    for first in (0, chance.randint(FIRST, LAST - 30)):
        found = again(tmp_path, first)
        assert (found.differences, found.skipped, found.without) == ([], {}, {})
        assert set(found.largest) == FIELDS


@pytest.mark.parametrize("first", [FIRST + 20, FIRST + 38, MIDNIGHT - 1, MIDNIGHT + 5, LAST - 3])
def test_a_part_of_a_day_is_computed_from_the_state_before(run_folder: Path, first: int) -> None:
    found = again(run_folder, first, LAST - 1)
    span = T0 // 1000 + first * 60, T0 // 1000 + (LAST - 1) * 60
    stored = query(
        run_folder, "SELECT count(*) FROM forecast WHERE close_s >= ? AND close_s < ?", *span
    )
    assert stored == [(found.compared,)]
    assert (found.differences, found.skipped, found.without) == ([], {}, {})
    assert set(found.largest) == FIELDS


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("last_close = last_close * (1 + 2e-6)", "last_close"),
        ("predicted_close = predicted_close * (1 + 2e-6)", "predicted_close"),
        ("lower = lower * (1 - 2e-6)", "lower"),
        ("upper = upper * (1 + 2e-6)", "upper"),
        ("lower = NULL", "lower"),
        ("threshold = threshold * (1 + 2e-6)", "threshold"),
        ("short_ppb = short_ppb + 2000", "short"),
        ("long_ppb = NULL", "long"),
        ("outside_ppb = outside_ppb + 2000", "out_of_range"),
    ],
)
def test_a_changed_value_is_detected(place: Path, change: str, field: str) -> None:
    # The last one of its model: each forecast affects the calibration of all later ones.
    last = T0 // 1000 + LAST * 60
    change = f"UPDATE forecast SET {change} WHERE symbol = 1 AND close_s = ? RETURNING 1"  # noqa: S608 - see above
    assert query(place, change, last) == [(1,)]
    found = again(place)
    assert field in {one.field for one in found.differences}
    assert {one.forecast.candle_close_ms for one in found.differences} == {T0 + LAST * MINUTE.ms}
    prices = {"last_close", "predicted_close", "predicted_normalized"}
    assert len(found.differences) == 1 or field in prices


def test_unknown_parts_are_reported_and_later_forecasts_compared(place: Path) -> None:
    gone = "DELETE FROM forecast WHERE symbol = ? AND close_s = ? RETURNING 1"
    assert query(place, gone, 1, T0 // 1000 + (FIRST + 45) * 60) == [(1,)]
    found = again(place)
    assert (found.differences, found.skipped) == ([], {})
    # From there to the last state that was saved that day.
    lost = MIDNIGHT - 2 - (FIRST + 46)
    assert found.without == {"history does not hold what they were computed from": lost}


def test_forecasts_of_an_earlier_version_are_compared_as_far_as_they_go(place: Path) -> None:
    older = """UPDATE forecast SET learnt = NULL, rules = NULL, threshold = NULL,
        short_ppb = NULL, long_ppb = NULL, outside_ppb = NULL WHERE close_s < ? RETURNING 1"""
    count = len(query(place, older, T0 // 1000 + (FIRST + 42) * 60))
    found = again(place)
    assert (found.differences, found.skipped) == ([], {})
    assert found.without["written before history stored what they were computed from"] == count > 0
    assert found.without["history does not hold what they were computed from"] > 0
    assert found.compared > found.without.total()


@pytest.mark.parametrize("change", ["DELETE FROM scaler", "UPDATE scaler SET state = x'00'"])
def test_without_its_scaler_a_symbol_cannot_be_computed(place: Path, change: str) -> None:
    query(place, change)
    found = again(place)
    assert found.differences == []
    stored = query(place, "SELECT count(*) FROM forecast WHERE symbol = 3")[0][0]
    assert found.skipped == {"its scaler is not in history": stored}


def test_another_scaler_makes_a_difference(place: Path) -> None:
    query(place, "UPDATE scaler SET state = (SELECT state FROM scaler WHERE model = 2)")
    assert {one.forecast.symbol for one in again(place).differences} == {"C/U"}
