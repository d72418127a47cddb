"""Run one daemon at one size for `benchmarks.daemon.pipeline`."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.processes import (
    TUNED,
    Exchange,
    busy_loop,
    cpu_s,
    free_port,
    mosquitto,
    python,
    rss_mb,
    running,
    stop,
)
from benchmarks.harness.scraper import Scraper, wait_ready
from benchmarks.harness.tiny_champion import prepare

QUIET: Final = "quiet"
BUSY: Final = "busy"
DAEMON: Final = "daemon"
LOOP: Final = "its event loop"

_WARM_BURSTS: Final = 4
_STAGES: Final = ("receive", "features", "inference", "encode")

Floats = NDArray[np.float64]


class DaemonUnderTest(NamedTuple):
    """A daemon to measure.

    Attributes:
        command: starts it, without the configuration's path.
        scraped: whether it has metrics; else it prints a line when it is ready.
        broker: configuration lines of the Mosquitto it publishes to.
        most_rounds: rounds at most.
        every_of_many: seconds between bursts at 1,000 symbols and more.
        only_at: the one size it is measured at; None for all.
    """

    command: tuple[str, ...]
    scraped: bool
    broker: Sequence[str] = TUNED
    most_rounds: int = 99
    every_of_many: int = 1
    only_at: int | None = None


DAEMONS: Final = {
    "ours": DaemonUnderTest(python("daemon", "run", "--config"), scraped=True),
    "constant": DaemonUnderTest(python("benchmarks.daemon.constant_model"), scraped=True),
    "straightforward": DaemonUnderTest(
        python("benchmarks.daemon.naive_daemon"),
        scraped=False,
        most_rounds=1,
        every_of_many=3,
    ),
    "ours/defaults": DaemonUnderTest(
        python("daemon", "run", "--config"),
        scraped=True,
        broker=(),
        most_rounds=1,
        only_at=1_000,
    ),
}


@dataclass(frozen=True, eq=False)
class Run:
    """The results of one run.

    Attributes:
        bursts: closing bursts that count.
        message_ms: start of the burst to the subscriber, of every forecast.
        burst_end_ms: the same of the last forecast of each burst.
        missing: forecasts that never came.
        late: forecasts that were ready after the budget.
        payload_bytes: of a forecast, mean.
        cpu_s: processor seconds of every process, by its role, and of the daemon's event loop.
        rss_mb: resident memory of the daemon.
        where_ms: mean of each part of the latency; without the time to the acknowledgement they add
            up to the mean of ``message_ms``.
        stage_us: the daemon's own stages, microseconds per candle.
        batch_size: candles of a flush, mean.
    """

    bursts: int
    message_ms: Floats
    burst_end_ms: Floats
    missing: int
    late: int
    payload_bytes: float
    cpu_s: dict[str, float]
    rss_mb: float
    where_ms: dict[str, float]
    stage_us: dict[str, float]
    batch_size: float


def measure(how: DaemonUnderTest, market: Exchange, bursts: int, folder: Path) -> dict[str, Run]:
    """Start a broker, a subscriber and the daemon; watch some bursts; end them.

    Returns:
        The results on the quiet machine, and beside a process that keeps a third of a core busy.
    """
    http_port = free_port()
    received = folder / "received"
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(mosquitto(folder, how.broker))
        config = prepare(folder, market, broker.port, http_port)
        words = (str(broker.port), str(received), *(["at-once"] if how.broker != TUNED else []))
        subscriber = stack.enter_context(
            running(*python("benchmarks.harness.subscriber", *words), log=folder / "log")
        )
        _first_line(subscriber)
        log = folder / "daemon.log"
        daemon = stack.enter_context(running(*how.command, str(config), log=log))
        processes = {
            DAEMON: daemon.pid,
            "broker": broker.pid,
            "exchange": market.pid,
            "subscriber": subscriber.pid,
        }
        try:
            scraper = Scraper(http_port) if how.scraped else None
            if scraper is None:
                _first_line(daemon)
            else:
                wait_ready(http_port, daemon)
            time.sleep(_WARM_BURSTS * market.every)
            spans = {}
            for beside, load in ((QUIET, contextlib.nullcontext()), (BUSY, busy_loop(folder))):
                with load:
                    time.sleep(market.every)
                    spans[beside] = _watch(processes, scraper, bursts * market.every)
        except AssertionError as error:
            error.add_note(log.read_text(encoding="utf-8", errors="replace"))
            raise
        # Wait for forecasts that are on their way.
        time.sleep(1.5 * market.every)
        stop(daemon)
        stop(subscriber)
    lines = received.read_text(encoding="utf-8").splitlines()
    return {beside: _evaluate(lines, market, *span) for beside, span in spans.items()}


class _Reading(NamedTuple):
    """The counters of all processes between two bursts.

    Attributes:
        at_ns: when, monotonic.
        cpu_s: processor seconds by role.
        series: metrics of the daemon.
        rss_mb: resident memory of the daemon.
    """

    at_ns: int
    cpu_s: dict[str, float]
    series: dict[tuple[str, str], float]
    rss_mb: float

    @classmethod
    def take(cls, processes: dict[str, int], scraper: Scraper | None) -> _Reading:
        # 0.6 s after the boundary, away from the bursts, which follow the boundary.
        time.sleep((0.6 - time.time()) % 1.0)
        series = scraper.scrape() if scraper else {}
        used_s = {role: cpu_s(pid)[1] for role, pid in processes.items()}
        used_s[LOOP] = cpu_s(processes[DAEMON])[0]
        used_s["scraper"] = time.process_time()
        return cls(time.monotonic_ns(), used_s, series, rss_mb(processes[DAEMON]))


def _watch(
    processes: dict[str, int], scraper: Scraper | None, seconds: int
) -> tuple[_Reading, _Reading]:
    """The counters before and after some bursts, with metrics scraped in between."""
    before = _Reading.take(processes, scraper)
    with scraper.scraping() if scraper else contextlib.nullcontext():
        time.sleep(seconds)
    return before, _Reading.take(processes, scraper)


def _first_line(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    assert child.stdout.readline(), "ended before it was ready"


def _evaluate(lines: list[str], market: Exchange, before: _Reading, after: _Reading) -> Run:
    starts = {
        close_ms: began_ns
        for close_ms, began_ns in market.burst_starts().items()
        if before.at_ns < began_ns < after.at_ns
    }
    arrivals: dict[tuple[str, int], list[str]] = {}
    for line in lines:
        symbol, close_ms, *rest = line.split(",")
        if int(close_ms) in starts:
            arrivals.setdefault((symbol, int(close_ms)), rest)
    burst_ms: dict[int, list[float]] = {close_ms: [] for close_ms in starts}
    for (_, closed_ms), (arrived_ns, *_) in arrivals.items():
        burst_ms[closed_ms].append((int(arrived_ns) - starts[closed_ms]) / 1e6)
    moved = {key: value - before.series.get(key, 0.0) for key, value in after.series.items()}
    flushes = moved.get(("batch_size_count", ""), 0.0)
    message_ms = np.array([ms for burst in burst_ms.values() for ms in burst])
    return Run(
        bursts=len(starts),
        message_ms=message_ms,
        burst_end_ms=np.array([max(burst) for burst in burst_ms.values() if burst]),
        missing=len(starts) * len(market.symbols) - len(arrivals),
        late=round(moved.get(("predictions_total", "late"), 0.0)),
        payload_bytes=sum(int(rest[2]) for rest in arrivals.values()) / max(1, len(arrivals)),
        cpu_s={role: used_s - before.cpu_s[role] for role, used_s in after.cpu_s.items()},
        rss_mb=after.rss_mb,
        where_ms=_where(arrivals, starts, _ahead_ms(before, after)) | _publish_ms(moved)
        if flushes and arrivals
        else {},
        stage_us=_stages(moved) if flushes else {},
        batch_size=moved[("batch_size_sum", "")] / flushes if flushes else float("nan"),
    )


def _ahead_ms(before: _Reading, after: _Reading) -> float:
    """The daemon's estimate of the exchange's time minus this machine's time."""
    name = "exchange_clock_offset_seconds", ""
    # The wall clock of the offset is rounded down to milliseconds: 0.5 ms on average.
    return 500.0 * (before.series[name] + after.series[name]) - 0.5


