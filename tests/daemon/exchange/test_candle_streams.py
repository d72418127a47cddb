"""The daemon receives the documented candle messages of every exchange that ccxt can watch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import ccxt.pro
import pytest

from daemon.exchange.ccxt_client import make_exchange
from daemon.exchange.ccxt_tap import tapped_class
from daemon.exchange.exchange_clock import ExchangeClock
from daemon.exchange.rest import RestClient
from daemon.exchange.source import MarketSource
from daemon.feed.connection import Connection
from daemon.metrics.metrics import Metrics
from daemon.runtime.clock import Clock
from model.core.candle import Candle, Timeframe
from model.core.errors import ConfigError
from tests.exchange_messages.c_to_k import GATE_SPOT, gate_spot, hitbtc
from tests.exchange_messages.descriptions import Bar, Message, Stream, market
from tests.exchange_messages.server import Server, serving
from tests.exchange_messages.streams import STREAMS
from tests.exchange_messages.subscriptions import APART, EACH, TOGETHER, lacking, many
from tests.sandbox.scaled import MINUTE, ScaledClock
from tests.support.ccxt_connection import FakeConnection
from tests.support.manual_clock import PollingClock
from tests.support.recording_listener import RecordingListener
from tests.support.servers import MAX_WAIT_S

START_MS = 1_764_460_800_000
RECEIVABLE = [stream for stream in STREAMS if not stream.needs]
ONE_EACH = list({stream.exchange: stream for stream in RECEIVABLE}.values())
DUMB = [stream for stream in STREAMS if stream.needs]


def can_watch(name: str) -> bool:
    has = getattr(ccxt.pro, name)().has
    return bool(has.get("watchOHLCV") or has.get("watchOHLCVForSymbols"))


@dataclass
class ConnectionRecorder:
    """Records the callbacks of a connection."""

    finals: list[Candle] = field(default_factory=list)
    forming: list[Candle] = field(default_factory=list)
    garbage: list[Exception] = field(default_factory=list)
    bugs: list[Exception] = field(default_factory=list)
    messages: int = 0

    def on_message(self) -> None:
        self.messages += 1

    def on_candle_closed(self, candle: Candle) -> None:
        self.finals.append(candle)

    def on_candle_update(self, candle: Candle) -> None:
        self.forming.append(candle)

    def on_first_update(self, symbol: str, forming_ms: int) -> None:
        """Ignore the content."""

    def on_unusable_message(self, error: Exception) -> None:
        self.garbage.append(error)

    def on_receiver_error(self, error: Exception) -> None:
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
    """The exchange's own messages."""
    past, first, *later = bars(stream).values()
    begin = stream.update(first) if stream.snapshot is None else stream.snapshot([past, first])
    return [*stream.before, begin, *(stream.update(bar) for bar in later)]


