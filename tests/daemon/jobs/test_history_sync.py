"""Missing candles, and only those, are fetched by REST into the history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.jobs.history_sync import HistorySync, Span, missing_spans
from daemon.jobs.rest_pages import open_pages
from daemon.runtime.clock import SystemClock
from daemon.sandbox.exchange import SandboxExchange
from daemon.sandbox.market import Faults
from daemon.sandbox.recording import Playback, build_playback
from model.core.candle import Candle, Timeframe
from model.core.errors import ExchangeError
from model.core.market import MarketKey
from model.history.reader import HistoryReader

MINUTE = Timeframe.parse("1m")
SYMBOL = "S00/USDT"
MARKET = MarketKey("binance", MINUTE)


@given(st.sets(st.integers(0, 40)), st.integers(0, 40), st.integers(0, 40))
def test_present_and_missing_parts_make_up_the_span(slots: set[int], one: int, other: int) -> None:
    start, end = sorted((one, other))
    there = [slot for slot in sorted(slots) if start <= slot < end]
    spans = missing_spans((10 * s for s in there), Span(10 * start, 10 * end), 10)
    missing = [at // 10 for span in spans for at in range(*span, 10)]
    assert sorted(there + missing) == list(range(start, end))
    # Adjacent candles are fetched together.
    assert all(a.until_ms < b.from_ms for a, b in pairwise(spans))


@pytest.fixture
def playback() -> Playback:
    return build_playback(1, MINUTE, MINUTE.floor(SystemClock().wall_ms()) - 3_000 * MINUTE.ms)


@pytest.fixture
async def exchange(playback: Playback) -> AsyncIterator[SandboxExchange]:
    async with SandboxExchange(playback, faults=Faults()) as running:
        yield running


class RecordedProgress:
    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int]] = []

    def update(self, symbol: str, done: int, total: int) -> None:
        self.steps.append((symbol, done, total))


async def complete(
    path: Path, exchange: SandboxExchange, span: Span
) -> tuple[int, RecordedProgress]:
    progress = RecordedProgress()
    supply = HistorySync(path, MARKET, SystemClock(), progress)
    url, clock = exchange.rest_url, SystemClock()
    async with open_pages("binance", url, (SYMBOL,), MINUTE, clock, "again") as pages:
        return await supply.fetch_missing(pages, [SYMBOL], span), progress


def stored(path: Path, span: Span) -> list[Candle]:
    archive = HistoryReader(path, MarketKey.parse("binance", "1m"))
    try:
        return archive.revisions(SYMBOL, *span)
    finally:
        archive.close()


@pytest.mark.may_block("the test looks into the history")
async def test_only_missing_candles_are_fetched_and_each_once(
    exchange: SandboxExchange, playback: Playback, tmp_path: Path
) -> None:
    path = tmp_path / "history.sqlite"
    start_ms = playback.origin_ms + 10 * MINUTE.ms
    span = Span(start_ms, start_ms + 2_400 * MINUTE.ms)
    added, progress = await complete(path, exchange, span)
    assert added == 2_400
    assert progress.steps[-1] == (SYMBOL, 2_400, 2_400)
    whole = stored(path, span)
    assert [candle.open_ms for candle in whole] == list(range(*span, MINUTE.ms))
    assert all(candle.final_by == "rest" for candle in whole)

    added, progress = await complete(path, exchange, span)
    assert (added, progress.steps) == (0, [])
    wider = Span(span.from_ms - 5 * MINUTE.ms, span.until_ms + 7 * MINUTE.ms)
    added, progress = await complete(path, exchange, wider)
    assert added == 12
    assert progress.steps[-1][1:] == (12, 12)
    assert len(stored(path, wider)) == 2_412


@pytest.mark.may_block("the test looks into the history")
async def test_periods_without_a_trade_are_filled_and_not_requested_again(
    exchange: SandboxExchange, playback: Playback, tmp_path: Path
) -> None:
    path = tmp_path / "history.sqlite"
    start_ms = playback.origin_ms + 10 * MINUTE.ms
    span = Span(start_ms, start_ms + 30 * MINUTE.ms)
    hole = [start_ms + slot * MINUTE.ms for slot in (7, 8, 9)]
    exchange.faults.untraded = {(SYMBOL, at) for at in hole}
    added, _ = await complete(path, exchange, span)
    assert added == 30
    flat = [candle for candle in stored(path, span) if candle.filled]
    assert [candle.open_ms for candle in flat] == hole
    assert {candle.ohlcv.volume for candle in flat} == {0.0}
    assert (await complete(path, exchange, span))[0] == 0


async def test_a_ban_ends_it_in_one_line_and_keeps_the_fetched_candles(
    exchange: SandboxExchange, playback: Playback, tmp_path: Path
) -> None:
    span = Span(playback.origin_ms, playback.origin_ms + 60 * MINUTE.ms)
    url, clock, path = exchange.rest_url, SystemClock(), tmp_path / "history.sqlite"
    async with open_pages("binance", url, (SYMBOL,), MINUTE, clock, "run again") as pages:
        exchange.ban(418, 60.0)
        supply = HistorySync(path, MARKET, clock, RecordedProgress())
        with pytest.raises(ExchangeError, match=rf"{SYMBOL} \(run again\)"):
            await supply.fetch_missing(pages, [SYMBOL], span)
