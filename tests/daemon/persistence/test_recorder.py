"""Check that the recorder writes every row, and drops and counts rows while the disk is full."""

from __future__ import annotations

import asyncio
import logging
import resource
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.metrics.metrics import Metrics
from daemon.persistence.recorder import Recorder
from model.core.candle import Candle, Ohlcv
from model.core.market import MarketKey
from model.forecasts.batch import ForecastBatch
from model.history.rows import Rows
from model.history.store import History
from tests.support.manual_clock import FixedWallClock
from tests.support.sample_forecasts import batch_of, forecast_at
from tests.support.servers import MAX_WAIT_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

T0 = 1_776_859_560_000
MINUTE = 60_000
KEEP_DAYS = 36_500
MARKET = MarketKey.parse("binance", "1m")
NOW_MS = T0 + 100 * MINUTE


def candle(slot: int, symbol: str = "BTC/USDT") -> Candle:
    open_ms = T0 + slot * MINUTE
    close_ms = open_ms + MINUTE
    ohlcv = Ohlcv(1.0, 2.0, 0.5, 1.5, 3.0)
    return Candle(symbol, open_ms, close_ms, ohlcv, close_ms + 12, 5.0, "exchange_flag")


def forecast(slot: int) -> ForecastBatch:
    return batch_of(forecast_at(T0 + (slot + 1) * MINUTE))