def rows_of(candles: Sequence[Candle]) -> list[tuple[Any, ...]]:
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
async def listening(
    stream: Stream,
    server: Server,
    recorder: ConnectionRecorder,
    *others: Stream,
    clock: Clock | None = None,
) -> AsyncIterator[Connection]:
    """A connection as the daemon makes it, to an exchange that lists some markets."""
    frame = Timeframe.parse(stream.timeframe)
    markets = [stream.market, *(other.market for other in others)]
    symbols = tuple(market["symbol"] for market in markets)
    source = MarketSource(stream.exchange, server.rest_url, server.ws_url, symbols, frame)
    recorded = PollingClock(START_MS + 2 * frame.ms + frame.ms // 2, longest_s=60)
    time = ExchangeClock(clock or recorded)
    rest = RestClient(source, time, Metrics(1), recorder.on_unusable_message)
    rest.exchange = make_exchange(stream.exchange, server.rest_url, server.ws_url)
    rest.exchange.options |= stream.options
    # ccxt waits so long for its sockets to close.
    rest.exchange.timeout_on_exit = 0
    rest.exchange.set_markets([dict(market) for market in (*markets, *stream.twins)])
    link = Connection(source, symbols, rest, time, recorder, 45.0)
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(link.run())
            yield link
            task.cancel()
    finally:
        await rest.close()


async def until_received(link: Connection, recorder: ConnectionRecorder, candles: int) -> None:
    async with asyncio.timeout(MAX_WAIT_S):
        while recorder.messages < candles and not link.ended.is_set() and not recorder.bugs:
            await asyncio.sleep(0.002)


def test_every_exchange_that_can_watch_candles_is_described() -> None:
    assert {stream.exchange for stream in STREAMS} == set(filter(can_watch, ccxt.pro.exchanges))


@pytest.mark.parametrize("stream", RECEIVABLE, ids=lambda stream: stream.name)
async def test_documented_messages_are_received(stream: Stream) -> None:
    recorder = ConnectionRecorder()
    async with (
        serving(stream, messages(stream)) as server,
        listening(stream, server, recorder) as link,
    ):
        await until_received(link, recorder, len(bars(stream)) - 1)
    assert (link.error, recorder.bugs, len(recorder.garbage)) == (None, [], stream.refused), (
        recorder.garbage
    )
    assert server.is_asked
    if stream.flag:
        assert rows_of(recorder.finals) == expected(
            stream, "first closed", "second closed", final_by="exchange_flag"
        )
        forming = ["first", "first changed", "second", "third"]
    else:
        # The first received candle may lack its beginning.
        assert rows_of(recorder.finals) == expected(stream, "second closed", final_by="successor")
        forming = [name for name in bars(stream) if name != "past"]
    assert rows_of(recorder.forming) == expected(stream, *forming)


def subscribed(server: Server, stream: Stream) -> str | None:
    """How Bitcoin and Litecoin were subscribed to; None until both are."""
    other = stream.of_litecoin()
    mine, others = marks(stream), marks(other)
    asked = [text.lower() for text in server.asked]
    asked = [text for text in asked if any(mark in text for mark in (*mine, *others))]
    if not any(mark in text for mark in others for text in asked):
        return None
    if any(mark in asked[0] for mark in others) and any(mark in asked[0] for mark in mine):
        return TOGETHER
    return APART if server.connections > 1 else EACH


def marks(stream: Stream) -> set[str]:
    """How a request names a market."""
    market_id, base = str(stream.market["id"]).lower(), str(stream.market["base"]).lower()
    named = {name for name in ("btc", "xbt", "purr", "ltc") if name in market_id}
    return named | {base} if named else {base, f":{market_id}", f": {market_id}"}


@pytest.mark.parametrize("stream", ONE_EACH, ids=lambda stream: stream.exchange)
async def test_several_symbols_are_subscribed_to(stream: Stream) -> None:
    recorder = ConnectionRecorder()
    async with (
        serving(stream, []) as server,
        listening(stream, server, recorder, stream.of_litecoin()) as link,
    ):
        async with asyncio.timeout(MAX_WAIT_S):
            while subscribed(server, stream) is None and not link.ended.is_set():
                await asyncio.sleep(0.002)
    assert (link.error, recorder.bugs) == (None, [])
    assert subscribed(server, stream) == many(stream.exchange)


class Asked(ccxt.NetworkError):  # type: ignore[misc]
    """Ends a subscription where it would be sent."""


async def can_ask(exchange: Any, symbol: str, timeframe: str) -> bool:
    """Whether ccxt makes a whole request for candles of a timeframe."""
    try:
        if exchange.has.get("watchOHLCVForSymbols"):
            await exchange.watch_ohlcv_for_symbols([[symbol, timeframe]])
        else:
            await exchange.watch_ohlcv(symbol, timeframe)
    except Asked as asked:
        # For a timeframe that ccxt lacks, WhiteBIT is asked for candles without a length.
        return "null" not in str(asked)
    except (ccxt.ExchangeError, TypeError):
        return False
    pytest.fail("nothing was subscribed to")


@pytest.mark.parametrize("stream", ONE_EACH, ids=lambda stream: stream.exchange)
async def test_timeframes_that_cannot_be_watched_are_known(stream: Stream) -> None:
    def asked(url: str, _hash: object, message: object = None, *_rest: object) -> None:
        raise Asked(json.dumps(message or url))

    exchange = tapped_class(getattr(ccxt.pro, stream.exchange), RecordingListener())()
    exchange.watch = exchange.watch_multiple = asked
    exchange.options |= stream.options
    exchange.set_markets([dict(stream.market)])
    symbol = stream.market["symbol"]
    exchange.watch_candles([symbol], stream.timeframe)
    # KuCoin's websocket address comes by REST.
    where = asyncio.get_running_loop().create_future()
    where.set_result("wss://127.0.0.1")
    exchange.options["urls"] = {"public": where, "publicFutures": where}
    offered = [name for name in exchange.timeframes if is_timeframe(name)]
    cannot = [name for name in offered if not await can_ask(exchange, symbol, name)]
    await exchange.close()
    assert cannot == lacking(stream.exchange)


def is_timeframe(name: str) -> bool:
    try:
        Timeframe.parse(name)
    except ConfigError:
        return False
    return True


def test_candles_that_were_not_subscribed_are_counted_and_not_passed_on() -> None:
    listener = RecordingListener()
    exchange = tapped_class(ccxt.pro.gate, listener)()
    listed = [GATE_SPOT, market("LTC/USDT", "LTC_USDT")]
    exchange.set_markets([dict(one) for one in listed])
    exchange.watch_candles(["BTC/USDT"], "1m")
    line = FakeConnection()
    bar = bars(STREAMS[0])["first"]
    message = gate_spot(bar)
    for name in ("1m_LTC_USDT", "5m_BTC_USDT", "1m_DOGE_USDT"):
        message["result"]["n"] = name
        exchange.handle_message(line, message)
    assert listener.updates == []
    assert [str(error) for error in listener.errors] == [
        "candle of LTC/USDT, which is not watched",
        "candle of timeframe 5m instead of 1m",
        "candle of DOGE/USDT, which is not watched",
    ]
    exchange.handle_message(line, gate_spot(bar))
    assert len(listener.updates) == 1


def test_a_timeframe_with_two_names_is_passed_on() -> None:
    """Gate calls a week seven days, and ccxt finds either name."""
    listener = RecordingListener()
    exchange = tapped_class(ccxt.pro.gate, listener)()
    exchange.set_markets([dict(GATE_SPOT)])
    exchange.watch_candles(["BTC/USDT"], "1w")
    message = gate_spot(bars(STREAMS[0])["first"])
    message["result"]["n"] = "7d_BTC_USDT"
    exchange.handle_message(FakeConnection(), message)
    assert ([update[0] for update in listener.updates], listener.errors) == (["BTC/USDT"], [])


def test_only_the_newest_row_of_a_first_message_is_passed_on_and_all_of_later_ones() -> None:
    listener = RecordingListener()
    exchange = tapped_class(ccxt.pro.hitbtc, listener)()
    exchange.set_markets([market("BTC/USDT", "BTCUSDT")])
    exchange.watch_candles(["BTC/USDT"], "1m")
    of = bars(STREAMS[0])
    for names in (["past", "first"], ["first closed", "second"], ["second"]):
        exchange.handle_message(FakeConnection(), hitbtc("update")([of[name] for name in names]))
    open_times_ms = [open_ms for _, open_ms, _, _ in listener.updates]
    assert open_times_ms == [of[n].open_ms for n in ("first", "first", "second", "second")]
    assert listener.errors == []


@pytest.mark.parametrize("stream", DUMB, ids=lambda stream: stream.name)
async def test_streams_listed_as_unsupported_are_unsupported(stream: Stream) -> None:
    recorder = ConnectionRecorder()
    async with (
        serving(stream, messages(stream)) as server,
        listening(stream, server, recorder) as link,
    ):
        async with asyncio.timeout(MAX_WAIT_S):
            while not link.ended.is_set() and len(recorder.garbage) < len(messages(stream)):
                await asyncio.sleep(0.002)
    assert recorder.finals == []
    if stream.needs == "an API key":
        assert isinstance(link.error, ccxt.AuthenticationError)
    else:
        assert any("would open" in str(error) for error in recorder.garbage)


@pytest.mark.parametrize("stream", [s for s in DUMB if "key" in s.needs], ids=lambda s: s.name)
def test_with_a_key_the_documented_message_is_received(stream: Stream) -> None:
    listener = RecordingListener()
    exchange = tapped_class(getattr(ccxt.pro, stream.exchange), listener)()
    exchange.set_markets([dict(stream.market)])
    exchange.watch_candles([stream.market["symbol"]], stream.timeframe)
    first = bars(stream)["first"]
    exchange.handle_message(FakeConnection(), stream.update(first))
    values = (*first[1:5], getattr(first, stream.volume))
    assert listener.updates == [(stream.market["symbol"], first.open_ms, values, None)]


async def test_a_timeframe_on_which_ccxt_fails_ends_only_the_connection() -> None:
    (stream,) = [s for s in STREAMS if s.name == "bitget-spot"]
    recorder = ConnectionRecorder()
    two_hours = stream._replace(timeframe="2h")
    async with (
        serving(two_hours, []) as server,
        listening(two_hours, server, recorder) as link,
        asyncio.timeout(MAX_WAIT_S),
    ):
        await link.ended.wait()
    assert isinstance(link.error, ccxt.NotSupported)
    assert "cannot ask for candles of 2h" in str(link.error)


async def test_messages_that_ccxt_does_not_resolve_leave_the_stream_silent() -> None:
    """The exchange accepts the subscription and sends other messages while there are trades."""
    (stream,) = [s for s in STREAMS if s.name == "cryptocom-spot"]
    clock = ScaledClock(60.0)
    other = {"id": -1, "method": "subscribe", "code": 0, "result": {"channel": "candles.v2"}}

    def history() -> dict[str, Any]:
        at_ms = MINUTE.floor(clock.wall_ms())
        row = {"o": "1", "h": "1", "l": "1", "c": "1", "v": str(clock.wall_ms() - at_ms + 1)}
        return {"code": 0, "result": {"interval": "1m", "data": [row | {"t": at_ms}]}}

    recorder = ConnectionRecorder()
    async with (
        serving(stream, [other], history) as server,
        listening(stream, server, recorder, clock=clock) as link,
        asyncio.timeout(MAX_WAIT_S),
    ):
        await link.stalled.wait()
    assert link.stalled_symbols == ("BTC/USDT",)
    assert (recorder.forming, recorder.finals, link.error) == ([], [], None)
