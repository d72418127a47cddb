"""`candlecast demo`: day one in a minute, against an exchange and a broker of our own."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from config import settings as configuration
from daemon.app import App, opened
from daemon.factories import broker_of
from daemon.runtime.address import host_port
from daemon.runtime.clock import SystemClock
from daemon.sandbox import EXCHANGES
from daemon.sandbox.broker import EmbeddedBroker
from daemon.sandbox.exchange import SandboxExchange, finest
from daemon.sandbox.recording import RECORDING_15M, Tape, build_tape, load_recording
from daemon.watch.board import Board
from daemon.watch.subscriber import watch
from model.core.candle import Timeframe
from model.core.errors import CandlecastError, ConfigError
from model.files.csv_reader import STRICT, FileRules

if TYPE_CHECKING:
    from rich.console import Console

_SLICE_ROWS = 3_600
_TRAINED_ROWS = 2_100
_NAMES = ("BTCJAN/USDT", "BTCFEB/USDT", "BTCMAR/USDT", "BTCAPR/USDT")
"""Four disjoint stretches of 2025, by the month they begin in; none has seen another's future."""


class Demo(NamedTuple):
    """What `candlecast demo` was asked for.

    Attributes:
        duration_s: seconds of live forecasts; None plays the recording to its end.
        headless: plain lines instead of the live table.
        data: recorded candles to play (CSV) instead of the project's own.
        exchange: ccxt id of the exchange to play; its shortest candles set the pace.
    """

    duration_s: float | None = None
    headless: bool = False
    data: Path | None = None
    exchange: str = "binance"


async def run_demo(demo: Demo, console: Console, stop: asyncio.Event) -> None:
    """Start broker and exchange, train on the exchange's history, then forecast what follows.

    Raises:
        ConfigError: there is no such exchange to play.
        CandlecastError: one clear line.
    """
    if demo.exchange not in EXCHANGES:
        msg = f"--exchange: cannot play {demo.exchange!r}; allowed: {', '.join(EXCHANGES)}"
        raise ConfigError(msg)
    clock = SystemClock()
    with tempfile.TemporaryDirectory(prefix="candlecast-demo-") as folder:
        broker = EmbeddedBroker()
        await asyncio.to_thread(broker.__enter__)
        try:
            frame = Timeframe.parse(finest(demo.exchange))
            rules = FileRules(report=lambda line: _say(console, line))
            tape = demo_tape(demo.data, frame, clock.wall_ms(), rules)
            async with SandboxExchange(tape, name=demo.exchange, clock=clock) as exchange:
                console.print(
                    f"{exchange.name} on {exchange.rest_url} and {exchange.ws_url}\n"
                    f"MQTT broker on {host_port(broker.host, broker.port)}",
                    style="dim",
                    soft_wrap=True,
                )
                config = write_config(Path(folder), tape, exchange, broker)
                await _day_one(config, frame, stop)
                if not stop.is_set():
                    await _forecast(config, demo, frame, console, stop)
        finally:
            await asyncio.to_thread(broker.__exit__)


def demo_tape(data: Path | None, frame: Timeframe, now_ms: int, rules: FileRules = STRICT) -> Tape:
    """The recording on the grid of ``frame``, so far played that its past suffices to train on."""
    recording = load_recording(data or RECORDING_15M, rules)
    origin_ms = frame.floor(now_ms) - _TRAINED_ROWS * frame.ms
    if data is not None:
        return build_tape(1, frame, origin_ms, recording=recording, slice_rows=len(recording.ohlcv))
    starts = {name: at * _SLICE_ROWS for at, name in enumerate(_NAMES)}
    return Tape(recording, frame, origin_ms, starts, _SLICE_ROWS)


def write_config(
    folder: Path, tape: Tape, exchange: SandboxExchange, broker: EmbeddedBroker
) -> Path:
    """Write the configuration that points everything at this demo's own servers."""
    chosen = {
        "exchange": {
            "name": exchange.name,
            "endpoint": {"rest": exchange.rest_url, "ws": exchange.ws_url},
        },
        "trading": {"symbols": list(tape.symbols), "timeframe": tape.timeframe.text},
        "model": {"epochs": 8, "batch_size": 256, "learning_rate": 0.002},
        "mqtt": {"host": broker.host, "port": broker.port, "instance": "demo"},
        "http": {"port": 0},
        "logging": {"level": "WARNING"},
        "paths": {
            "state": str(folder / "state"),
            "data": str(folder / "data"),
            "models": str(folder / "models"),
        },
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(chosen, sort_keys=False), encoding="utf-8")
    return path


async def _day_one(config: Path, frame: Timeframe, stop: asyncio.Event) -> None:
    """`candlecast fetch` and `candlecast train --promote`, as on a real first day.

    They are processes of their own, so that this one never loads what only training needs.
    """
    days = _TRAINED_ROWS * frame.ms / 86_400_000
    for arguments in (["fetch", "--days", f"{days}"], ["train", "--promote"]):
        # In a session of its own: Ctrl-C is told to it once, by us, however often it is pressed.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "daemon", *arguments, "--config", str(config)),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        code = await _unless_told(process, stop)
        if stop.is_set():
            return
        if code:
            msg = f"candlecast {arguments[0]} failed with exit code {code}"
            raise CandlecastError(msg)


async def _unless_told(process: asyncio.subprocess.Process, stop: asyncio.Event) -> int:
    """Wait for a process's end, which is asked for once ``stop`` is set; its exit code."""

    async def ask() -> None:
        try:
            await stop.wait()
        finally:
            if process.returncode is None:
                # As Ctrl-C would: whoever draws a bar has to give the cursor back.
                process.send_signal(signal.SIGINT)

    async with asyncio.TaskGroup() as group:
        asking = group.create_task(ask())
        code = await process.wait()
        asking.cancel()
    return code


async def _forecast(
    config: Path, demo: Demo, frame: Timeframe, console: Console, stop: asyncio.Event
) -> None:
    clock = SystemClock()
    settings = configuration.load(config)
    pace = "one a second" if frame.text == "1s" else f"one every {frame.text}"
    board = Board(f"candlecast demo · recorded BTC/USDT candles, {pace} · Ctrl-C ends it")
    left_s = (_SLICE_ROWS - _TRAINED_ROWS) * frame.ms / 1000
    seconds = left_s if demo.duration_s is None else demo.duration_s
    async with opened(settings) as (bundle, history):
        app = App(
            settings, bundle, history, clock, on_listening=lambda url: _announce(console, url)
        )
        async with asyncio.TaskGroup() as group:
            running = group.create_task(app.run(stop), name="app")
            shown = group.create_task(
                watch(broker_of(settings), board, console, clock, stop.set), name="watch"
            )
            timer = group.create_task(_stop_after(clock, seconds, app.ready, stop), name="timer")
            await running
            shown.cancel()
            timer.cancel()
    if not console.is_terminal:
        # On a terminal it stands under the table already.
        console.print(board.summary(), highlight=False, soft_wrap=True)


def _announce(console: Console, url: str) -> None:
    # Printed above the live table, where there is one.
    _say(console, f"Status page: {url}")


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True, markup=False)


async def _stop_after(
    clock: SystemClock, seconds: float, ready: asyncio.Event, stop: asyncio.Event
) -> None:
    await ready.wait()
    await clock.sleep(seconds)
    stop.set()
