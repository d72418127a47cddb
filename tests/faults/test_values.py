"""Feed contradictory and absurd candles to a whole daemon: it keeps forecasting."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from daemon.candles.window import CandleOutcome, Window
from daemon.feed.backfill import Backfill
from daemon.sandbox import EXCHANGES
from daemon.sandbox.exchange import Behaviour, SandboxExchange
from daemon.sandbox.recording import Playback
from model.core.candle import Candle, Ohlcv
from model.core.market import MarketKey
from model.history.reader import HistoryReader
from model.registry.registry import Registry
from model.replay.replay import Replayed, replay
from tests.faults.fault_harness import FaultHarness
from tests.replay.replay_harness import make_feed, nothing_left, running
from tests.sandbox.scaled import MINUTE, SECOND, ScaledClock, minute_playback, second_playback
from tests.support.waiting import until

FACTOR = 2.0
ODD, SOUND = "S00/USDT", ("S01/USDT", "S02/USDT")

Identity = tuple[str, int]


@dataclass(frozen=True)
class OddPlayback(Playback):
    """A playback some of whose candles are others, in the stream and in the history alike."""

    odd: dict[Identity, Ohlcv] = field(default_factory=dict)

    def forming(self, symbol: str, open_ms: int, fraction: float) -> Ohlcv:
        return self.odd.get((symbol, open_ms)) or super().forming(symbol, open_ms, fraction)


def odd_playback(playback: Playback) -> OddPlayback:
    return OddPlayback(
        playback.recording,
        playback.timeframe,
        playback.origin_ms,
        playback.starts,
        playback.slice_rows,
    )


class OddValuesRun:
    """A daemon whose exchange plays odd candles of one symbol."""

    def __init__(self, folder: Path) -> None:
        self.playback = odd_playback(second_playback(3))
        self.harness = FaultHarness(folder, self.playback, FACTOR)

    def coming(self, *after: int) -> list[int]:
        """Openings of candles that have not begun, so many candles from now."""
        now_ms = SECOND.floor(self.harness.clock.wall_ms())
        return [now_ms + at * SECOND.ms for at in after]

    async def passed(self, open_ms: int) -> None:
        """Wait until every symbol is forecast from a whole window, all candles later than that."""
        await self.harness.until(lambda: self._is_passed(open_ms))

    def _is_passed(self, open_ms: int) -> bool:
        made = {f["symbol"] for f in self.forecasts if f["candle_open_ms"] > open_ms}
        return made == set(self.playback.symbols) and all(
            w.is_complete for w in self.harness.windows
        )

    @property
    def forecasts(self) -> list[dict[str, Any]]:
        return [json.loads(published.payload) for published in self.harness.published]

    def series(self, name: str, **labels: str) -> float:
        assert self.harness.app is not None
        registry = self.harness.app.metrics.registry
        return registry.get_sample_value(f"candlecast_{name}", labels) or 0.0

    def value(self, symbol: str, open_ms: int) -> list[float]:
        """What the window holds of a candle."""
        (window,) = [w for w in self.harness.windows if w.symbol == symbol]
        assert window.next_open_ms is not None
        back = (window.next_open_ms - open_ms) // SECOND.ms
        values: list[float] = window.ohlcv()[-back].tolist()
        return values

    def replayed(self) -> Replayed:
        """All that was published, computed again from the history."""
        place = HistoryReader(
            self.harness.folder / "state" / "history.sqlite", MarketKey.parse("binance", "1s")
        )
        try:
            registry = Registry(self.harness.folder / "state" / "registry")
            span_ms = 0, self.harness.clock.wall_ms() + 60_000
            return replay(place, registry, SECOND.ms, *span_ms, lambda *_: None)
        finally:
            place.close()


def widened(o: float, h: float, low: float, c: float, v: float) -> list[float]:
    return [o, max(o, h, low, c), min(o, h, low, c), c, v]


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits by the real clock inside ccxt waits no longer than by the trial's."""
    monkeypatch.setattr("ccxt.pro.binance.timeout", int(10_000 / FACTOR), raising=False)


