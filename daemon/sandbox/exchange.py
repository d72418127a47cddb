"""An exchange of one's own, on loopback sockets, playing recorded candles."""

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
from daemon.sandbox.protocols.base import Dialect, Messages, Update
from daemon.sandbox.protocols.binance import Binance
from daemon.sandbox.protocols.bybit import Bybit
from daemon.sandbox.protocols.kraken import Kraken
from daemon.sandbox.protocols.okx import Okx
from daemon.sandbox.recording import Tape
from daemon.sandbox.rest_server import RestApi
from daemon.sandbox.websocket_server import StreamServer

_HOST: Final = "127.0.0.1"
_PONG_TIMEOUT_S: Final = 60.0
_HEARTBEAT_S: Final = 1.0

DIALECTS: Final[dict[str, type[Dialect]]] = {
    dialect.name: dialect for dialect in (Binance, Okx, Bybit, Kraken)
}
"""The protocols that a sandbox exchange can speak, by ccxt id."""


def finest(name: str) -> str:
    """The shortest ccxt timeframe of exchange ``name``."""
    return next(iter(DIALECTS[name].intervals))


@dataclass(frozen=True)
class Behaviour:
    """How the exchange behaves when nothing is wrong.

    Attributes:
        updates: forming updates of each candle, spread evenly before its close.
        close_delay_s: from the boundary to the closing messages, seconds.
        close_jitter_s: up to so many seconds more, drawn once per candle.
        seed: of that draw.
        max_streams: streams of one connection, where the exchange limits them.
        ping_interval_s: between ping frames, where the exchange sends them, seconds.
        rest_port: 0 lets the system pick.
        ws_port: 0 lets the system pick.
    """

    updates: int = 3
    close_delay_s: float = 0.004
    close_jitter_s: float = 0.0
    seed: int = 0
    max_streams: int = 1_024
    ping_interval_s: float = 20.0
    rest_port: int = 0
    ws_port: int = 0