def value(metrics: Metrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(f"candlecast_history_{name}")


@asynccontextmanager
async def running(recorder: Recorder) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(recorder.run())
        await asyncio.sleep(0)
        yield
        task.cancel()


@contextmanager
def full_disk() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def slots(history: History, symbol: str = "BTC/USDT") -> list[int]:
    return [(c.open_ms - T0) // MINUTE for c in history.candles(MARKET, symbol, 9999)]


async def until(reached: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(MAX_WAIT_S):
        while not await reached():
            await asyncio.sleep(0.005)


async def until_failing_is(expected: float, metrics: Metrics) -> None:
    async def reached() -> bool:
        return value(metrics, "failing") == expected

    await until(reached)


def log_levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.levelname for r in caplog.records if r.name == "candlecast.persistence"]


def recorder_of(history: History, metrics: Metrics, max_rows: int = 100) -> Recorder:
    return Recorder(
        history,
        MARKET,
        KEEP_DAYS,
        FixedWallClock(NOW_MS, speed=100),
        metrics,
        max_rows=max_rows,
    )


async def test_queued_rows_are_written_and_can_be_read_meanwhile(history: History) -> None:
    recorder = recorder_of(history, Metrics())
    async with running(recorder):
        recorder.record_candles([candle(0)])
        recorder.record_forecasts(forecast(0))

        async def written() -> bool:
            return bool(await recorder.execute(slots))

        await until(written)
        recorder.record_candles([candle(1)])
        await recorder.flush()
        assert await recorder.execute(slots) == [0, 1]
    ((row, close),) = await asyncio.to_thread(lambda: list(history.outcomes(MARKET, 9)))
    assert (row.predicted_close, close) == (101.0, 1.5)


async def test_all_rows_queued_before_the_end_are_written(history: History) -> None:
    recorder = recorder_of(history, Metrics())
    async with running(recorder):
        for slot in range(50):
            recorder.record_candles([candle(slot)])
            if slot % 10 == 0:
                await asyncio.sleep(0.001)
    assert await asyncio.to_thread(slots, history) == list(range(50))


async def test_a_full_disk_is_logged_once_and_writing_resumes(
    history: History, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    metrics = Metrics()
    recorder = recorder_of(history, metrics)
    async with running(recorder):
        with full_disk():
            for slot in range(150):
                recorder.record_candles([candle(slot)])
            await until_failing_is(1.0, metrics)
            for slot in range(150, 160):
                recorder.record_candles([candle(slot)])
            await asyncio.sleep(0.05)  # several attempts later
            assert log_levels(caplog) == ["WARNING"]
            assert "forecasts go on" in caplog.text
        await until_failing_is(0.0, metrics)
    assert await asyncio.to_thread(slots, history) == list(range(60, 160))  # the newest hundred
    assert value(metrics, "lost_rows_total") == 60.0
    assert log_levels(caplog) == ["WARNING", "INFO"]


async def test_the_oldest_entries_are_lost_as_a_whole(history: History) -> None:
    metrics = Metrics()
    recorder = recorder_of(history, metrics, max_rows=10)
    recorder.record_candles([candle(slot) for slot in range(6)])
    recorder.record_forecasts(forecast(0))
    recorder.record_candles([candle(slot) for slot in range(6, 9)])
    assert value(metrics, "lost_rows_total") == 0.0
    recorder.record_forecasts(forecast(1))
    assert value(metrics, "lost_rows_total") == 6.0
    await recorder.flush()
    assert await recorder.execute(slots) == [6, 7, 8]
    outcomes = await recorder.execute(lambda h: list(h.outcomes(MARKET, 9)))
    assert [o.forecast.candle_close_ms for o in outcomes] == [T0 + MINUTE, T0 + 2 * MINUTE]
    assert value(metrics, "lost_rows_total") == 6.0
    assert value(metrics, "waiting_rows") == 0.0


async def test_revisions_are_stored_in_the_order_of_arrival(history: History) -> None:
    """Of two that arrived within one millisecond the later one stays."""
    recorder = recorder_of(history, Metrics())
    revised = candle(0)._replace(ohlcv=Ohlcv(1.0, 2.0, 0.5, 1.25, 3.0))
    recorder.record_candles([candle(0)])
    recorder.record_candles([revised, candle(1)])
    await recorder.flush()
    first, _ = await recorder.execute(lambda h: h.candles(MARKET, "BTC/USDT", 2))
    assert first.ohlcv == revised.ohlcv


async def test_a_transaction_is_bounded(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    add = History.add

    def counted(self: History, market: MarketKey, rows: Rows) -> None:
        sizes.append(rows.total)
        add(self, market, rows)

    monkeypatch.setattr(History, "add", counted)
    recorder = recorder_of(history, Metrics(), max_rows=20_000)
    for count in (1_000, 2_999, 2, 5_000, 1):
        recorder.record_candles([candle(slot) for slot in range(count)])
    await recorder.flush()
    assert sizes == [3_999, 2, 5_000, 1]


async def test_rows_lost_at_the_end_are_counted(
    history: History, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    recorder = recorder_of(history, metrics)
    with full_disk():
        async with running(recorder):
            for slot in range(20):
                recorder.record_candles([candle(slot)])
    assert value(metrics, "lost_rows_total") == 20.0
    assert "20 rows of history are lost" in caplog.text


def oldest_opening(path: Path) -> int:
    with sqlite3.connect(path) as database:
        (oldest_s,) = database.execute("SELECT min(open_s) FROM candle").fetchone()
    database.close()
    return int(oldest_s)


async def test_old_rows_are_pruned_at_the_start(history: History, tmp_path: Path) -> None:
    old = [candle(slot) for slot in range(100)]
    await asyncio.to_thread(history.add_candles, MARKET, old)
    recorder = Recorder(
        history, MARKET, 10 * MINUTE / 86_400_000, FixedWallClock(NOW_MS, speed=100), Metrics()
    )

    async def pruned() -> bool:
        return len(await recorder.execute(slots)) == 10

    async with running(recorder):
        await until(pruned)
    oldest_s = await asyncio.to_thread(oldest_opening, tmp_path / "history.sqlite")
    assert oldest_s * 1000 == T0 + 90 * MINUTE


async def test_pruning_on_a_full_disk_is_tried_again(
    history: History, caplog: pytest.LogCaptureFixture
) -> None:
    old = [candle(slot, f"S{number}/USDT") for slot in range(20) for number in range(100)]
    await asyncio.to_thread(history.add_candles, MARKET, old)
    metrics = Metrics()
    with full_disk():
        async with running(
            Recorder(history, MARKET, 0.0, FixedWallClock(NOW_MS, speed=100), metrics)
        ):
            await until_failing_is(1.0, metrics)
    assert log_levels(caplog) == ["WARNING"]
    assert len(await asyncio.to_thread(slots, history, "S99/USDT")) == 20


async def test_a_programming_error_is_not_taken_for_a_full_disk(history: History) -> None:
    recorder = recorder_of(history, Metrics())
    recorder.record_candles([candle(0)._replace(final_by=None)])
    with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
        async with running(recorder):
            await asyncio.sleep(10)