async def test_candles_that_contradict_themselves_are_taken_with_a_wider_range(
    tmp_path: Path,
) -> None:
    trial = OddValuesRun(tmp_path)
    async with nothing_left(), trial.harness.running():
        opens = trial.coming(3, 4, 7)
        for at, open_ms in enumerate(opens):
            _, h, low, c, v = trial.playback.candle(ODD, open_ms)
            outside = (round(low * 0.999, 2), round(h * 1.001, 2))[at % 2]
            trial.playback.odd[ODD, open_ms] = Ohlcv(outside, h, low, c, v)
        await trial.passed(opens[-1])
        for open_ms in opens:
            assert trial.value(ODD, open_ms) == widened(*trial.playback.odd[ODD, open_ms])
        assert trial.series("feed_repaired_total") == len(opens)
        repaired = [f["window"]["repaired"] for f in trial.forecasts if f["symbol"] == ODD]
        assert repaired[-1] == len(opens)
    assert not any(f["window"]["repaired"] for f in trial.forecasts if f["symbol"] in SOUND)
    assert trial.harness.ended == []
    found = await asyncio.to_thread(trial.replayed)
    assert found.compared == len({(f["symbol"], f["seq"]) for f in trial.forecasts})
    assert found.differences == []


async def test_absurd_numbers_affect_only_their_own_symbol(tmp_path: Path) -> None:
    trial = OddValuesRun(tmp_path)
    async with nothing_left(), trial.harness.running():
        opens = trial.coming(3, 4, 5, 6, 8)
        absurd = (1e308, 5e-324, 1e15, 1e-308, 1e300)
        for open_ms, price in zip(opens, absurd, strict=True):
            trial.playback.odd[ODD, open_ms] = Ohlcv(price, price, price, price, 1.0)
        await trial.passed(opens[-1])
        for open_ms, price in zip(opens, absurd, strict=True):
            _, _, _, close, volume = trial.value(ODD, open_ms)
            # What is no price was refused and its period filled, the jump is one.
            assert (close == price, volume) == ((True, 1.0) if price == 1e15 else (False, 0.0))
    forecasts = trial.forecasts
    for symbol in SOUND:
        seen = {f["candle_open_ms"] for f in forecasts if f["symbol"] == symbol}
        # A busy machine may miss some.
        assert seen.intersection(range(opens[0], opens[-1] + SECOND.ms, SECOND.ms))
    assert trial.harness.ended == []
    assert trial.series("feed_refused_total") >= 4
    found = await asyncio.to_thread(trial.replayed)
    assert found.differences == []


CAPACITY = 20
FASTER = 40.0


@pytest.mark.parametrize("name", EXCHANGES)
async def test_every_protocol_brings_an_odd_candle_by_its_history(name: str) -> None:
    clock = ScaledClock(FASTER)
    playback = odd_playback(minute_playback(2, clock.wall_ms()))
    behaviour = Behaviour(updates=2, close_delay_s=0.6)
    async with SandboxExchange(playback, name=name, clock=clock, behaviour=behaviour) as exchange:
        windows = {symbol: Window(symbol, MINUTE, CAPACITY) for symbol in playback.symbols}

        def closed(candle: Candle) -> None:
            if windows[candle.symbol].add_closed(candle) is CandleOutcome.GAP:
                backfill.request(candle.symbol)

        def on_history(symbol: str, candles: Sequence[Candle]) -> None:
            windows[symbol].merge_history(candles)

        urls = exchange.rest_url, exchange.ws_url
        harness = make_feed(urls, playback.symbols, clock, name=name, on_closed=closed)
        backfill = Backfill(
            harness.feed, windows.values(), MINUTE, clock, harness.metrics, on_history, CAPACITY
        )
        opens = [MINUTE.floor(clock.wall_ms()) + at * MINUTE.ms for at in (4, 5, 8)]
        for open_ms in opens:
            _, h, low, c, v = playback.candle(ODD, open_ms)
            playback.odd[ODD, open_ms] = Ohlcv(round(low * 0.999, 2), h, low, c, v)
        async with running(harness), asyncio.TaskGroup() as group:
            for symbol in windows:
                backfill.request(symbol)
            tasks = [
                group.create_task(backfill.run()),
                group.create_task(backfill.request_overdue()),
            ]
            await until(
                lambda: all(
                    w.is_complete and (w.next_open_ms or 0) > opens[-1] + MINUTE.ms
                    for w in windows.values()
                )
            )
            for task in tasks:
                task.cancel()
    for symbol, window in windows.items():
        assert window.next_open_ms is not None
        first_ms = window.next_open_ms - CAPACITY * MINUTE.ms
        for at, values in enumerate(window.ohlcv().tolist()):
            open_ms = first_ms + at * MINUTE.ms
            assert values == widened(*playback.forming(symbol, open_ms, 1.0)), (symbol, open_ms)
        assert window.count_repaired(CAPACITY) == (len(opens) if symbol == ODD else 0)
    assert harness.count("feed_refused") > 0
