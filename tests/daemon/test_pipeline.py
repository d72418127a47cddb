"""Every forecast that leaves the path is the one that its whole window gives, and only once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np
import pytest

from daemon.accuracy import Accuracy
from daemon.batcher import Batcher
from daemon.issuer import Books, Issuer, Market
from daemon.metrics import Metrics
from daemon.outbox import Outgoing
from daemon.pipeline import Pipeline
from daemon.publisher import Publisher
from daemon.recorder import Recorder
from model.bundle import Bundle
from model.candle import Candle, Ohlcv, Timeframe
from model.engine import Engine, OnnxPair
from model.features import FeatureBank
from model.history import History
from model.serving import ServedModel
from tests.models import SHORT, Floats, promote, random_candles

MINUTE = Timeframe.parse("1m")
SYMBOLS = ("A/U", "B/U", "C/U")
LOOKBACK = 8
CAPACITY = SHORT.warmup + LOOKBACK
T0 = 1_776_859_560_000
ROWS = CAPACITY + 90


class Hand:
    """A wall clock set by hand; monotonic time and waiting are the loop's own."""

    now_ms = T0

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Boundary:
    """Stands where the publisher does: everything that would be sent, decoded."""

    retains = True

    def __init__(self) -> None:
        self.forecasts: list[dict[str, Any]] = []
        self.raw: list[Outgoing] = []
        self.batches: list[dict[str, Any]] = []

    def offer(self, message: Outgoing) -> None:
        if message.is_forecast:
            self.raw.append(message)
            self.forecasts.append(json.loads(message.payload))
        else:
            self.batches.append(json.loads(message.payload))


@pytest.fixture(scope="module")
def candles() -> dict[str, Floats]:
    return {symbol: random_candles(ROWS, seed) for seed, symbol in enumerate(SYMBOLS)}


@pytest.fixture(scope="module")
def bundle(
    tmp_path_factory: pytest.TempPathFactory, candles: dict[str, Floats]
) -> Iterator[Bundle]:
    yield promote(tmp_path_factory.mktemp("registry"), candles)
    network.cache_clear()


@pytest.fixture
def market(candles: dict[str, Floats]) -> Tape:
    return Tape(candles)


class Tape:
    """What the exchange says happened; `revise` changes its mind."""

    def __init__(self, candles: dict[str, Floats]) -> None:
        self.values = {symbol: ohlcv.copy() for symbol, ohlcv in candles.items()}
        self._features: dict[str, Floats] = {}

    def features(self, symbol: str, bundle: Bundle) -> Floats:
        """Of every candle, from all candles before it."""
        if symbol not in self._features:
            bank = FeatureBank(bundle.manifest.features, bundle.manifest.indicators, 1)
            self._features[symbol] = bank.prime(np.array([0]), self.values[symbol][None])[0]
        return self._features[symbol]

    def candle(self, symbol: str, at: int, now_s: float = 0.0) -> Candle:
        open_ms = T0 + at * MINUTE.ms
        close_ms = open_ms + MINUTE.ms
        ohlcv = Ohlcv(*self.values[symbol][at].tolist())
        return Candle(symbol, open_ms, close_ms, ohlcv, close_ms + 5, now_s, "exchange_flag")

    def span(self, symbol: str, start: int, end: int) -> list[Candle]:
        return [
            self.candle(symbol, at)._replace(final_by="rest") for at in range(max(0, start), end)
        ]

    def revise(self, symbol: str, at: int, factor: float) -> None:
        self._features.pop(symbol, None)
        self.values[symbol][at, 1:4] *= factor
        self.values[symbol][at, 1] = self.values[symbol][at].max()
        self.values[symbol][at, 2] = self.values[symbol][at, :4].min()