class SandboxExchange:
    """Async context manager; inside it the exchange is open and candles close on the grid.

    Attributes:
        name: ccxt id of the exchange that it passes for.
        rest_url: e.g. ``http://127.0.0.1:40001``.
        ws_url: e.g. ``ws://127.0.0.1:40002``.
        faults: what goes wrong on purpose.
        streams: the websocket side, with its counters and ways to break connections.
        rest: the REST side, with its counter.
    """

    def __init__(
        self,
        tape: Tape,
        *,
        name: str = "binance",
        clock: Clock | None = None,
        behaviour: Behaviour | None = None,
        faults: Faults | None = None,
        on_closing: Callable[[int], None] = lambda open_ms: None,  # noqa: ARG005
    ) -> None:
        """Prepare to play ``tape`` by ``clock`` as exchange ``name``; nothing listens yet.

        ``on_closing`` is told the opening time (Unix ms) of candles whose closing messages are
        about to be sent, before the first byte leaves.

        Raises:
            CandlecastError: that exchange has no candles of the tape's length.
        """
        self.name = name
        self.tape = tape
        self.faults = faults or Faults()
        self.rest_url = ""
        self.ws_url = ""
        self._clock = clock or SystemClock()
        self._on_closing = on_closing
        self._behaviour = behaviour or Behaviour()
        self._market = Market(tape, self.faults)
        self._dialect = DIALECTS[name](self._market, self._behaviour.max_streams)
        self.rest = RestApi(self._dialect, self._clock)
        self.streams = StreamServer(self._dialect, self._clock)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Listen on both ports and start the candles."""
        async with AsyncExitStack() as stack:
            await self._listen(stack)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            player = group.create_task(self._play(), name="sandbox candles")
            stack.callback(player.cancel)
            if (heartbeat := self._dialect.heartbeat) is not None:
                beating = group.create_task(self._beat(heartbeat), name="sandbox heartbeats")
                stack.callback(beating.cancel)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Stop the candles, close every connection and both ports."""
        await self._stack.aclose()

    def ban(self, status: int, seconds: float, *, handshakes: bool = False) -> None:
        """Answer every REST request with ``status`` (418 or 429) for ``seconds``.

        With ``handshakes``, new websocket connections too; those that are open live on.
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
                # Deflating a burst would cost more than everything else it needs together.
                compression=None,
                ping_interval=self._behaviour.ping_interval_s
                if self._dialect.ping_frames
                else None,
                ping_timeout=_PONG_TIMEOUT_S,
                close_timeout=1.0,
            )
        )
        self.ws_url = f"ws://{_HOST}:{next(iter(server.sockets)).getsockname()[1]}"

    async def _play(self) -> None:
        draw = random.Random(self._behaviour.seed)  # noqa: S311 - a repeatable delay, no secret
        step = self.tape.timeframe.ms
        grid = self.tape.timeframe.with_boundary(self.tape.origin_ms)
        open_ms = max(grid.floor(self._clock.wall_ms()), self.tape.origin_ms)
        while True:
            self.streams.latest_ms = open_ms + step - 1
            for update in range(1, self._behaviour.updates + 1):
                fraction = update / (self._behaviour.updates + 1)
                waited = await self._until(open_ms + fraction * step)
                # One whose time has passed says less than the next; past the close it would lie.
                if waited and self._clock.wall_ms() < open_ms + step:
                    self._burst(open_ms, fraction)
            delay_s = self._behaviour.close_delay_s + self.faults.close_delay_s
            delay_s += draw.uniform(0, self._behaviour.close_jitter_s)
            await self._until(open_ms + step + 1_000 * delay_s)
            if not self.faults.unclosed:
                self._burst(open_ms, 1.0)
            self._on_closing(open_ms)
            open_ms += step

    async def _until(self, at_ms: float) -> bool:
        """Wait for ``at_ms``; False when it had already passed."""
        waited = False
        # Asked again after every sleep: sleeping follows the monotonic clock, candles the wall.
        while (left_ms := at_ms - self._clock.wall_ms()) > 0:
            await self._clock.sleep(left_ms / 1_000)
            waited = True
        return waited

    def _burst(self, open_ms: int, fraction: float) -> None:
        if not self.faults.silent:
            self.streams.burst(self._messages(open_ms, fraction))

    def _messages(self, open_ms: int, fraction: float) -> Messages:
        now_ms = self._clock.wall_ms()
        made: dict[str, list[bytes]] = {}

        def messages(name: str) -> list[bytes]:
            if name not in made:
                made[name] = self._events(name, open_ms, fraction, now_ms)
            return made[name]

        return messages

    def _events(self, topic: str, open_ms: int, fraction: float, now_ms: int) -> list[bytes]:
        symbol = self._dialect.subscribable(topic)
        if symbol is None or (key := (symbol, open_ms)) in self.faults.unsaid:
            return []
        closed = fraction >= 1.0
        versions = [False]
        if closed and key in self.faults.duplicated:
            versions.append(False)
        if closed and key in self.faults.revised:
            versions.append(True)
        states = [self._told(symbol, open_ms, fraction, revised=r) for r in versions]
        goes_on = closed and self._dialect.goes_on
        following = self._following(symbol, open_ms, now_ms) if goes_on else None
        return self._dialect.events(symbol, Update(tuple(states), closed, following, now_ms))

    def _following(self, symbol: str, open_ms: int, now_ms: int) -> Kline | None:
        """The candle after the one that opened at ``open_ms``, as far as it has come."""
        step = self.tape.timeframe.ms
        next_ms = open_ms + step
        if (symbol, next_ms) in self.faults.unsaid:
            return None
        begun = min(max(now_ms - next_ms, 1), step - 1) / step
        return self._told(symbol, next_ms, begun, revised=False)

    def _told(self, symbol: str, open_ms: int, fraction: float, *, revised: bool) -> Kline:
        """A candle as the stream tells it."""
        kline = self._market.kline(symbol, open_ms, fraction, revised=revised)
        if (other := self.faults.stream_volume) is None:
            return kline
        return kline._replace(ohlcv=kline.ohlcv._replace(volume=other(kline)))

    async def _beat(self, heartbeat: bytes) -> None:
        while True:
            await self._clock.sleep(_HEARTBEAT_S)
            self.streams.beat(heartbeat)
