"""Accounting and preparation wait until a burst is over, but for a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from daemon.forecast.accounting import DeferredAccounting
from daemon.forecast.batcher import Batcher
from daemon.forecast.idle_work import IdleWork
from daemon.forecast.scheduler import InferenceScheduler
from daemon.forecast.symbol_table import SymbolTable
from model.history.store import History
from model.registry.bundle import Bundle
from tests.daemon.control.test_hot_swap import Stage, check_all, loaded
from tests.support.manual_clock import ManualClock, PollingClock
from tests.support.pipeline_harness import (
    CAPACITY,
    ROWS,
    SYMBOLS,
    T0,
    PipelineHarness,
    SampleMarket,
    check,
    running,
)
from tests.support.tiny_models import Floats, promote


@pytest.fixture
def bundles(tmp_path: Path, candles: dict[str, Floats]) -> list[Bundle]:
    return [promote(tmp_path, candles, seed=seed) for seed in (7, 8)]


async def test_states_are_prepared_even_where_something_closes_all_the_time(
    bundle: Bundle, market: SampleMarket, history: History
) -> None:
    clock = PollingClock(T0, 1.0)
    async with running(PipelineHarness(bundle, history, clock=clock)) as path:
        path.warm(market, CAPACITY)
        await path.scheduler.wait_idle()
        for end in range(CAPACITY + 1, ROWS):
            path.at(end)
            for symbol in SYMBOLS:
                made = len(path.published.forecasts)
                clock.move(0.005)
                path.close(market, symbol, end - 1)
                while len(path.published.forecasts) == made:
                    await asyncio.sleep(0.001)
                # Work in other threads proceeds meanwhile, even on a busy machine.
                await path.scheduler.ping()
        clock.move(1.0)
        await path.scheduler.wait_idle()
        made = len(path.published.forecasts)
        # More than those that were prepared in the quiet before.
        assert made - path.sample("candlecast_unprepared_total") > len(SYMBOLS)
        assert path.scored() == made - len(SYMBOLS)
    check(bundle, market, path.published.forecasts[-1])


class Refilled:
    """Accounting that always contains work of the next closing candle."""

    def __init__(self) -> None:
        self.on_settled: Callable[[], object] = lambda: None

    def __len__(self) -> int:
        return 1

    def settle(self, most: int) -> None:
        assert most >= 1
        self.on_settled()


async def test_states_are_prepared_though_every_candle_adds_to_the_accounting(
    market: SampleMarket,
) -> None:
    clock, accounting = ManualClock(T0), Refilled()
    prepared: list[int] = []
    served = SimpleNamespace(
        preparation=lambda slots: (slots, slots),
        prepare=lambda slots, _rows, _stamps: prepared.extend(slots.tolist()),
    )
    scheduler = InferenceScheduler(batcher=Batcher(4), clock=clock)
    idle_work = IdleWork(
        accounting=cast("DeferredAccounting", accounting),
        scheduler=scheduler,
        table=cast("SymbolTable", SimpleNamespace(served=served)),
        clock=clock,
    )

    def drain() -> None:
        scheduler.on_candle_closed(T0, clock.monotonic())
        scheduler.drained.set()

    # While something is entered the next candle closes.
    accounting.on_settled = lambda: scheduler.enqueue(0, market.candle("A/U", 0))
    idle_work.prepare_later([3])
    task = asyncio.create_task(idle_work.run())
    for _ in range(4):
        drain()
        await clock.advance(0.1)
    assert not prepared
    for _ in range(4):
        drain()
        await clock.advance(0.1)
    # The worker thread has finished, even on a busy machine.
    await scheduler.ping()
    task.cancel()
    await asyncio.wait([task])
    scheduler.close()
    assert prepared == [3]


async def test_published_forecasts_are_accounted_for_at_the_end(
    bundle: Bundle, market: SampleMarket, history: History
) -> None:
    async with running(PipelineHarness(bundle, history)) as path:
        path.warm(market, CAPACITY)
        while len(path.published.forecasts) < len(SYMBOLS):
            await asyncio.sleep(0)
    assert path.accuracy.pending == len(SYMBOLS)


async def test_a_new_model_takes_over_even_in_a_constantly_busy_market(
    bundles: list[Bundle],
    market: SampleMarket,
    history: History,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("hot_swap.MAX_IDLE_WAIT_S", "standby._MAX_IDLE_WAIT_S"):
        monkeypatch.setattr(f"daemon.control.{name}", 0.02)
    monkeypatch.setattr("daemon.control.standby._MIN_IDLE_WAIT_S", 0.002)
    clock = PollingClock(T0, 1.0)
    async with running(PipelineHarness(bundles[0], history, clock=clock)) as route:
        stage, ready = Stage(route, bundles[0]), loaded(bundles[1])
        route.warm(market, CAPACITY)
        await route.scheduler.wait_idle()
        stage.make, stage.champion = lambda _: ready, bundles[1]
        swapping = asyncio.create_task(stage.hot_swap.poll())
        for end in range(CAPACITY + 1, ROWS):
            route.at(end)
            swapped = swapping.done()
            for symbol in SYMBOLS:
                made = len(route.published.forecasts)
                # So little of its time passes that the next one closes before the first is entered.
                clock.move(0.001)
                route.close(market, symbol, end - 1)
                while len(route.published.forecasts) == made:
                    await asyncio.sleep(0)
                # Work in other threads proceeds meanwhile, even on a busy machine.
                await route.scheduler.ping()
                await asyncio.sleep(0.005)
            if swapped:
                break
    versions = check_all(bundles, market, stage)
    assert len(versions) == 3 * (end - CAPACITY + 1)
    assert versions[-3:] == 3 * [bundles[1].version]