def _where(
    arrivals: dict[tuple[str, int], list[str]], starts: dict[int, int], ahead_ms: float
) -> dict[str, float]:
    """The mean latency by part, from the latencies in the messages; the parts add up to it."""
    wall_ns = time.time_ns() - time.monotonic_ns()
    parts = []
    for (_, close_ms), (arrived_ns, _, _, published_ms, ready, queue, _) in arrivals.items():
        total_ms = (int(arrived_ns) - starts[close_ms]) / 1e6
        made_ms = float(published_ms) - ahead_ms - (starts[close_ms] + wall_ns) / 1e6
        in_daemon_ms, queue_ms = float(ready), float(queue)
        way_in_ms = made_ms - in_daemon_ms
        way_out_ms = total_ms - made_ms
        parts.append((way_in_ms, queue_ms, in_daemon_ms - queue_ms, way_out_ms, total_ms))
    names = (
        *("exchange to daemon", "receive, queue", "features, inference, encode"),
        *("ready to subscriber", "sum"),
    )
    return dict(zip(names, np.mean(parts, axis=0).tolist(), strict=True))


def _publish_ms(moved: dict[tuple[str, str], float]) -> dict[str, float]:
    total, count = (moved[(f"latency_seconds_{what}", "publish")] for what in ("sum", "count"))
    return {"sent to acknowledged": 1e3 * total / count}


def _stages(moved: dict[tuple[str, str], float]) -> dict[str, float]:
    candles = moved[("latency_seconds_count", "receive")]
    return {stage: 1e6 * moved[("latency_seconds_sum", stage)] / candles for stage in _STAGES}
