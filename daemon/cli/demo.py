"""Run `candlecast demo`: fetch, train and forecast with a simulated exchange and a broker."""

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
from daemon.sandbox.exchange import SandboxExchange, shortest_timeframe
from daemon.sandbox.recording import RECORDING_15M, Playback, build_playback, load_recording
from daemon.watch.board import Board
from daemon.watch.subscriber import watch
from model.core.candle import Timeframe
from model.core.errors import CandlecastError, ConfigError
from model.files.csv_reader import STRICT, FileRules

if TYPE_CHECKING:
    from rich.console import Console

_SLICE_ROWS = 3_600
_TRAINING_ROWS = 2_100
_SYMBOLS = ("BTCJAN/USDT", "BTCFEB/USDT", "BTCMAR/USDT", "BTCAPR/USDT")
"""Disjoint parts of the recording, named by the month of 2025 in which each begins."""


class Demo(NamedTuple):
    """The options of `candlecast demo`.

    Attributes:
        duration_s: seconds of live forecasts; None runs to the end of the recording.
        headless: print plain lines instead of a live table.
        data: CSV file of candles to replay; None for the included recording.
        exchange: ccxt id of the exchange to simulate, with its shortest timeframe.
    """

    duration_s: float | None = None
    headless: bool = False
    data: Path | None = None
    exchange: str = "binance"


async def run_demo(demo: Demo, console: Console, stop: asyncio.Event) -> None:
    """Start a broker and an exchange, train on its history, then forecast its live candles.

    Raises:
        ConfigError: the exchange cannot be simulated.
        CandlecastError: a server cannot start, or fetching or training fails.
    """
    if demo.exchange not in EXCHANGES:
        msg = f"--exchange: cannot simulate {demo.exchange!r}; allowed: {', '.join(EXCHANGES)}"
        raise ConfigError(msg)
    clock = SystemClock()
    with tempfile.TemporaryDirectory(prefix="candlecast-demo-") as folder:
        broker = EmbeddedBroker()
        await asyncio.to_thread(broker.__enter__)
        try:
            frame = Timeframe.parse(shortest_timeframe(demo.exchange))
            rules = FileRules(report=lambda line: _print_line(console, line))
            playback = demo_playback(demo.data, frame, clock.wall_ms(), rules)
            async with SandboxExchange(playback, name=demo.exchange, clock=clock) as exchange:
                console.print(
                    f"{exchange.name} on {exchange.rest_url} and {exchange.ws_url}\n"
                    f"MQTT broker on {host_port(broker.host, broker.port)}",
                    style="dim",
                    soft_wrap=True,
                )
                config = write_config(Path(folder), playback, exchange, broker)
                await _fetch_and_train(config, frame, stop)
                if not stop.is_set():
                    await _run_daemon(config, demo, frame, console, stop)
        finally:
            await asyncio.to_thread(broker.__exit__)


def demo_playback(
    data: Path | None, frame: Timeframe, now_ms: int, rules: FileRules = STRICT
) -> Playback:
    """Replay the recording at ``frame``, with enough past candles at ``now_ms`` to train on."""
    recording = load_recording(data or RECORDING_15M, rules)
    origin_ms = frame.floor(now_ms) - _TRAINING_ROWS * frame.ms
    if data is not None:
        return build_playback(
            1, frame, origin_ms, recording=recording, slice_rows=len(recording.ohlcv)
        )
    starts = {symbol: at * _SLICE_ROWS for at, symbol in enumerate(_SYMBOLS)}
    return Playback(recording, frame, origin_ms, starts, _SLICE_ROWS)


def write_config(
    folder: Path, playback: Playback, exchange: SandboxExchange, broker: EmbeddedBroker
) -> Path:
    """Write a configuration for the demo's servers and folder; return its path."""
    sections = {
        "exchange": {
            "name": exchange.name,
            "endpoint": {"rest": exchange.rest_url, "ws": exchange.ws_url},
        },
        "trading": {"symbols": list(playback.symbols), "timeframe": playback.timeframe.text},
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
    path.write_text(yaml.safe_dump(sections, sort_keys=False), encoding="utf-8")
    return path


async def _fetch_and_train(config: Path, frame: Timeframe, stop: asyncio.Event) -> None:
    """Run `candlecast fetch` and `candlecast train --promote`.

    They run as processes, so that this one does not load the training libraries.
    """
    days = _TRAINING_ROWS * frame.ms / 86_400_000
    for arguments in (["fetch", "--days", f"{days}"], ["train", "--promote"]):
        # In a new session, the process gets no SIGINT from Ctrl-C, only the one sent below.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "daemon", *arguments, "--config", str(config)),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        code = await _wait_or_interrupt(process, stop)
        if stop.is_set():
            return
        if code:
            msg = f"candlecast {arguments[0]} failed with exit code {code}"
            raise CandlecastError(msg)


async def _wait_or_interrupt(process: asyncio.subprocess.Process, stop: asyncio.Event) -> int:
    """Wait for a process and return its exit code; interrupt it when ``stop`` is set."""

    async def interrupt_on_stop() -> None:
        try:
            await stop.wait()
        finally:
            if process.returncode is None:
                # SIGINT instead of SIGKILL, so that a progress bar restores the cursor.
                process.send_signal(signal.SIGINT)

    async with asyncio.TaskGroup() as group:
        interrupting = group.create_task(interrupt_on_stop())
        code = await process.wait()
        interrupting.cancel()
    return code


async def _run_daemon(
    config: Path, demo: Demo, frame: Timeframe, console: Console, stop: asyncio.Event
) -> None:
    """Run the daemon and show its forecasts until ``stop`` is set or the time is over."""
    clock = SystemClock()
    settings = configuration.load(config)
    pace = "one a second" if frame.text == "1s" else f"one every {frame.text}"
    board = Board(f"candlecast demo · recorded BTC/USDT candles, {pace} · Ctrl-C ends it")
    recorded_s = (_SLICE_ROWS - _TRAINING_ROWS) * frame.ms / 1000
    seconds = recorded_s if demo.duration_s is None else demo.duration_s
    async with opened(settings) as (bundle, history):
        app = App(
            settings,
            bundle,
            history,
            clock,
            on_listening=lambda url: _print_line(console, f"Status page: {url}"),
        )
        async with asyncio.TaskGroup() as group:
            running = group.create_task(app.run(stop), name="app")
            watching = group.create_task(
                watch(broker_of(settings), board, console, clock, stop.set), name="watch"
            )
            timer = group.create_task(_stop_after(clock, seconds, app.ready, stop), name="timer")
            await running
            watching.cancel()
            timer.cancel()
    if not console.is_terminal:
        # A terminal already shows the summary below the table.
        console.print(board.summary(), highlight=False, soft_wrap=True)


def _print_line(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True, markup=False)


async def _stop_after(
    clock: SystemClock, seconds: float, ready: asyncio.Event, stop: asyncio.Event
) -> None:
    await ready.wait()
    await clock.sleep(seconds)
    stop.set()
