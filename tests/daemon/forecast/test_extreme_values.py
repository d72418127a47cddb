"""Extreme values of one symbol affect no other, and no invalid forecast is published."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from daemon.candles.closing import ClosingRule
from daemon.candles.history_page import fill_untraded, parse_history
from daemon.control.drift_monitor import DriftMonitor
from daemon.control.standby import StandbyModel
from daemon.forecast.cache_warming import CacheWarmer
from daemon.forecast.forming import Forming
from model.core.candle import MAX_PRICE, MIN_PRICE, Candle
from model.core.errors import BadCandle
from model.forecasts.rules import Rules
from model.history.store import History
from model.inference.engine import Engine
from model.registry.bundle import Bundle
from model.serving import ServedModel
from tests.support.manual_clock import ManualClock, settle
from tests.support.pipeline_harness import (
    CAPACITY,
    LOOKBACK,
    MINUTE,
    SYMBOLS,
    T0,
    PipelineHarness,
    SampleMarket,
    check,
    running,
)
from tests.support.tiny_models import Floats, promote, random_candles

MIN_N = 3
SENT = 8
ROWS = CAPACITY + SENT + 1

HUGE, TINY = sys.float_info.max, 5e-324
prices = st.one_of(
    st.sampled_from([HUGE, TINY, 1e308, 1e-308, MAX_PRICE, MIN_PRICE, 1e15, 1e-15, 1.0, 0.0]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(MIN_PRICE, MAX_PRICE),
)
Row = tuple[float, float, float, float, float]


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """Five numbers; mostly they do not contradict each other."""
    o, h, low, c, v = (draw(prices) for _ in range(5))
    if draw(st.integers(0, 4)):
        low, o, c, h = sorted((o, h, low, c), key=lambda x: (math.isnan(x), x))
    return o, h, low, c, v


class Entrance:
    """Where the candles of A/U come in: by the stream, or else by the exchange's history."""

    def __init__(self, path: PipelineHarness) -> None:
        self.path = path
        self.rule = ClosingRule(MINUTE, 1_000)

    def send(self, at: int, row: Row) -> None:
        open_ms, now_ms = T0 + at * MINUTE.ms, self.path.clock.now_ms
        try:
            final = self.rule.on_update(
                "A/U", open_ms, row, closed=True, now_ms=now_ms,
                now_s=self.path.clock.monotonic(),
            )  # fmt: skip
        except BadCandle:
            window = self.path.table.windows[0]
            before = [T0 + (at - 1) * MINUTE.ms, *window.ohlcv()[-1].tolist()]
            page = parse_history(
                "A/U", [before, [open_ms, *row]], MINUTE, 2 * now_ms, (now_ms, 0.0)
            )
            whole = fill_untraded(page.final, open_ms + MINUTE.ms, MINUTE)
            self.path.pipeline.on_history("A/U", whole)
        else:
            assert final is not None
            self.path.pipeline.on_candle_closed(final)


class Stage:
    """A path with everything beside it that looks at candles or forecasts."""

    def __init__(self, bundle: Bundle, path: PipelineHarness, folder: Path) -> None:
        self.path = path
        self.beside = ManualClock(T0)
        self.standby = StandbyModel(
            served(bundle), path.table.windows, path.scheduler, path.clock, MINUTE
        )
        self.drift = DriftMonitor(path.metrics, folder, request_retrains=False)
        publisher = path.issuer._publisher  # noqa: SLF001 - the one that the route made
        self.forming = Forming(
            market=path.market,
            table=path.table,
            scheduler=path.scheduler,
            publisher=publisher,
            metrics=path.metrics,
            clock=path.clock,
            interval_s=0.0,
        )
        self.cache_warmer = CacheWarmer(
            table=path.table,
            scheduler=path.scheduler,
            issuer=path.issuer,
            clock=self.beside,
            timeframe=lambda: MINUTE,
        )

    async def look(self, forming: Candle, at: int) -> None:
        """All that runs between two closes."""
        await self.standby.synchronise()
        await self.standby.check_forecasts()
        self.drift.check(self.path.table.served, self.path.accuracy, float(at))
        self.path.metrics.update_accuracy(self.path.accuracy)
        self.path.table.served.mean_out_of_range()
        self.forming._forecast([forming])  # noqa: SLF001 - without the pauses of `run`
        self.beside.move_to(T0 + (at + 1) * MINUTE.ms - 15)
        task = asyncio.create_task(self.cache_warmer.run())
        await settle()
        await self.beside.advance(0.02)
        failed = task.exception() if task.done() else None
        task.cancel()
        assert failed is None


