"""Every exchange that ccxt can watch candles of is heard, by the message that it documents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import ccxt.pro
import pytest

from daemon.connection import Connection
from daemon.exchange import make_exchange
from daemon.metrics import Metrics
from daemon.offset import ExchangeClock
from daemon.rest import Rest
from daemon.source import Source
from model.candle import Candle, Timeframe
from tests.candles.kinds import Bar, Message, Stream
from tests.candles.server import Server, serving
from tests.candles.streams import STREAMS
from tests.daemon.handclock import RecordedClock
from tests.replay.running import nothing_left

START_MS = 1_764_460_800_000
HEARD = [stream for stream in STREAMS if not stream.needs]
DUMB = [stream for stream in STREAMS if stream.needs]


def can_watch(name: str) -> bool:
    has = getattr(ccxt.pro, name)().has
    return bool(has.get("watchOHLCV") or has.get("watchOHLCVForSymbols"))


@dataclass
class Ear:
    """What a connection tells of."""

    finals: list[Candle] = field(default_factory=list)
    forming: list[Candle] = field(default_factory=list)
    garbage: list[Exception] = field(default_factory=list)
    bugs: list[Exception] = field(default_factory=list)
    messages: int = 0

    def on_message(self) -> None:
        self.messages += 1

    def on_final(self, candle: Candle) -> None:
        self.finals.append(candle)

    def on_forming(self, candle: Candle) -> None:
        self.forming.append(candle)

    def on_first(self, symbol: str, forming_ms: int) -> None:
        """That it came is enough."""

    def on_garbage(self, error: Exception) -> None:
        self.garbage.append(error)

    def on_bug(self, error: Exception) -> None:
        self.bugs.append(error)


def bars(stream: Stream) -> dict[str, Bar]:
    """A candle that is over, and three that follow it, in all their states."""
    step_ms = Timeframe.parse(stream.timeframe).ms

    def bar(number: int, close: float, volume: float, *, closed: bool = False) -> Bar:
        at_ms = START_MS + number * step_ms
        prices = (100.0, max(102.0, close), min(99.5, close), close)
        volumes = (volume, volume * 64, volume * 1024)
        return Bar(at_ms, *prices, *volumes, closed, step_ms)

    return {
        "past": bar(-1, 100.0, 4.0, closed=True),
        "first": bar(0, 101.0, 1.0),
        "first changed": bar(0, 98.25, 1.5),
        "first closed": bar(0, 98.5, 2.0, closed=True),
        "second": bar(1, 101.5, 0.5),
        "second closed": bar(1, 103.75, 2.5, closed=True),
        "third": bar(2, 99.0, 0.25),
    }


def messages(stream: Stream) -> list[Message]:
    """What the exchange says, in its own words."""
    past, first, *later = bars(stream).values()
    begin = stream.update(first) if stream.snapshot is None else stream.snapshot([past, first])
    return [*stream.before, begin, *(stream.update(bar) for bar in later)]


def told(candles: Sequence[Candle]) -> list[tuple[Any, ...]]:
    return [(c.symbol, c.open_ms, tuple(c.ohlcv), c.final_by) for c in candles]


def expected(stream: Stream, *names: str, final_by: str | None = None) -> list[tuple[Any, ...]]:
    of = bars(stream)
    return [
        (
            stream.market["symbol"],
            of[name].open_ms,
            (*of[name][1:5], getattr(of[name], stream.volume)),
            final_by,
        )
        for name in names
    ]


@asynccontextmanager
async def listening(stream: Stream, server: Server, ear: Ear) -> AsyncIterator[Connection]:
    """A connection as the daemon makes it, to an exchange that lists some markets."""
    symbol, frame = stream.market["symbol"], Timeframe.parse(stream.timeframe)
    source = Source(stream.exchange, server.rest_url, server.ws_url, (symbol,), frame)
    clock = ExchangeClock(RecordedClock(START_MS + 2 * frame.ms + frame.ms // 2))
    rest = Rest(source, clock, Metrics(1), ear.on_garbage)
    rest.exchange = make_exchange(stream.exchange, server.rest_url, server.ws_url)
    rest.exchange.options |= stream.options
    rest.exchange.set_markets([dict(stream.market), *map(dict, stream.twins)])
    link = Connection(source, [symbol], rest, clock, ear, 45.0)
    try:
        async with nothing_left(), asyncio.TaskGroup() as group:
            task = group.create_task(link.run())
            yield link
            task.cancel()
    finally:
        await rest.close()


async def until_heard(link: Connection, ear: Ear, candles: int) -> None:
    async with asyncio.timeout(10):
        while ear.messages < candles and not link.ended.is_set() and not ear.bugs:
            await asyncio.sleep(0.002)


def test_every_exchange_that_can_watch_candles_is_described() -> None:
    assert {stream.exchange for stream in STREAMS} == set(filter(can_watch, ccxt.pro.exchanges))


@pytest.mark.parametrize("stream", HEARD, ids=lambda stream: stream.name)
async def test_its_documented_messages_are_heard(stream: Stream) -> None:
    ear = Ear()
    async with (
        serving(stream, messages(stream)) as server,
        listening(stream, server, ear) as link,
    ):
        await until_heard(link, ear, len(bars(stream)) - 1)
    assert (link.error, ear.bugs, len(ear.garbage)) == (None, [], stream.refused), ear.garbage
    assert server.is_asked
    if stream.flag:
        assert told(ear.finals) == expected(
            stream, "first closed", "second closed", final_by="exchange_flag"
        )
        forming = ["first", "first changed", "second", "third"]
    else:
        # The first candle that is heard may lack its beginning.
        assert told(ear.finals) == expected(stream, "second closed", final_by="successor")
        forming = [name for name in bars(stream) if name != "past"]
    assert told(ear.forming) == expected(stream, *forming)
