"""Simulate an exchange on loopback sockets that plays recorded candles.

Written by hand because no library simulates the candle streams and REST addresses of these
exchanges, and their test networks can neither be reached offline nor be made to fail on purpose.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, Self

from aiohttp import web
from websockets.asyncio.server import serve

from daemon.runtime.clock import Clock, SystemClock
from daemon.sandbox.market import Faults, Kline, Market
from daemon.sandbox.protocols.base import CandleUpdate, ExchangeProtocol, Messages
from daemon.sandbox.protocols.binance import Binance
from daemon.sandbox.protocols.bybit import Bybit
from daemon.sandbox.protocols.kraken import Kraken
from daemon.sandbox.protocols.okx import Okx
from daemon.sandbox.recording import Playback
from daemon.sandbox.rest_server import RestApi
from daemon.sandbox.websocket_server import StreamServer

_HOST: Final = "127.0.0.1"
_PONG_TIMEOUT_S: Final = 60.0
_HEARTBEAT_S: Final = 1.0

PROTOCOLS: Final[dict[str, type[ExchangeProtocol]]] = {
    protocol.name: protocol for protocol in (Binance, Okx, Bybit, Kraken)
}
"""Protocol class by ccxt id."""


def shortest_timeframe(name: str) -> str:
    """The shortest ccxt timeframe of exchange ``name``."""
    return next(iter(PROTOCOLS[name].intervals))


@dataclass(frozen=True)
class Behaviour:
    """Timing and limits of the exchange without faults.

    Attributes:
        updates: forming updates of each candle, spread evenly before its close.
        close_delay_s: seconds from the boundary to the closing messages.
        close_jitter_s: largest random addition to that delay, seconds, drawn once per candle.
        encode_ahead_s: how long before the closing messages they are encoded, to be sent with one
            write per connection; 0 encodes and sends them one by one. Their event time is the
            planned one. Faults injected in between affect the next candle.
        seed: of the random number generator for the jitter.
        max_streams: streams per connection, for exchanges that limit them.
        ping_interval_s: seconds between ping frames, for exchanges that send them.
        rest_port: port of the REST server; 0 selects a free port.
        ws_port: port of the websocket server; 0 selects a free port.
    """

    updates: int = 3
    close_delay_s: float = 0.004
    close_jitter_s: float = 0.0
    encode_ahead_s: float = 0.0
    seed: int = 0
    max_streams: int = 1_024
    ping_interval_s: float = 20.0
    rest_port: int = 0
    ws_port: int = 0


class SandboxExchange:
    """Async context manager that serves an exchange whose candles close on the time grid.

    Attributes:
        name: ccxt id of the simulated exchange.
        rest_url: e.g. ``http://127.0.0.1:40001``.
        ws_url: e.g. ``ws://127.0.0.1:40002``.
        faults: injected faults.
        streams: websocket server, with counters and methods that break connections.
        rest: REST server, with request counters.
    """

    def __init__(
        self,
        playback: Playback,
        *,
        name: str = "binance",
        clock: Clock | None = None,
        behaviour: Behaviour | None = None,
        faults: Faults | None = None,
        on_closing: Callable[[int], None] = lambda open_ms: None,  # noqa: ARG005
    ) -> None:
        """Prepare the servers; nothing listens yet.

        Args:
            playback: candles to stream.
            name: ccxt id of the exchange to simulate.
            clock: decides when candles form and close; the system clock when None.
            behaviour: timing and limits; the defaults when None.
            faults: injected faults; none when None.
            on_closing: called with the opening time (Unix milliseconds) of the candles whose
                closing messages are sent next, before the first byte leaves.

        Raises:
            CandlecastError: that exchange has no candles of the playback's timeframe.
        """
        self.name = name
        self.playback = playback
        self.faults = faults or Faults()
        self.rest_url = ""
        self.ws_url = ""
        self._clock = clock or SystemClock()
        self._on_closing = on_closing
        self._behaviour = behaviour or Behaviour()
        self._market = Market(playback, self.faults)
        self._protocol = PROTOCOLS[name](self._market, self._behaviour.max_streams)
        self.rest = RestApi(self._protocol, self._clock)
        self.streams = StreamServer(self._protocol, self._clock)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Listen on both ports and start the candles."""
        async with AsyncExitStack() as stack:
            await self._listen(stack)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            stream_task = group.create_task(self._stream_candles(), name="sandbox candles")
            stack.callback(stream_task.cancel)
            if (heartbeat := self._protocol.heartbeat) is not None:
                heartbeat_task = group.create_task(
                    self._send_heartbeats(heartbeat), name="sandbox heartbeats"
                )
                stack.callback(heartbeat_task.cancel)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Stop the candles, close every connection and both ports."""
        await self._stack.aclose()

    def ban(self, status: int, seconds: float, *, handshakes: bool = False) -> None:
        """Answer every REST request with ``status`` (418 or 429) for ``seconds``.

        With ``handshakes``, also refuse new websocket connections; open ones stay open.
        """
        self.faults.no_handshakes = handshakes
        self.faults.ban_status = status
        self.faults.ban_until_ms = self._clock.wall_ms() + round(seconds * 1_000)

    async def _listen(self, stack: AsyncExitStack) -> None:
        runner = web.AppRunner(self.rest.app(), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, _HOST, self._behaviour.rest_port).start()
        self.rest_url = f"http://{_HOST}:{runner.addresses[0][1]}"
        server = await stack.enter_async_context(
            serve(
                self.streams.handle,
                _HOST,
                self._behaviour.ws_port,
                process_request=self.streams.refuse_path,
                # Compressing a burst would cost more than all its other work.
                compression=None,
                ping_interval=self._behaviour.ping_interval_s
                if self._protocol.ping_frames
                else None,
                ping_timeout=_PONG_TIMEOUT_S,
                close_timeout=1.0,
            )
        )
        self.ws_url = f"ws://{_HOST}:{next(iter(server.sockets)).getsockname()[1]}"

    async def _stream_candles(self) -> None:
        jitter = random.Random(self._behaviour.seed)  # noqa: S311 - a repeatable delay, no secret
        step = self.playback.timeframe.ms
        grid = self.playback.timeframe.with_boundary(self.playback.origin_ms)
        open_ms = max(grid.floor(self._clock.wall_ms()), self.playback.origin_ms)
        while True:
            self.streams.max_time_ms = open_ms + step - 1
            for update in range(1, self._behaviour.updates + 1):
                fraction = update / (self._behaviour.updates + 1)
                waited = await self._sleep_until(open_ms + fraction * step)
                # Skip a late update; after the close it would show an older state as new.
                if waited and self._clock.wall_ms() < open_ms + step:
                    self._send_burst(open_ms, fraction)
            delay_s = self._behaviour.close_delay_s + self.faults.close_delay_s
            delay_s += jitter.uniform(0, self._behaviour.close_jitter_s)
            await self._close(open_ms, open_ms + step + 1_000 * delay_s)
            open_ms += step

    async def _close(self, open_ms: int, at_ms: float) -> None:
        """Send the closing messages at ``at_ms``."""
        if ahead_s := self._behaviour.encode_ahead_s:
            await self._sleep_until(at_ms - 1_000 * ahead_s)
            messages = self._messages_by_topic(open_ms, 1.0, int(at_ms))
            silent = self.faults.silent or self.faults.unclosed
            burst = None if silent else self.streams.encode_burst(messages)
            await self._sleep_until(at_ms)
            self._on_closing(open_ms)
            if burst is not None:
                self.streams.send_encoded(burst)
            return
        await self._sleep_until(at_ms)
        if not self.faults.unclosed:
            self._send_burst(open_ms, 1.0)
        self._on_closing(open_ms)

    async def _sleep_until(self, at_ms: float) -> bool:
        """Wait for ``at_ms``; return False if it had already passed."""
        waited = False
        # Checked after every sleep: sleep uses the monotonic clock, candles the wall clock.
        while (left_ms := at_ms - self._clock.wall_ms()) > 0:
            await self._clock.sleep(left_ms / 1_000)
            waited = True
        return waited

    def _send_burst(self, open_ms: int, fraction: float) -> None:
        if not self.faults.silent:
            now_ms = self._clock.wall_ms()
            self.streams.send_burst(self._messages_by_topic(open_ms, fraction, now_ms))

    def _messages_by_topic(self, open_ms: int, fraction: float, now_ms: int) -> Messages:
        cache: dict[str, list[bytes]] = {}

        def cached(topic: str) -> list[bytes]:
            if topic not in cache:
                cache[topic] = self._messages_of(topic, open_ms, fraction, now_ms)
            return cache[topic]

        return cached

    def _messages_of(self, topic: str, open_ms: int, fraction: float, now_ms: int) -> list[bytes]:
        symbol = self._protocol.subscribable(topic)
        if symbol is None or (key := (symbol, open_ms)) in self.faults.not_streamed:
            return []
        closed = fraction >= 1.0
        versions = [False]
        if closed and key in self.faults.duplicated:
            versions.append(False)
        if closed and key in self.faults.revised:
            versions.append(True)
        states = [self._streamed_kline(symbol, open_ms, fraction, revised=r) for r in versions]
        sends_next = closed and self._protocol.sends_next_on_close
        next_kline = self._next_kline(symbol, open_ms, now_ms) if sends_next else None
        update = CandleUpdate(tuple(states), closed, next_kline, now_ms)
        return self._protocol.candle_messages(symbol, update)

    def _next_kline(self, symbol: str, open_ms: int, now_ms: int) -> Kline | None:
        """The candle after the one that opened at ``open_ms``, in its current state."""
        step = self.playback.timeframe.ms
        next_ms = open_ms + step
        if (symbol, next_ms) in self.faults.not_streamed:
            return None
        fraction = min(max(now_ms - next_ms, 1), step - 1) / step
        return self._streamed_kline(symbol, next_ms, fraction, revised=False)

    def _streamed_kline(
        self, symbol: str, open_ms: int, fraction: float, *, revised: bool
    ) -> Kline:
        """A candle as the stream shows it, with a faulty volume if one is injected."""
        kline = self._market.kline(symbol, open_ms, fraction, revised=revised)
        if (fake_volume := self.faults.stream_volume) is None:
            return kline
        return kline._replace(ohlcv=kline.ohlcv._replace(volume=fake_volume(kline)))

    async def _send_heartbeats(self, heartbeat: bytes) -> None:
        while True:
            await self._clock.sleep(_HEARTBEAT_S)
            self.streams.send_heartbeat(heartbeat)
