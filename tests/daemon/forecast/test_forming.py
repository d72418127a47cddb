"""A forming candle's forecast equals that of its close, is marked and delays no final one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.forecast.forming import Forming, LatestUpdates
from daemon.mqtt.outbox import Outgoing
from daemon.mqtt.publisher import Publisher
from model.core.candle import Candle, Ohlcv
from model.core.market import MarketKey
from model.forecasts.forecast import Market
from model.history.store import History
from model.registry.bundle import Bundle
from tests.support.pipeline_harness import (
    CAPACITY,
    MINUTE,
    SYMBOLS,
    T0,
    PipelineHarness,
    SampleMarket,
    running,
)
from tests.support.servers import MAX_WAIT_S

INTERVAL_S = 0.02


@pytest.fixture(scope="module")
def schema(repository: Path) -> jsonschema.Draft202012Validator:
    document = json.loads((repository / "docs" / "forming.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


class RecordingPublisher:
    """Replaces a connected publisher."""

    def __init__(self) -> None:
        self.connected = asyncio.Event()
        self.connected.set()
        self.sent: list[Outgoing] = []

    def offer(self, message: Outgoing) -> None:
        self.sent.append(message)

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(message.payload) for message in self.sent]


class Bench:
    """A path with its forming forecasts beside it."""

    def __init__(self, path: PipelineHarness) -> None:
        self.path = path
        self.out = RecordingPublisher()
        market = Market("tester", "binance", SYMBOLS, MINUTE)
        publisher = cast("Publisher", self.out)
        self.forming = Forming(
            market=market,
            table=path.table,
            scheduler=path.scheduler,
            publisher=publisher,
            metrics=path.metrics,
            clock=path.clock,
            interval_s=INTERVAL_S,
        )

    def count(self, outcome: str) -> float:
        return self.path.sample("candlecast_forming_total", outcome=outcome)

    def update(self, market: SampleMarket, symbol: str, at: int, share: float = 1.0) -> Candle:
        """Report a forming candle after a share of its range."""
        whole = market.candle(symbol, at, self.path.clock.monotonic())._replace(final_by=None)
        o, h, low, c, v = whole.ohlcv
        part = Ohlcv(o, o + share * (h - o), o + share * (low - o), o + share * (c - o), share * v)
        candle = whole._replace(ohlcv=part)
        self.path.clock.now_ms = T0 + at * MINUTE.ms + int(share * 50_000)
        self.forming.on_forming(candle)
        return candle

    async def worked(self, updates: float) -> None:
        """Wait until this many updates have been handled."""
        outcomes = ("published", "conflated", "skipped")
        async with asyncio.timeout(MAX_WAIT_S):
            while sum(map(self.count, outcomes)) < updates:
                await asyncio.sleep(0.001)


@asynccontextmanager
async def forming(path: PipelineHarness) -> AsyncIterator[Bench]:
    bench = Bench(path)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bench.forming.run())
        yield bench
        task.cancel()


@pytest.fixture
async def bench(bundle: Bundle, market: SampleMarket, history: History) -> AsyncIterator[Bench]:
    async with running(PipelineHarness(bundle, history)) as path, forming(path) as made:
        path.warm(market, CAPACITY)
        await path.scheduler.wait_idle()
        yield made


async def test_a_provisional_forecast_equals_that_of_the_close_and_fits_the_schema(
    bench: Bench, market: SampleMarket, schema: jsonschema.Draft202012Validator
) -> None:
    for symbol in SYMBOLS:
        bench.update(market, symbol, CAPACITY)
    await bench.worked(3)
    provisional = {document["symbol"]: document for document in bench.out.documents}
    path = bench.path
    path.at(CAPACITY + 1)
    for symbol in SYMBOLS:
        path.close(market, symbol, CAPACITY)
    await path.scheduler.wait_idle()
    finals = path.published.forecasts[-3:]
    assert path.sample("candlecast_unprepared_total") == 3, "a step was enough after all"
    for final in finals:
        document = provisional.pop(final["symbol"])
        schema.validate(document)
        assert document["final"] is False
        # Other symbols share the batch of the one than of the other.
        for key in ("predicted_normalized", "predicted_close", "predicted_return"):
            assert document[key] == pytest.approx(final[key], rel=1e-6)
        assert (
            document["candle"]["close_ms"] == document["valid_until_ms"] == final["candle_close_ms"]
        )
        assert document["target_close_ms"] == final["target_close_ms"]
        assert document["model"] == final["model"]
    assert not provisional
    assert {(m.qos, m.retain, m.is_forecast) for m in bench.out.sent} == {(0, False, False)}
    assert bench.out.sent[0].topic == "candlecast/v1/binance/A-U/1m/forming"
    assert [m.valid_until_ms for m in bench.out.sent] == [T0 + (CAPACITY + 1) * MINUTE.ms] * 3


def test_the_example_of_the_schema_is_valid(schema: jsonschema.Draft202012Validator) -> None:
    assert isinstance(schema.schema, dict)
    for example in schema.schema["examples"]:
        schema.validate(example)
        with pytest.raises(jsonschema.ValidationError):
            schema.validate(example | {"final": True})


async def test_a_provisional_forecast_leaves_no_state(bench: Bench, market: SampleMarket) -> None:
    path = bench.path
    before = path.accuracy.pending, len(path.published.forecasts)
    calibration = path.table.served.calibration.snapshot().encode()
    for share in (0.2, 0.5, 0.9):
        for symbol in SYMBOLS:
            bench.update(market, symbol, CAPACITY, share)
        await bench.worked(bench.count("published") + 3)
    assert (path.accuracy.pending, len(path.published.forecasts)) == before
    assert path.table.served.calibration.snapshot().encode() == calibration
    await path.recorder.flush()
    stored = await path.recorder.execute(
        lambda h: [h.candles(MarketKey.parse("binance", "1m"), s, CAPACITY + 9) for s in SYMBOLS]
    )
    assert [len(candles) for candles in stored] == [CAPACITY] * 3


async def test_of_updates_within_the_interval_the_newest_is_priced(
    bench: Bench, market: SampleMarket
) -> None:
    bench.update(market, "A/U", CAPACITY, 0.1)
    await bench.worked(1)
    bench.update(market, "A/U", CAPACITY, 0.2)
    bench.update(market, "A/U", CAPACITY, 0.3)
    newest = bench.update(market, "A/U", CAPACITY, 0.4)
    await bench.worked(4)
    assert (bench.count("published"), bench.count("conflated")) == (2, 2)
    assert bench.out.documents[-1]["candle"]["close"] == newest.ohlcv.close


@pytest.mark.parametrize("why", ["gap", "old", "unprepared", "no broker", "over"])
async def test_updates_that_need_more_than_one_step_are_skipped(
    bench: Bench, market: SampleMarket, why: str
) -> None:
    path, at = bench.path, CAPACITY
    match why:
        case "gap":
            path.close(market, "A/U", at + 1)
            at += 2
        case "old":
            at -= 1
        case "unprepared":
            market.revise("A/U", at - 1, 1.01)
            path.close(market, "A/U", at - 1)
        case "no broker":
            bench.out.connected.clear()
    bench.update(market, "A/U", at)
    if why == "over":
        path.at(at + 1)
    await bench.worked(1)
    assert bench.count("skipped") == 1
    assert bench.out.sent == []


async def test_closing_candles_have_priority(bench: Bench, market: SampleMarket) -> None:
    path = bench.path
    bench.out.sent = path.published.raw
    path.published.raw.clear()
    for symbol in SYMBOLS[1:]:
        bench.update(market, symbol, CAPACITY)
    path.at(CAPACITY)
    path.close(market, "A/U", CAPACITY)
    await bench.worked(2)
    assert [m.topic.rpartition("/")[2] for m in path.published.raw] == [
        "prediction",
        "forming",
        "forming",
    ]


def candle_of(symbol: str, number: int, now_s: float) -> Candle:
    price = float(number)
    return Candle(symbol, T0, T0 + MINUTE.ms, Ohlcv(*[price] * 5), T0, now_s)


@settings(deadline=None)
@given(data=st.data())
def test_the_newest_update_of_each_symbol_is_priced_at_most_once_per_interval(
    data: st.DataObject,
) -> None:
    newest, now_s, number = LatestUpdates(1.0), 0.0, 0
    last: dict[str, tuple[float, int]] = {}
    numbers: dict[str, int] = {}
    waiting: set[str] = set()
    for _ in range(data.draw(st.integers(1, 40))):
        now_s += data.draw(st.sampled_from((0.0, 0.3, 0.7, 2.0)))
        if data.draw(st.booleans()):
            symbol = data.draw(st.sampled_from("ABC"))
            number += 1
            assert newest.offer(candle_of(symbol, number, now_s)) == (symbol in waiting)
            waiting.add(symbol)
            numbers[symbol] = number
            continue
        most = data.draw(st.integers(1, 3))
        taken = newest.take_due(now_s, most)
        due = [s for s in waiting if s not in last or now_s >= last[s][0] + 1.0]
        assert len(taken) == min(most, len(due))
        for candle in taken:
            assert candle.symbol in due
            assert candle.ohlcv.close == numbers[candle.symbol]
            last[candle.symbol] = now_s, numbers[candle.symbol]
            waiting.remove(candle.symbol)
        assert (newest.due_s is None) == (not waiting)