class Route:
    """A whole path with everything real but the broker."""

    def __init__(self, bundle: Bundle, history: History, *, max_batch: int = 4) -> None:
        self.bundle = bundle
        self.clock = Hand()
        self.metrics = Metrics(10)
        self.published = Boundary()
        self.wanted: list[str] = []
        self.accuracy = Accuracy(1440, 1)
        self.recorder = Recorder(history, ("binance", "1m"), 36_500, self.clock, self.metrics)
        market = Market("tester", "binance", SYMBOLS, MINUTE)
        books = Books(self.accuracy, self.recorder, self.metrics)
        engine = Engine(bundle.onnx, len(SYMBOLS), LOOKBACK, len(bundle.manifest.features))
        publisher = cast("Publisher", self.published)
        self.pipeline = Pipeline(
            market,
            ServedModel(bundle, SYMBOLS, engine),
            Batcher(max_batch),
            Issuer(market, publisher, books, self.clock, 60.0),
            books,
            self.clock,
            self.wanted.append,
            CAPACITY,
        )

    def at(self, end: int) -> None:
        """Set the wall clock to shortly after the close of candle ``end - 1``."""
        self.clock.now_ms = T0 + end * MINUTE.ms + 20

    def warm(self, tape: Tape, end: int) -> None:
        self.at(end)
        for symbol in SYMBOLS:
            self.pipeline.on_history(symbol, tape.span(symbol, 0, end))

    def close(self, tape: Tape, symbol: str, at: int) -> None:
        self.pipeline.on_closed(tape.candle(symbol, at, self.clock.monotonic()))

    def scored(self) -> float:
        """Forecasts held against what happened since this process started."""
        return sum(
            self.sample("candlecast_direction_total", result=result) for result in ("hit", "miss")
        )

    def count(self, outcome: str) -> float:
        return self.sample("candlecast_predictions_total", outcome=outcome)

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def running(path: Route) -> AsyncIterator[Route]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(path.pipeline.run()), group.create_task(path.recorder.run())]
        async with asyncio.timeout(60):
            yield path
        for task in tasks:
            task.cancel()


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    made = History(tmp_path / "history.sqlite")
    yield made
    made.close()


@pytest.fixture
async def path(bundle: Bundle, history: History) -> AsyncIterator[Route]:
    async with running(Route(bundle, history)) as made:
        yield made


@cache
def network(pair: OnnxPair, n_features: int) -> Engine:
    return Engine(pair, 1, LOOKBACK, n_features)


def check(bundle: Bundle, tape: Tape, forecast: dict[str, Any]) -> None:
    """Compare with what the candles alone give, by none of the path's own state."""
    symbol, end = forecast["symbol"], (forecast["candle_close_ms"] - T0) // MINUTE.ms
    rows = tape.features(symbol, bundle)[end - LOOKBACK : end]
    scaler = bundle.scalers.by_symbol[symbol]
    scaled = (rows - scaler.feature_min) / (scaler.feature_max - scaler.feature_min)
    raw = float(network(bundle.onnx, rows.shape[1]).full(scaled[None].astype(np.float32))[0])
    last = float(tape.values[symbol][end - 1, 3])
    price = last * float(np.exp(raw * scaler.target_scale + scaler.target_offset))
    assert forecast["predicted_normalized"] == pytest.approx(raw, abs=1e-6)
    assert forecast["predicted_close"] == pytest.approx(price, rel=1e-6)
    assert forecast["last_close"] == last
    assert forecast["predicted_return"] == pytest.approx(price / last - 1, abs=1e-6)
    assert forecast["target_close_ms"] == forecast["candle_close_ms"] + MINUTE.ms
    assert forecast["seq"] == forecast["candle_close_ms"] // MINUTE.ms


async def test_prepared_or_not_the_forecast_is_the_same(
    path: Route, bundle: Bundle, market: Tape
) -> None:
    path.warm(market, CAPACITY)
    await path.pipeline.settled()
    unprepared = path.sample("candlecast_unprepared_total")
    for end in range(CAPACITY + 1, CAPACITY + 13):
        path.at(end)
        for symbol in SYMBOLS:
            path.close(market, symbol, end - 1)
        await path.pipeline.settled()
    # Those after the warm-up needed one step each, the others their whole window.
    assert path.sample("candlecast_unprepared_total") == unprepared
    assert len(path.published.forecasts) == 3 * 13
    for forecast in path.published.forecasts:
        check(bundle, market, forecast)
    raw = [f["predicted_normalized"] for f in path.published.forecasts]
    assert np.ptp(raw) > 1e-3