def served(bundle: Bundle) -> ServedModel:
    engine = Engine(bundle.onnx, len(SYMBOLS), LOOKBACK, len(bundle.manifest.features))
    return ServedModel(bundle, SYMBOLS, engine, Rules(min_n=MIN_N))


@pytest.fixture(scope="module")
def candles() -> dict[str, Floats]:
    return {symbol: random_candles(ROWS, seed) for seed, symbol in enumerate(SYMBOLS)}


@pytest.fixture(scope="module", params=["log_return", "close"])
def bundle(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    candles: dict[str, Floats],
) -> Bundle:
    return promote(tmp_path_factory.mktemp("registry"), candles, target=request.param)


async def run(
    bundle: Bundle, market: SampleMarket, sent: list[Row], folder: Path
) -> PipelineHarness:
    history = History(folder / "history.sqlite")
    path = PipelineHarness(bundle, history, served=served(bundle))
    async with running(path):
        path.published.connected = asyncio.Event()  # type: ignore[attr-defined]
        path.published.connected.set()  # type: ignore[attr-defined]
        stage, entrance = Stage(bundle, path, folder), Entrance(path)
        path.warm(market, CAPACITY)
        await path.scheduler.wait_idle()
        for at, row in enumerate(sent, CAPACITY):
            path.at(at + 1)
            entrance.send(at, row)
            for symbol in SYMBOLS[1:]:
                path.close(market, symbol, at)
            await path.scheduler.wait_idle()
            newest = path.table.windows[0].newest
            assert newest is not None
            forming = newest._replace(open_ms=newest.close_ms, close_ms=newest.close_ms + MINUTE.ms)
            await stage.look(forming, at)
    history.close()
    return path


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sent=st.lists(rows(), min_size=1, max_size=SENT))
@example(sent=[(1e308,) * 5] * 4)
@example(sent=[(1e18, 1e18, 1e18, 1e18, 1e30), (1e-18, 1e-18, 1e-18, 1e-18, 0.0)] * 4)
@example(sent=[(1e15, 1e15, 1e15, 1e15, 1.0), (100.0, 101.0, 99.0, 100.0, 1.0)] * 4)
@example(sent=[(5e-324,) * 5, (1e-308,) * 5, (1.0, 1.0, 1.0, 1.0, 5e-324)] * 2)
def test_any_numbers_of_one_symbol(
    sent: list[Row],
    bundle: Bundle,
    candles: dict[str, Floats],
    tmp_path_factory: pytest.TempPathFactory,
    repository: Path,
) -> None:
    market = SampleMarket(candles)
    path = asyncio.run(run(bundle, market, sent, tmp_path_factory.mktemp("run")))
    schema = jsonschema.Draft202012Validator(
        json.loads((repository / "docs" / "prediction.schema.json").read_text())
    )
    others = [f for f in path.published.forecasts if f["symbol"] != "A/U"]
    assert len(others) == 2 * (1 + len(sent))
    for forecast in path.published.forecasts:
        schema.validate(forecast)
        for price in (forecast["last_close"], forecast["predicted_close"]):
            assert MIN_PRICE <= price <= MAX_PRICE
        if forecast["interval"] is not None:
            lower, upper = forecast["interval"]["lower"], forecast["interval"]["upper"]
            assert 0.0 < lower <= forecast["predicted_close"] <= upper < np.inf
    if bundle.manifest.target == "log_return":
        for forecast in others:
            check(bundle, market, forecast)
    assert others[-1]["interval"] is None or len(sent) >= MIN_N
    made = sum(forecast["symbol"] == "A/U" for forecast in path.published.forecasts)
    # Each of its candles was forecast from, or the reason is counted.
    skipped = sum(path.sample("candlecast_predictions_skipped_total", reason=r) for r in (
        "not_a_price", "not_an_interval", "untraded", "window",
    ))  # fmt: skip
    assert made + skipped == 1 + len(sent)
