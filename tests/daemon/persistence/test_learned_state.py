"""Check that a process resumes from the learned state of the last save."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import numpy as np
import pytest

from daemon.metrics.metrics import Metrics
from daemon.persistence.learned_state import LearnedStateStore
from daemon.persistence.recorder import Recorder
from model.core.market import MarketKey
from model.forecasts.rules import Rules
from model.history.rows import FittedScaler, Rows
from model.history.store import History
from model.inference.engine import Engine
from model.registry.bundle import Bundle
from model.serving import ServedModel
from tests.support.manual_clock import ManualClock, settle
from tests.support.servers import MAX_WAIT_S
from tests.support.tiny_models import SHORT, promote, random_candles

SYMBOLS = ("A/U", "B/U")
MARKET = MarketKey.parse("binance", "1m")
BOTH = np.arange(2)
ROWS = SHORT.warmup + 8
T0 = 1_776_859_200_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    candles = {symbol: random_candles(ROWS, seed) for seed, symbol in enumerate(SYMBOLS)}
    return promote(tmp_path_factory.mktemp("registry"), candles)


def served(bundle: Bundle) -> ServedModel:
    engine = Engine(bundle.onnx, 2, 8, len(bundle.manifest.features))
    model = ServedModel(bundle, SYMBOLS, engine, Rules(min_n=10))
    model.rebuild(BOTH, np.stack([random_candles(ROWS, seed) for seed in (0, 1)]))
    return model


def live(model: ServedModel, candles: int, seed: int) -> None:
    for row in random_candles(candles, seed):
        last = np.full(2, row[0])
        model.calibration.outlook(BOTH, last, last, np.full(2, T0))
        model.advance(BOTH, np.stack([row, row]))


def state(model: ServedModel) -> dict[str, bytes]:
    return model.calibration.snapshot().encode()


async def put(history: History, bundle: Bundle, content: bytes) -> None:
    model = bundle.version, bundle.sha256
    await asyncio.to_thread(history.save_calibration, MARKET, model, (T0, {"A/U": content}))


async def stored(history: History, bundle: Bundle) -> dict[str, bytes]:
    return await asyncio.to_thread(history.calibration, MARKET, bundle.sha256)


def drop_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE calibration")


@asynccontextmanager
async def process(
    history: History,
) -> AsyncIterator[tuple[LearnedStateStore, ManualClock, Recorder]]:
    clock = ManualClock(T0)
    recorder = Recorder(history, MARKET, 36_500, clock, Metrics(0))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(recorder.run())
        yield LearnedStateStore(recorder, MARKET, clock), clock, recorder
        task.cancel()


async def test_the_next_process_restores_the_last_save(bundle: Bundle, history: History) -> None:
    first, second = served(bundle), served(bundle)
    async with process(history) as (store, *_):
        await store.restore(first)
        live(first, 15, seed=3)
        await store.save(first)
        saved = state(first)
        # State from after the save, lost with the process.
        live(first, 5, seed=4)
    async with process(history) as (store, *_):
        await store.restore(second)
    assert state(second) == saved != state(first)
    live(second, 5, seed=4)
    assert state(second) == state(first)


async def test_a_process_stopped_while_starting_overwrites_nothing(
    bundle: Bundle, history: History
) -> None:
    await put(history, bundle, b"precious")
    async with process(history) as (store, *_):
        await store.save(served(bundle))
    assert await stored(history, bundle) == {"A/U": b"precious"}


async def test_a_state_that_does_not_fit_is_logged_and_replaced(
    bundle: Bundle, history: History, caplog: pytest.LogCaptureFixture
) -> None:
    await put(history, bundle, b"rubbish")
    model = served(bundle)
    async with process(history) as (store, *_):
        await store.restore(model)
        await store.save(model)
    assert "['A/U']" in caplog.text
    assert await stored(history, bundle) == state(model)


async def test_a_symbol_that_the_bundle_does_not_know_is_scaled_as_before_the_restart(
    bundle: Bundle, history: History, caplog: pytest.LogCaptureFixture
) -> None:
    def unknowing() -> ServedModel:
        engine = Engine(bundle.onnx, 2, 8, len(bundle.manifest.features))
        return ServedModel(bundle, ("A/U", "N/U"), engine, fit_unknown=True)

    first, second, third = unknowing(), unknowing(), unknowing()
    first.rebuild(BOTH, np.stack([random_candles(ROWS, seed) for seed in (0, 1)]))
    (state,) = first.take_fitted().values()

    def note(saved: bytes, fitted_ms: int) -> None:
        model = bundle.version, bundle.sha256
        history.add(MARKET, Rows(scalers=[FittedScaler(model, "N/U", fitted_ms, saved)]))

    await asyncio.to_thread(note, state, T0)
    async with process(history) as (store, *_):
        await store.restore(second)
    await asyncio.to_thread(note, b"rubbish", T0 + 1)
    async with process(history) as (store, *_):
        await store.restore(third)
    assert caplog.messages == ["scalers are fitted anew, the saved ones do not fit: ['N/U']"]
    later = np.stack([random_candles(ROWS, seed) for seed in (0, 2)])
    for model in (first, second, third):
        model.rebuild(BOTH, later)
    np.testing.assert_array_equal(first.windows(BOTH), second.windows(BOTH))
    assert list(third.take_fitted()) == ["N/U"]
    assert not np.array_equal(third.windows(BOTH)[1], first.windows(BOTH)[1])


async def test_it_saves_periodically_and_survives_a_failing_history(
    bundle: Bundle, history: History, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = served(bundle)

    def read(opened: History) -> dict[str, bytes]:
        return opened.calibration(MARKET, bundle.sha256)

    async with process(history) as (store, clock, recorder):
        await store.restore(model)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(store.run(lambda: model))
            await settle()
            await clock.advance(301.0)
            async with asyncio.timeout(MAX_WAIT_S):
                while await recorder.execute(read) != state(model):
                    await asyncio.sleep(0.01)
            live(model, 3, seed=5)
            await asyncio.to_thread(drop_table, tmp_path / "history.sqlite")
            await settle()
            await clock.advance(301.0)
            async with asyncio.timeout(MAX_WAIT_S):
                while "was not saved" not in caplog.text:
                    await asyncio.sleep(0.01)
            assert not task.done()
            task.cancel()