async def test_several_closes_before_a_step_still_give_whole_windows(
    path: Route, bundle: Bundle, market: Tape
) -> None:
    path.warm(market, CAPACITY)
    await path.pipeline.settled()
    dropped = path.count("dropped")
    path.at(CAPACITY + 3)
    for at in range(CAPACITY, CAPACITY + 3):
        path.close(market, "A/U", at)
    await path.pipeline.settled()
    assert path.count("dropped") - dropped == 2
    assert path.published.forecasts[-1]["symbol"] == "A/U"
    assert len(path.published.forecasts) == 4
    check(bundle, market, path.published.forecasts[-1])
    path.at(CAPACITY + 4)
    path.close(market, "A/U", CAPACITY + 3)
    await path.pipeline.settled()
    check(bundle, market, path.published.forecasts[-1])


async def test_a_gap_publishes_nothing_until_it_is_repaired(
    path: Route, bundle: Bundle, market: Tape
) -> None:
    path.warm(market, CAPACITY)
    await path.pipeline.settled()
    before = len(path.published.forecasts)
    for missing in (CAPACITY + 2, CAPACITY + 3):
        path.at(missing)
        path.close(market, "A/U", missing - 1)
        await asyncio.sleep(0.01)
    assert path.wanted == ["A/U", "A/U"]
    assert len(path.published.forecasts) == before
    path.at(CAPACITY + 1)
    assert path.pipeline.stale_symbols(path.clock.wall_ms()) == ["A/U"]

    path.at(CAPACITY + 3)
    path.pipeline.on_history("A/U", market.span("A/U", CAPACITY - 3, CAPACITY + 1))
    await path.pipeline.settled()
    assert len(path.published.forecasts) == before + 1
    check(bundle, market, path.published.forecasts[-1])
    assert path.published.forecasts[-1]["candle_close_ms"] == T0 + (CAPACITY + 3) * MINUTE.ms
    assert "A/U" not in path.pipeline.stale_symbols(path.clock.wall_ms())


async def test_the_candle_that_closes_a_gap_is_scored_like_any_other(
    path: Route, market: Tape
) -> None:
    path.warm(market, CAPACITY)
    await path.pipeline.settled()
    assert path.accuracy.pending == 3
    path.at(CAPACITY + 2)
    path.close(market, "A/U", CAPACITY + 1)
    path.close(market, "A/U", CAPACITY)
    await path.pipeline.settled()
    assert path.published.forecasts[-1]["candle_close_ms"] == T0 + (CAPACITY + 2) * MINUTE.ms
    # The warm-up's forecast of A/U was scored by the candle that came second.
    assert path.scored() == 1
    assert path.accuracy.pending == 3


async def test_a_gap_that_opens_while_a_candle_waits_drops_it(path: Route, market: Tape) -> None:
    path.warm(market, CAPACITY)
    await path.pipeline.settled()
    before = len(path.published.forecasts)
    path.at(CAPACITY + 3)
    path.close(market, "A/U", CAPACITY)
    path.close(market, "A/U", CAPACITY + 2)
    await asyncio.sleep(0.01)
    assert len(path.published.forecasts) == before
    assert path.count("dropped") == 1


