"""A rehearsal comes before the close, ends with it, and changes nothing."""

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
from model.serving import REHEARSED, ServedModel
from tests.support.manual_clock import ManualClock, settle
from tests.support.pipeline_harness import (
    CAPACITY,
    MINUTE,
    SYMBOLS,
    T0,
    Route,
    Tape,
    check,
    running,
)

CLOSE_MS = T0 + (CAPACITY + 1) * MINUTE.ms


@pytest.fixture
async def path(bundle: Bundle, history: History, market: Tape) -> AsyncIterator[Route]:
    async with running(Route(bundle, history)) as made:
        made.warm(market, CAPACITY)
        await made.pipeline.settled()
        yield made


@pytest.fixture
def rehearsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many symbols each rehearsal was of."""
    seen: list[int] = []
    rehearse = ServedModel.rehearse

    def noting(self: ServedModel, idx: np.ndarray, *candles: np.ndarray) -> object:
        seen.append(len(idx))
        return rehearse(self, idx, *candles)

    monkeypatch.setattr(ServedModel, "rehearse", noting)
    return seen


@asynccontextmanager
async def rehearsing(path: Route, clock: ManualClock) -> AsyncIterator[None]:
    task = asyncio.create_task(CacheWarmer(path.pipeline, path.issuer, clock, lambda: MINUTE).run())
    await settle()
    yield
    task.cancel()


@pytest.mark.parametrize(
    ("text", "now_ms", "span"),
    [
        ("1m", T0, (59_985, 62_000, 60_000)),
        ("1m", T0 + 59_984, (59_985, 62_000, 60_000)),
        # What there is no time for any more is left out.
        ("1m", T0 + 59_985, (119_985, 122_000, 120_000)),
        ("1s", T0, (985, 1_250, 1_000)),
    ],
)
def test_it_is_for_the_next_close_that_there_is_time_for(
    text: str, now_ms: int, span: tuple[int, int, int]
) -> None:
    found = next_span_ms(now_ms, Timeframe.parse(text))
    assert tuple(at - T0 for at in found) == span


async def test_it_goes_on_from_before_the_boundary_until_the_first_candle_closes(
    path: Route, market: Tape, rehearsed: list[int]
) -> None:
    clock = ManualClock(CLOSE_MS - 1_000)
    async with rehearsing(path, clock):
        await clock.advance(0.984)
        assert not rehearsed
        for _ in range(6):
            await clock.advance(0.011)
        assert rehearsed == [len(SYMBOLS)] * 6
        path.close(market, "B/U", CAPACITY)
        await path.pipeline.settled()
        await clock.advance(0.011)
        await clock.advance(0.011)
        assert len(rehearsed) == 6


async def test_a_market_that_stays_silent_is_not_rehearsed_for_for_ever(
    path: Route, rehearsed: list[int]
) -> None:
    clock = ManualClock(CLOSE_MS - 15)
    async with rehearsing(path, clock):
        await clock.advance(60.0)
        begun = len(rehearsed)
        for _ in range(500):
            await clock.advance(0.005)
        assert 200 < len(rehearsed) - begun < 410
        assert clock.slept[-1] > 50.0


async def test_forecasts_are_the_same_and_nothing_else_leaves(
    path: Route, bundle: Bundle, market: Tape
) -> None:
    clock = ManualClock(CLOSE_MS - 15)
    before = len(path.published.forecasts)
    async with rehearsing(path, clock):
        for end in range(CAPACITY + 1, CAPACITY + 6):
            clock.move_to(T0 + end * MINUTE.ms - 15)
            await settle()
            await clock.advance(0.015)
            path.at(end)
            for symbol in SYMBOLS:
                path.close(market, symbol, end - 1)
            await path.pipeline.settled()
    made = path.published.forecasts[before:]
    assert len(made) == 5 * len(SYMBOLS)
    for forecast in made:
        check(bundle, market, forecast)


async def test_symbols_without_a_history_are_left_out(
    bundle: Bundle, history: History, rehearsed: list[int]
) -> None:
    clock = ManualClock(CLOSE_MS - 15)
    async with running(Route(bundle, history)) as path, rehearsing(path, clock):
        await clock.advance(60.0)
    assert not rehearsed
    assert len(SYMBOLS) <= REHEARSED
