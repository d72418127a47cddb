"""Books and states keep until a burst is over, but not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from daemon.forecast.accounting import DeferredAccounting
from daemon.forecast.idle_work import IdleWork
from model.history.store import History
from model.registry.bundle import Bundle
from model.serving import ServedModel
from tests.daemon.control.test_hot_swap import Stage, check_all, loaded
from tests.support.manual_clock import ManualClock, PollingClock
from tests.support.pipeline_harness import (
    CAPACITY,
    ROWS,
    SYMBOLS,
    T0,
    Route,
    Tape,
    check,
    running,
)
from tests.support.tiny_models import Floats, promote


@pytest.fixture
def bundles(tmp_path: Path, candles: dict[str, Floats]) -> list[Bundle]:
    return [promote(tmp_path, candles, seed=seed) for seed in (7, 8)]


async def test_states_are_prepared_even_where_something_closes_all_the_time(
    bundle: Bundle, market: Tape, history: History
) -> None:
    clock = PollingClock(T0, 1.0)
    async with running(Route(bundle, history, clock=clock)) as path:
        path.warm(market, CAPACITY)
        await path.pipeline.settled()
        for end in range(CAPACITY + 1, ROWS):
            path.at(end)
            for symbol in SYMBOLS:
                made = len(path.published.forecasts)
                clock.move(0.005)
                path.close(market, symbol, end - 1)
                while len(path.published.forecasts) == made:
                    await asyncio.sleep(0.001)
                # However busy the machine: what others do in their threads gets on meanwhile.
                await path.pipeline.ping()
        clock.move(1.0)
        await path.pipeline.settled()
        made = len(path.published.forecasts)
        # More than those that were prepared in the quiet before.
        assert made - path.sample("candlecast_unprepared_total") > len(SYMBOLS)
        assert path.scored() == made - len(SYMBOLS)
    check(bundle, market, path.published.forecasts[-1])


class Refilled:
    """A ledger to which the next closing candle has added something whenever one looks."""

    def __init__(self) -> None:
        self.on_settled: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return 1

    def settle(self, most: int) -> None:
        assert most >= 1
        self.on_settled()


async def test_states_are_prepared_though_every_candle_adds_to_the_ledger() -> None:
    clock, ledger = ManualClock(T0), Refilled()
    prepared: list[int] = []
    served = cast(
        "ServedModel",
        SimpleNamespace(
            preparation=lambda slots: (slots, slots),
            prepare=lambda slots, _rows, _stamps: prepared.extend(slots.tolist()),
        ),
    )
    with ThreadPoolExecutor(1) as worker:
        catch_up = IdleWork(
            cast("DeferredAccounting", ledger), worker, clock, lambda: served, lambda: False
        )
        # While something is entered the next candle closes.
        ledger.on_settled = catch_up.stand_back
        catch_up.put_off([3])
        task = asyncio.create_task(catch_up.run())
        for _ in range(4):
            catch_up.arrived(clock.monotonic())
            catch_up.go_on()
            await clock.advance(0.1)
        assert not prepared
        for _ in range(4):
            catch_up.arrived(clock.monotonic())
            catch_up.go_on()
            await clock.advance(0.1)
        task.cancel()
        await asyncio.wait([task])
    assert prepared == [3]


async def test_what_was_published_is_in_the_books_when_the_path_ends(
    bundle: Bundle, market: Tape, history: History
) -> None:
    async with running(Route(bundle, history)) as path:
        path.warm(market, CAPACITY)
        while len(path.published.forecasts) < len(SYMBOLS):
            await asyncio.sleep(0)
    assert path.accuracy.pending == len(SYMBOLS)


async def test_in_a_market_that_never_rests_the_new_model_takes_over_all_the_same(
    bundles: list[Bundle],
    market: Tape,
    history: History,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("hot_swap", "standby"):
        monkeypatch.setattr(f"daemon.control.{module}._MAX_IDLE_WAIT_S", 0.02)
    monkeypatch.setattr("daemon.control.standby._MIN_IDLE_WAIT_S", 0.002)
    clock = PollingClock(T0, 1.0)
    async with running(Route(bundles[0], history, clock=clock)) as route:
        stage, ready = Stage(route, bundles[0]), loaded(bundles[1])
        route.warm(market, CAPACITY)
        await route.pipeline.settled()
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
                # However busy the machine: what others do in their threads gets on meanwhile.
                await route.pipeline.ping()
                await asyncio.sleep(0.005)
            if swapped:
                break
    versions = check_all(bundles, market, stage)
    assert len(versions) == 3 * (end - CAPACITY + 1)
    assert versions[-3:] == 3 * [bundles[1].version]