@pytest.mark.parametrize("by_rest", [False, True])
@pytest.mark.parametrize("age", [0, 1, 5, CAPACITY - 1])
async def test_after_a_revision_the_next_forecast_is_that_of_a_fresh_window(
    path: Route, bundle: Bundle, market: Tape, age: int, *, by_rest: bool
) -> None:
    path.warm(market, CAPACITY)
    await path.pipeline.settled()
    before = list(path.published.forecasts)
    market.revise("A/U", CAPACITY - 1 - age, 1.01)
    if by_rest:
        path.pipeline.on_history("A/U", market.span("A/U", CAPACITY - 1 - age, CAPACITY))
    else:
        path.close(market, "A/U", CAPACITY - 1 - age)
    await asyncio.sleep(0.01)
    # What was published stays.
    assert path.published.forecasts == before
    path.at(CAPACITY + 1)
    for symbol in SYMBOLS:
        path.close(market, symbol, CAPACITY)
    await path.pipeline.settled()
    assert len(path.published.forecasts) == len(before) + 3
    for forecast in path.published.forecasts[len(before) :]:
        check(bundle, market, forecast)


@pytest.mark.parametrize("by_rest", [False, True])
async def test_a_candle_revised_while_it_waits_is_forecast_from_as_revised(
    path: Route, bundle: Bundle, market: Tape, *, by_rest: bool
) -> None:
    path.warm(market, CAPACITY)
    await path.pipeline.settled()
    path.at(CAPACITY + 1)
    path.close(market, "A/U", CAPACITY)
    market.revise("A/U", CAPACITY, 1.02)
    if by_rest:
        path.pipeline.on_history("A/U", market.span("A/U", CAPACITY, CAPACITY + 1))
    else:
        path.close(market, "A/U", CAPACITY)
    await path.pipeline.settled()
    assert len(path.published.forecasts) == 4
    check(bundle, market, path.published.forecasts[-1])


async def test_what_is_too_late_to_be_of_use_is_skipped(path: Route, market: Tape) -> None:
    path.warm(market, CAPACITY)
    path.clock.now_ms += MINUTE.ms
    await path.pipeline.settled()
    assert path.published.forecasts == []
    assert path.sample("candlecast_predictions_skipped_total", reason="expired") == 3
    assert path.accuracy.pending == 0


async def test_a_young_market_is_skipped_until_its_window_is_full(
    path: Route, market: Tape
) -> None:
    path.at(CAPACITY)
    path.pipeline.on_history("A/U", market.span("A/U", 2, CAPACITY))
    await path.pipeline.settled()
    for at in (CAPACITY, CAPACITY + 1):
        path.at(at + 1)
        path.close(market, "A/U", at)
        await path.pipeline.settled()
        skipped = path.sample("candlecast_predictions_skipped_total", reason="window")
        assert (skipped, len(path.published.forecasts)) == (1, at - CAPACITY)


async def test_a_repeated_close_changes_nothing(path: Route, market: Tape) -> None:
    path.warm(market, CAPACITY)
    await path.pipeline.settled()
    for _ in range(3):
        path.close(market, "A/U", CAPACITY - 1)
        path.pipeline.on_history("A/U", market.span("A/U", CAPACITY - 3, CAPACITY))
    await asyncio.sleep(0.01)
    assert len(path.published.forecasts) == 3


async def test_periods_without_a_trade_are_filled_and_told(path: Route, market: Tape) -> None:
    quiet = CAPACITY - 3
    market.values["A/U"][quiet] = [*[market.values["A/U"][quiet - 1, 3]] * 4, 0.0]
    path.at(CAPACITY)
    heard = market.span("A/U", 0, quiet) + market.span("A/U", quiet + 1, CAPACITY)
    path.pipeline.on_history("A/U", heard)
    await path.pipeline.settled()
    (forecast,) = path.published.forecasts
    check(path.bundle, market, forecast)
    assert forecast["window"] == {
        "length": LOOKBACK,
        "filled": 1,
        "out_of_range": forecast["window"]["out_of_range"],
        "final_by": "rest",
    }


async def restored(route: Route) -> None:
    await route.recorder.read(
        lambda history: route.accuracy.restore(history.outcomes("binance", "1m", 1440))
    )


