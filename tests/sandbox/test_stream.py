"""Binance's websocket protocol, frame by frame."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from daemon.sandbox.exchange import Behaviour, SandboxExchange
from daemon.sandbox.market import Faults, Market
from daemon.sandbox.protocols.binance import event_json
from daemon.sandbox.protocols.binance_session import BinanceSession
from tests.sandbox.scaled import ScaledClock, second_playback

FAST = 5.0
ALL = 8
STREAMS = [f"s{i:02d}usdt@kline_1s" for i in range(ALL)]


@asynccontextmanager
async def running(
    clock: ScaledClock | None = None, **behaviour: Any
) -> AsyncIterator[SandboxExchange]:
    """An exchange on a clock that is five times as fast."""
    playback = second_playback(ALL, history=10)
    clock = clock or ScaledClock(FAST)
    async with SandboxExchange(playback, clock=clock, behaviour=Behaviour(**behaviour)) as exchange:
        yield exchange


@pytest.fixture
async def exchange() -> AsyncIterator[SandboxExchange]:
    async with running() as exchange:
        yield exchange


async def ask(client: ClientConnection, request: Any) -> Any:
    """Send a request and return its answer, passing over candles."""
    await client.send(request if isinstance(request, str | bytes) else json.dumps(request))
    while True:
        message = json.loads(await client.recv())
        if "e" not in message and "stream" not in message:
            return message


async def candles(client: ClientConnection, seconds: float) -> list[dict[str, Any]]:
    """Every raw kline event of the next ``seconds`` in which this process gets its turns."""
    messages = []

    async def collect() -> None:
        while True:
            messages.append(await client.recv())

    collecting = asyncio.create_task(collect())
    await ScaledClock(1.0).sleep(seconds)
    collecting.cancel()
    await asyncio.wait([collecting])
    if not collecting.cancelled():
        collecting.result()
    return [json.loads(message) for message in messages]


def session(max_streams: int = 1_024) -> BinanceSession:
    return BinanceSession(combined=False, names=[], max_streams=max_streams)


def reply(to: BinanceSession, request: str | bytes) -> Any:
    """The only response to a request."""
    (answer,) = to.reply(request, 0)
    return json.loads(answer)


async def test_subscribe_list_and_unsubscribe(exchange: SandboxExchange) -> None:
    a, b, c = STREAMS[:3]
    async with connect(exchange.ws_url + "/ws") as client:
        done = {"result": None, "id": 1}
        assert await ask(client, {"method": "SUBSCRIBE", "params": [a, b, c], "id": 1}) == done
        listed = await ask(client, {"method": "LIST_SUBSCRIPTIONS", "id": "two"})
        assert listed == {"result": [a, b, c], "id": "two"}
        done = {"result": None, "id": 3}
        assert await ask(client, {"method": "UNSUBSCRIBE", "params": [a, c], "id": 3}) == done
        await candles(client, 0.1)
        events = await candles(client, 0.6)
        assert {event["s"] for event in events} == {"S01USDT"}


@pytest.mark.parametrize(
    ("request_", "code", "says"),
    [
        ('{"method":', 3, "Invalid JSON"),
        (b"\xff\x00garbage", 3, "Invalid JSON"),
        ("[1,2]", 2, "expected an object"),
        ({"id": 1}, 2, "missing field `method`"),
        ({"method": "SUBSCRIBES", "id": 1}, 2, "unknown variant `SUBSCRIBES`"),
        ({"method": "SUBSCRIBE", "id": 1}, 2, "params must be an array"),
        ({"method": "SUBSCRIBE", "params": "x@kline_1s", "id": 1}, 2, "params must be an array"),
        ({"method": "SUBSCRIBE", "params": [1], "id": 1}, 2, "params must be an array"),
        ({"method": "SUBSCRIBE", "params": ["BTC USDT"], "id": 1}, 2, "invalid stream"),
        ({"method": "SUBSCRIBE", "params": [], "id": 1.5}, 2, "request ID"),
        ({"method": "SUBSCRIBE", "params": [], "id": True}, 2, "request ID"),
        ({"method": "SUBSCRIBE", "params": [], "id": "a" * 37}, 2, "request ID"),
    ],
)
async def test_malformed_requests_are_answered_and_the_connection_stays_open(
    exchange: SandboxExchange, request_: Any, code: int, says: str
) -> None:
    async with connect(exchange.ws_url + "/ws") as client:
        answer = await ask(client, request_)
        assert answer["error"]["code"] == code
        assert says in answer["error"]["msg"]
        alive = {"method": "LIST_SUBSCRIPTIONS", "id": None}
        assert await ask(client, alive) == {"result": [], "id": None}


@given(st.text() | st.binary() | st.recursive(st.none() | st.text() | st.integers(), st.lists))
def test_any_request_gets_a_result_or_an_error(request_: Any) -> None:
    text = request_ if isinstance(request_, str | bytes) else json.dumps(request_)
    answer = reply(session(), text)
    assert set(answer) <= {"result", "error", "id"}
    assert ("result" in answer) != ("error" in answer)


def test_more_streams_than_allowed_are_refused_as_a_whole() -> None:
    small = session(max_streams=2)
    subscribe = {"method": "SUBSCRIBE", "params": STREAMS[:3], "id": 7}
    answer = reply(small, json.dumps(subscribe))
    assert answer == {"error": {"code": 4, "msg": "Too many subscriptions"}, "id": 7}
    assert not small.topics
    again = {"method": "SUBSCRIBE", "params": [STREAMS[0]] * 5 + [STREAMS[1]], "id": 8}
    assert reply(small, json.dumps(again)) == {"result": None, "id": 8}


async def test_an_unknown_stream_is_accepted_and_silent(exchange: SandboxExchange) -> None:
    async with connect(exchange.ws_url + "/ws/0") as client:
        names = ["btcusdt@kline_1s", "s00usdt@kline_1m", "s00usdt@trade"]
        answer = await ask(client, {"method": "SUBSCRIBE", "params": names, "id": 1})
        assert answer == {"result": None, "id": 1}
        assert await candles(client, 0.5) == []


async def test_raw_and_combined_addresses(exchange: SandboxExchange) -> None:
    a, b = STREAMS[:2]
    async with connect(f"{exchange.ws_url}/ws/{a}") as raw:
        assert {event["s"] for event in await candles(raw, 0.4)} == {"S00USDT"}
    async with connect(f"{exchange.ws_url}/stream?streams={a}/{b}") as combined:
        messages = await candles(combined, 0.4)
        assert {message["stream"] for message in messages} == {a, b}
        assert all(m["data"]["s"].lower() in m["stream"] for m in messages)
        assert all(set(message) == {"stream", "data"} for message in messages)


@pytest.mark.parametrize("path", ["/", "/wss", "/stream/x", "/api/v3/ping"])
async def test_other_paths_are_404(exchange: SandboxExchange, path: str) -> None:
    with pytest.raises(InvalidStatus, match="404"):
        await connect(exchange.ws_url + path)


async def test_the_server_pings_and_answers_pings() -> None:
    async with running(ping_interval_s=0.05) as exchange:
        host, port = exchange.ws_url.removeprefix("ws://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        handshake = (
            "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        writer.write(handshake.encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b"101" in answer
        assert b"sec-websocket-extensions" not in answer.lower()
        first, length = await reader.readexactly(2)
        assert first == 0x89
        await reader.readexactly(length)
        writer.write(b"\x89\x82\x00\x00\x00\x00hi")
        while (await reader.readexactly(2))[0] != 0x8A:
            await reader.readexactly(length)
        assert await reader.readexactly(2) == b"hi"
        writer.close()
        await writer.wait_closed()


async def test_each_candle_closes_once_after_its_boundary_and_never_while_forming() -> None:
    async with (
        running(updates=4, close_delay_s=0.02, close_jitter_s=0.05) as exchange,
        connect(f"{exchange.ws_url}/ws/{'/'.join(STREAMS)}") as client,
    ):
        events = await candles(client, 1.5)
    playback = exchange.playback
    for i, symbol in enumerate(playback.symbols):
        mine = [event for event in events if event["s"] == f"S{i:02d}USDT"]
        closed = [event for event in mine if event["k"]["x"]]
        opens = [event["k"]["t"] for event in closed]
        assert opens == list(range(opens[0], opens[0] + len(opens) * 1_000, 1_000))
        assert len(opens) >= 4
        for event in mine:
            k = event["k"]
            whole = playback.candle(symbol, k["t"])
            values = tuple(float(k[name]) for name in "ohlcv")
            assert (values == whole) == k["x"]
            assert (event["E"] > k["T"] + 20) == k["x"]
        order = [(event["k"]["t"], event["k"]["x"], float(event["k"]["v"])) for event in mine]
        assert order == sorted(order)


async def test_all_symbols_close_in_one_burst(exchange: SandboxExchange) -> None:
    async with connect(f"{exchange.ws_url}/ws/{'/'.join(STREAMS)}") as client:
        events = [event for event in await candles(client, 1.2) if event["k"]["x"]]
    assert len(events) >= 3 * ALL
    for first in range(0, len(events) - ALL + 1, ALL):
        burst = events[first : first + ALL]
        assert [event["s"] for event in burst] == [f"S{i:02d}USDT" for i in range(ALL)]
        assert len({(event["E"], event["k"]["t"]) for event in burst}) == 1


async def test_candles_can_be_lost_repeated_or_changed() -> None:
    clock = ScaledClock(FAST)
    async with (
        running(clock) as exchange,
        connect(f"{exchange.ws_url}/ws/{'/'.join(STREAMS[:4])}") as client,
    ):
        playback, faults = exchange.playback, exchange.faults
        at = playback.timeframe.floor(clock.wall_ms()) + 2_000
        faults.skipped.add(("S00/USDT", at))
        faults.duplicated.add(("S01/USDT", at))
        faults.revised["S02/USDT", at] = 1.25
        events = await candles(client, 1.2)
    closed = [e for e in events if e["k"]["t"] == at and e["k"]["x"]]
    assert [e["s"] for e in closed] == ["S01USDT", "S01USDT", "S02USDT", "S02USDT", "S03USDT"]
    assert not [e for e in events if e["k"]["t"] == at and e["s"] == "S00USDT"]
    assert closed[0] == closed[1]
    last = playback.candle("S02/USDT", at).close
    assert [float(e["k"]["c"]) for e in closed[2:4]] == [last, 1.25]


async def test_silence_leaves_the_connection_alive_and_ends(exchange: SandboxExchange) -> None:
    async with connect(f"{exchange.ws_url}/ws/{STREAMS[0]}") as client:
        exchange.faults.silent = True
        await candles(client, 0.05)
        assert await candles(client, 0.5) == []
        assert await ask(client, {"method": "LIST_SUBSCRIPTIONS", "id": 1})
        exchange.faults.silent = False
        assert await candles(client, 0.5)


async def test_closing_messages_can_be_held_back(exchange: SandboxExchange) -> None:
    exchange.faults.close_delay_s = 0.6
    async with connect(f"{exchange.ws_url}/ws/{STREAMS[0]}") as client:
        await candles(client, 0.3)
        closed = [event for event in await candles(client, 1.0) if event["k"]["x"]]
    assert closed
    assert all(event["E"] >= event["k"]["T"] + 600 for event in closed)


async def test_connections_can_be_closed_and_broken(exchange: SandboxExchange) -> None:
    async with connect(f"{exchange.ws_url}/ws") as client:
        await ask(client, {"method": "LIST_SUBSCRIPTIONS", "id": 1})
        await exchange.streams.close_all(1001)
        with pytest.raises(ConnectionClosed, match="1001"):
            await client.recv()
    async with connect(f"{exchange.ws_url}/ws") as client:
        await ask(client, {"method": "LIST_SUBSCRIPTIONS", "id": 1})
        assert exchange.streams.clients == 1
        exchange.streams.abort_all()
        with pytest.raises(ConnectionClosed, match="no close frame"):
            await client.recv()


async def test_a_client_that_does_not_read_is_cut_off_and_others_miss_nothing() -> None:
    async with running(updates=500) as exchange, AsyncExitStack() as stack:
        host, port = exchange.ws_url.removeprefix("ws://").split(":")
        lazy = socket.create_connection((host, int(port)))
        stack.callback(lazy.close)
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        lazy.sendall(
            f"GET /ws/{'/'.join(STREAMS)} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        opens: list[int] = []
        async with connect(f"{exchange.ws_url}/ws/{STREAMS[0]}") as client, asyncio.timeout(150):
            while not exchange.streams.cut_off or len(opens) < 3:
                event = json.loads(await client.recv())
                if event["k"]["x"]:
                    opens.append(event["k"]["t"])
    assert exchange.streams.cut_off == 1
    assert opens == list(range(opens[0], opens[0] + len(opens) * 1_000, 1_000))


async def test_both_ports_are_free_again_after_the_end() -> None:
    async with running() as exchange:
        urls = exchange.rest_url, exchange.ws_url
        client = await connect(exchange.ws_url + "/ws")
    with pytest.raises(ConnectionClosed):
        await client.recv()
    ports = [int(url.rpartition(":")[2]) for url in urls]
    async with running(rest_port=ports[0], ws_port=ports[1]) as again:
        assert (again.rest_url, again.ws_url) == urls


async def test_closing_messages_encoded_ahead_say_the_same() -> None:
    async with (
        running(updates=0, encode_ahead_s=0.3) as exchange,
        connect(f"{exchange.ws_url}/ws/{STREAMS[0]}") as client,
    ):
        await candles(client, 0.3)
        # From the next burst on, and in this one too if it is already encoded.
        await ask(client, {"method": "SUBSCRIBE", "params": STREAMS[1:2], "id": 1})
        events = await candles(client, 0.9)
    market = Market(exchange.playback, Faults())
    opens = sorted({event["k"]["t"] for event in events})
    assert len(opens) >= 3
    assert opens == list(range(opens[0], opens[-1] + 1_000, 1_000))
    for open_ms in opens[1:-1]:
        of = [event for event in events if event["k"]["t"] == open_ms]
        expected = [
            event_json(
                market.kline(symbol, open_ms, 1.0, revised=False),
                symbol.replace("/", ""),
                "1s",
                open_ms + 1_004,
                closed=True,
            )
            for symbol in exchange.playback.symbols[:2]
        ]
        assert of == [json.loads(event) for event in expected]
