"""Flood the feed with forming updates: no close is lost, and no queue grows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from daemon.sandbox.recording import Playback, build_playback
from model.core.candle import Timeframe
from model.core.market import MarketKey
from model.history.store import History
from tests.integration.harness import (
    HISTORY,
    Daemon,
    daemon,
    promote_drawn,
    sample,
    sections,
    write_config,
)
from tests.support.servers import SandboxProcess, free_port, mosquitto, sandbox_process

MESSAGES = "candlecast_feed_messages_total"


class Load(NamedTuple):
    """How much, and for how long."""

    symbols: int
    timeframe: Timeframe
    seconds: float


def resident_mb(process: Daemon) -> float:
    pages = int(Path(f"/proc/{process.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def playback_of(ready: SandboxProcess, timeframe: Timeframe) -> Playback:
    count = len(ready.symbols)
    return build_playback(count, timeframe, ready.origin_ms, slice_rows=ready.slice_rows)


def test_a_flood_of_forming_updates_loses_no_closing_candle_and_fills_no_memory(
    tmp_path: Path, rounds: Callable[[int, int], int]
) -> None:
    if rounds(0, 1):
        load = Load(2_000, Timeframe.parse("1m"), 240.0)
    else:
        load = Load(20, Timeframe.parse("1s"), 4.0)
    arguments = "--symbols", str(load.symbols), "--history", str(HISTORY)
    frame = "--timeframe", load.timeframe.text
    http_port = free_port()
    with (
        sandbox_process(*arguments, *frame, module="tests.faults.flooding_exchange") as exchange,
        mosquitto(tmp_path) as broker,
    ):
        playback = playback_of(exchange, load.timeframe)
        promote_drawn(tmp_path, playback)
        config = write_config(tmp_path, sections(exchange, broker.port, http_port))
        with daemon(config, http_port) as process:
            process.wait_ready(600.0)
            first_ms = load.timeframe.floor(int(time.time() * 1e3))
            before = process.get("/metrics")[1]
            resident = []
            for _ in range(20):
                time.sleep(load.seconds / 20)
                resident.append(resident_mb(process))
            after = process.get("/metrics")[1]
            assert process.stop() == 0, process.log
    forming = sample(after, MESSAGES) - sample(before, MESSAGES)
    print(f"{forming / load.seconds:.0f} updates/s, MB:", *map(round, resident))  # noqa: T201
    last_ms = load.timeframe.floor(first_ms + load.seconds * 1e3) - load.timeframe.ms
    check_history(tmp_path, playback, range(first_ms, last_ms, load.timeframe.ms))
    assert max(resident) < resident[0] + 30, resident
    assert sample(after, "candlecast_feed_reconnects_total") == 0


def check_history(folder: Path, playback: Playback, opens: range) -> None:
    """Each candle of that time was closed by the exchange's message, and is the right one."""
    with closing(History(folder / "state" / "history.sqlite")) as history:
        market = MarketKey("binance", playback.timeframe)
        for symbol in playback.symbols:
            found = history.candles(market, symbol, 10_000)
            closed = {c.open_ms: c.ohlcv for c in found if c.final_by == "exchange_flag"}
            for open_ms in opens:
                assert closed[open_ms] == playback.candle(symbol, open_ms), (symbol, open_ms)