async def test_a_restart_never_says_the_same_forecast_in_other_words(
    bundle: Bundle, market: Tape, history: History
) -> None:
    async with running(Route(bundle, history)) as first:
        first.warm(market, CAPACITY)
        await first.pipeline.settled()
    assert len(first.published.forecasts) == 3

    async with running(Route(bundle, history)) as second:
        await restored(second)
        second.warm(market, CAPACITY)
        await second.pipeline.settled()
        assert second.published.forecasts == []
        assert second.sample("candlecast_predictions_skipped_total", reason="repeated") == 3
        second.at(CAPACITY + 1)
        for symbol in SYMBOLS:
            second.close(market, symbol, CAPACITY)
        await second.pipeline.settled()
        assert len(second.published.forecasts) == 3
        # And what the first one said has been scored.
        assert second.scored() == 3


async def test_after_a_restart_every_candle_is_scored_whatever_order_it_arrives_in(
    bundle: Bundle, market: Tape, history: History
) -> None:
    async with running(Route(bundle, history)) as first:
        first.warm(market, CAPACITY)
        await first.pipeline.settled()
    async with running(Route(bundle, history)) as second:
        await restored(second)
        # The stream is faster than the history that was asked for before its first candle.
        second.at(CAPACITY + 2)
        for at in (CAPACITY, CAPACITY + 1):
            second.close(market, "A/U", at)
        second.pipeline.on_history("A/U", market.span("A/U", 0, CAPACITY))
        await second.pipeline.settled()
        assert second.scored() == 1


async def test_a_flush_is_also_published_as_a_batch_of_the_same_messages(
    path: Route, market: Tape
) -> None:
    path.warm(market, CAPACITY)
    await path.pipeline.settled()
    (batch,) = path.published.batches
    assert batch["predictions"] == path.published.forecasts
    assert (batch["part"], batch["parts"]) == (1, 1)
    assert batch["batch_id"].startswith("tester-")


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_the_market_does_each_forecast_equals_one_from_scratch(
    bundle: Bundle, market: Tape, history: History, seed: int
) -> None:
    random = Random(seed)
    async with running(Route(bundle, history, max_batch=2)) as path:
        path.warm(market, CAPACITY)
        await path.pipeline.settled()
        checked = 0
        for end in range(CAPACITY + 1, ROWS):
            path.at(end)
            for symbol in SYMBOLS:
                await one_minute(path, market, symbol, end, random)
            if random.random() < 0.6:
                await path.pipeline.settled()
                for forecast in path.published.forecasts[checked:]:
                    check(bundle, market, forecast)
                checked = len(path.published.forecasts)
                revise_something(path, market, end, random)
        await path.pipeline.settled()
        for forecast in path.published.forecasts[checked:]:
            check(bundle, market, forecast)
    seen = Counter((f["symbol"], f["seq"]) for f in path.published.forecasts)
    assert max(seen.values()) == 1
    assert len(seen) > 80


async def one_minute(path: Route, market: Tape, symbol: str, end: int, random: Random) -> None:
    dice = random.random()
    if dice < 0.1:
        return
    if dice < 0.2:
        path.pipeline.on_history(symbol, market.span(symbol, end - random.randint(2, 9), end))
    else:
        path.close(market, symbol, end - 1)
    if symbol in path.wanted and random.random() < 0.5:
        path.wanted[:] = [name for name in path.wanted if name != symbol]
        until = end - random.randint(0, 1)
        path.pipeline.on_history(symbol, market.span(symbol, end - 20, until))
    if random.random() < 0.2:
        path.close(market, symbol, end - random.randint(1, 4))
    for _ in range(random.randint(0, 3)):
        await asyncio.sleep(0)


def revise_something(path: Route, market: Tape, end: int, random: Random) -> None:
    """Change a candle that the window holds; unheard-of ones would be news, not revisions."""
    symbol = random.choice(SYMBOLS)
    following = path.pipeline.windows[path.pipeline._slots[symbol]].next_open_ms  # noqa: SLF001
    assert following is not None
    newest = (following - T0) // MINUTE.ms - 1
    if random.random() < 0.5 and newest < end:
        at = newest - random.randint(0, 10)
        market.revise(symbol, at, 1 + random.uniform(-0.01, 0.01))
        path.close(market, symbol, at)
