"""Run a daemon between an exchange and a broker, with a faulty proxy on every connection."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from config.settings import Settings, load
from daemon.app import App, opened
from daemon.candles.window import Window
from daemon.sandbox.exchange import Behaviour, SandboxExchange
from daemon.sandbox.recording import Playback
from model.core.errors import BrokerError, ExchangeError
from tests.faults.frames import Publications
from tests.faults.proxy import FaultProxy, Impairment
from tests.faults.schedule import WAYS, Fault
from tests.integration.harness import promote_drawn, write_config
from tests.sandbox.scaled import ScaledClock
from tests.support.servers import HOST, Mosquitto
from tests.support.waiting import until


class Published(NamedTuple):
    """A forecast as it left the daemon, and when, by the exchange's clock (ms)."""

    at_ms: int
    payload: bytes


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


class FaultHarness:
    """Everything that runs during a trial by faults.

    Attributes:
        published: every forecast that left the daemon, in order.
        behind_ms: the longest that this process has not come to its turn, exchange's time.
        ended: why the daemon ended without being stopped.
    """

    def __init__(
        self,
        folder: Path,
        playback: Playback,
        factor: float,
        seed: int = 0,
        **sections: dict[str, Any],
    ) -> None:
        """Prepare.

        Args:
            folder: empty, for everything that is written.
            playback: what the exchange plays.
            factor: the exchange's seconds in one of ours.
            seed: of what is left to chance within the faults.
            sections: of the configuration, beyond what the trial itself needs.
        """
        self.clock = clock = ScaledClock(factor)
        self.playback = playback
        self.exchange = SandboxExchange(playback, clock=clock, behaviour=Behaviour(updates=3))
        self.broker = Mosquitto(folder)
        self.ways: dict[str, FaultProxy] = {}
        self.published: list[Published] = []
        self.behind_ms = 0.0
        self.ended: list[str] = []
        self.app: App | None = None
        self.folder = folder
        self._factor = factor
        self._sections = sections
        self._draw = random.Random(seed)
        self._publications = Publications()
        self._stop = asyncio.Event()
        self._broker_turn = asyncio.Lock()
        self._over = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """All servers up, the daemon ready, the clock watched; afterwards all of it is down."""
        await asyncio.to_thread(self.broker.start)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(asyncio.to_thread, self.broker.kill)
            await stack.enter_async_context(self.exchange)
            targets = (
                port_of(self.exchange.ws_url),
                port_of(self.exchange.rest_url),
                self.broker.port,
            )
            for way, port in zip(WAYS, targets, strict=True):
                proxy = FaultProxy(
                    port,
                    self._draw,
                    on_sent=self._note if way == "broker" else lambda _connection, _data: None,
                    websocket=way == "stream",
                )
                self.ways[way] = await stack.enter_async_context(proxy)
            settings = await asyncio.to_thread(self._settings)
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch_turns())
                daemon = group.create_task(self._keep_running(settings))
                await self.until(lambda: self.app is not None and self.app.ready.is_set())
                yield
                self._over = True
                self._stop.set()
                await daemon
                watch.cancel()

    def _settings(self) -> Settings:
        promote_drawn(self.folder, self.playback)
        stream, rest, broker = (self.ways[way].port for way in WAYS)
        endpoint = {"ws": f"ws://{HOST}:{stream}", "rest": f"http://{HOST}:{rest}"}
        config = write_config(
            self.folder,
            {
                "exchange": {"name": "binance", "endpoint": endpoint},
                "trading": {
                    "symbols": list(self.playback.symbols),
                    "timeframe": self.playback.timeframe.text,
                },
                "mqtt": {
                    "port": broker,
                    "instance": "tester",
                    # Not so soon that by the trial's clock a busy machine seems dead.
                    "keepalive_s": round(4 * self._factor),
                },
                "http": {"port": 0},
                **self._sections,
            },
        )
        return load(config)

    async def _keep_running(self, settings: Settings) -> None:
        """Start the daemon again whenever it ends, as a service manager does."""
        while not self._over:
            self._stop = asyncio.Event()
            try:
                async with opened(settings) as (bundle, history):
                    self.app = App(settings, bundle, history, self.clock)
                    await self.app.run(self._stop)
            except (ExchangeError, BrokerError) as error:
                self.ended.append(str(error))
                await self.clock.sleep(1.0)

    async def _watch_turns(self) -> None:
        while True:
            before_s = self.clock.monotonic()
            await asyncio.sleep(0.01)
            behind_s = self.clock.monotonic() - before_s - 0.01 * self._factor
            self.behind_ms = max(self.behind_ms, behind_s * 1e3)

    def _note(self, connection: int, data: bytes) -> None:
        now_ms = self.clock.wall_ms()
        for packet in self._publications.feed(connection, data):
            if packet.topic.endswith("/prediction"):
                self.published.append(Published(now_ms, bytes(packet.payload)))

    async def until(self, condition: Callable[[], object], timeout_s: float = 60.0) -> None:
        await until(condition, timeout_s)

    async def play(self, schedule: list[Fault]) -> None:
        """Let everything on the schedule happen; back when all of it is over."""
        start_s = self.clock.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in schedule:
                group.create_task(self._happen(fault, start_s))

    async def _happen(self, fault: Fault, start_s: float) -> None:
        await self.clock.sleep(max(0.0, start_s + fault.at_s - self.clock.monotonic()))
        if fault.way:
            await self._on_the_way(fault)
        elif fault.what in {"kill broker", "restart broker"}:
            end = self.broker.kill if fault.what == "kill broker" else self.broker.stop
            async with self._broker_turn:
                await asyncio.to_thread(end)
                await self.clock.sleep(fault.lasts_s)
                await asyncio.to_thread(self.broker.start)
        elif fault.what == "restart daemon":
            self._stop.set()
        else:
            await self._at_the_exchange(fault)

    async def _on_the_way(self, fault: Fault) -> None:
        proxy = self.ways[fault.way]
        if fault.what in {"reset", "close"}:
            proxy.cut(politely=fault.what == "close")
            return
        bad: dict[str, Any] = {
            "half-open": ("half_open", True),
            "refuse": ("refuse", True),
            "garble": ("garble", 0.5 * fault.size),
            "delay": ("delay_s", fault.size / self._factor),
            "throttle": ("bytes_per_s", self._factor * (500 + 20_000 * fault.size)),
        }
        name, value = bad[fault.what]
        setattr(proxy.impairment, name, value)
        if fault.what == "refuse":
            proxy.cut()
        await self.clock.sleep(fault.lasts_s)
        setattr(proxy.impairment, name, getattr(Impairment(), name))

    async def _at_the_exchange(self, fault: Fault) -> None:
        faults, stream = self.exchange.faults, self.ways["stream"].impairment
        coming = self._coming(fault)
        if fault.what == "ban":
            self.exchange.ban(418 if fault.size < 0.5 else 429, fault.lasts_s)
        elif fault.what in {"skip", "untraded", "repeat"}:
            named = {"skip": faults.skipped, "untraded": faults.untraded}
            named.get(fault.what, faults.duplicated).update(coming)
        elif fault.what == "silence":
            faults.silent = True
        elif fault.what == "late close":
            faults.close_delay_s = 2.0 * fault.size
        else:
            stream.reorder = True
        await self.clock.sleep(fault.lasts_s)
        faults.silent, faults.close_delay_s, stream.reorder = False, 0.0, False

    def _coming(self, fault: Fault) -> set[tuple[str, int]]:
        """Some candles of one symbol that have not opened yet."""
        symbol = self.playback.symbols[int(fault.size * len(self.playback.symbols))]
        frame = self.playback.timeframe
        first_ms = frame.floor(self.clock.wall_ms()) + 2 * frame.ms
        return {(symbol, first_ms + at * frame.ms) for at in range(int(1 + fault.lasts_s))}

    def is_current(self, since: int) -> bool:
        """Whether each symbol was forecast after publication ``since`` and no window has a gap."""
        symbols = {json.loads(p.payload)["symbol"] for p in self.published[since:]}
        return symbols == set(self.playback.symbols) and all(w.is_complete for w in self.windows)

    @property
    def windows(self) -> Sequence[Window]:
        """The windows of the daemon that runs."""
        assert self.app is not None
        return self.app.parts.table.windows
