"""Cache warming runs before a close, ends with it and changes no state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from daemon.forecast.cache_warming import CacheWarmer, next_span_ms
from model.core.candle import Timeframe
from model.history.store import History
from model.registry.bundle import Bundle
from model.serving import DRY_RUN_SYMBOLS, ServedModel
from tests.support.manual_clock import ManualClock, settle
from tests.support.pipeline_harness import (
    CAPACITY,
    MINUTE,
    SYMBOLS,
    T0,
    PipelineHarness,
    SampleMarket,
    check,
    running,
)

CLOSE_MS = T0 + (CAPACITY + 1) * MINUTE.ms


@pytest.fixture
async def path(
    bundle: Bundle, history: History, market: SampleMarket
) -> AsyncIterator[PipelineHarness]:
    async with running(PipelineHarness(bundle, history)) as made:
        made.warm(market, CAPACITY)
        await made.scheduler.wait_idle()
        yield made


@pytest.fixture
def dry_runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of symbols in each dry run."""
    seen: list[int] = []
    original = ServedModel.dry_run

    def noting(self: ServedModel, idx: np.ndarray, *candles: np.ndarray) -> object:
        seen.append(len(idx))
        return original(self, idx, *candles)

    monkeypatch.setattr(ServedModel, "dry_run", noting)
    return seen


@asynccontextmanager
async def warming(path: PipelineHarness, clock: ManualClock) -> AsyncIterator[None]:
    warmer = CacheWarmer(
        table=path.table,
        scheduler=path.scheduler,
        issuer=path.issuer,
        clock=clock,
        timeframe=lambda: MINUTE,
    )
    task = asyncio.create_task(warmer.run())
    await settle()
    yield
    task.cancel()


@pytest.mark.parametrize(
    ("text", "now_ms", "span"),
    [
        ("1m", T0, (59_985, 62_000, 60_000)),
        ("1m", T0 + 59_984, (59_985, 62_000, 60_000)),
        # A close too soon to warm for is skipped.
        ("1m", T0 + 59_985, (119_985, 122_000, 120_000)),
        ("1s", T0, (985, 1_250, 1_000)),
    ],
)
def test_warming_is_scheduled_for_the_next_close_with_enough_time(
    text: str, now_ms: int, span: tuple[int, int, int]
) -> None:
    found = next_span_ms(now_ms, Timeframe.parse(text))
    assert tuple(at - T0 for at in found) == span


async def test_warming_runs_from_before_the_boundary_until_the_first_candle_closes(
    path: PipelineHarness, market: SampleMarket, dry_runs: list[int]
) -> None:
    clock = ManualClock(CLOSE_MS - 1_000)
    async with warming(path, clock):
        await clock.advance(0.984)
        assert not dry_runs
        for _ in range(6):
            await clock.advance(0.011)
        assert dry_runs == [len(SYMBOLS)] * 6
        path.close(market, "B/U", CAPACITY)
        await path.scheduler.wait_idle()
        await clock.advance(0.011)
        await clock.advance(0.011)
        assert len(dry_runs) == 6


async def test_warming_ends_where_a_market_stays_silent(
    path: PipelineHarness, dry_runs: list[int]
) -> None:
    clock = ManualClock(CLOSE_MS - 15)
    async with warming(path, clock):
        await clock.advance(60.0)
        begun = len(dry_runs)
        for _ in range(500):
            await clock.advance(0.005)
        assert 200 < len(dry_runs) - begun < 410
        assert clock.slept[-1] > 50.0


async def test_warming_changes_no_forecast_and_publishes_nothing(
    path: PipelineHarness, bundle: Bundle, market: SampleMarket
) -> None:
    clock = ManualClock(CLOSE_MS - 15)
    before = len(path.published.forecasts)
    async with warming(path, clock):
        for end in range(CAPACITY + 1, CAPACITY + 6):
            clock.move_to(T0 + end * MINUTE.ms - 15)
            await settle()
            await clock.advance(0.015)
            path.at(end)
            for symbol in SYMBOLS:
                path.close(market, symbol, end - 1)
            await path.scheduler.wait_idle()
    made = path.published.forecasts[before:]
    assert len(made) == 5 * len(SYMBOLS)
    for forecast in made:
        check(bundle, market, forecast)


async def test_symbols_without_a_history_are_left_out(
    bundle: Bundle, history: History, dry_runs: list[int]
) -> None:
    clock = ManualClock(CLOSE_MS - 15)
    async with running(PipelineHarness(bundle, history)) as path, warming(path, clock):
        await clock.advance(60.0)
    assert not dry_runs
    assert len(SYMBOLS) <= DRY_RUN_SYMBOLS
