"""Start exchange, broker and subscriber of a benchmark, and read the resources of a process."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

HOST: Final = "127.0.0.1"
TUNED: Final = ("max_inflight_messages 0", "max_queued_messages 0", "set_tcp_nodelay true")
"""Settings of Mosquitto for bursts; the defaults are 20, 1000 and false."""

_ENCODE_AHEAD_MS: Final = 300
"""The exchange encodes a burst so long before it, so that sending it costs one write."""

_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 30.0


def free_port() -> int:
    """A free loopback port."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    *command: str, log: Path, output: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    """Run a child process with readable output, and end it with SIGTERM."""
    with (
        log.open("ab") as errors,
        subprocess.Popen(  # noqa: S603 - this project's own programs and the broker
            command, stdout=output, stderr=errors, text=True
        ) as child,
    ):
        try:
            yield child
        finally:
            stop(child)


def stop(child: subprocess.Popen[str]) -> None:
    """End a child as a service manager does: SIGTERM, then SIGKILL."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(_STOP_TIMEOUT_S)


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a module with this interpreter."""
    return (sys.executable, "-m", module, *arguments)


def mosquitto_program() -> str | None:
    """Path of Mosquitto; None if it is not installed."""
    # Debian puts daemons into a folder that is not on an ordinary user's PATH.
    return shutil.which("mosquitto", path=os.pathsep.join((os.environ["PATH"], "/usr/sbin")))


class Broker(NamedTuple):
    """A running Mosquitto."""

    port: int
    pid: int


@contextmanager
def mosquitto(folder: Path, lines: Sequence[str] = TUNED) -> Iterator[Broker]:
    """Run Mosquitto with additional configuration ``lines``."""
    port = free_port()
    program = mosquitto_program()
    if program is None:
        sys.exit("this benchmark needs mosquitto; install it first")
    config = [f"listener {port} {HOST}", "log_type error", *lines]
    if not any(line.startswith("allow_anonymous") for line in lines):
        config.append("allow_anonymous true")
    if os.geteuid() == 0:
        config.append("user root")
    path = folder / f"mosquitto-{port}.conf"
    path.write_text("\n".join(config) + "\n", encoding="utf-8")
    with running(program, "-c", str(path), log=folder / "mosquitto.log") as child:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _accepts(port):
            assert time.monotonic() < deadline, "mosquitto did not start"
            time.sleep(0.01)
        yield Broker(port, child.pid)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=0.2).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Exchange:
    """A running sandbox exchange.

    Attributes:
        rest_url: address for REST.
        ws_url: address for websockets.
        timeframe: of the candles.
        origin_ms: opening of every symbol's first candle, Unix ms.
        slice_rows: candles until a symbol's recording starts over.
        symbols: ccxt symbols.
        every: candles, of which one is streamed.
        bursts: file with a line per closing burst: candle open (ms), monotonic ns of its start.
        pid: of its process.
    """

    rest_url: str
    ws_url: str
    timeframe: str
    origin_ms: int
    slice_rows: int
    symbols: list[str]
    every: int
    bursts: Path
    pid: int

    def burst_starts(self) -> dict[int, int]:
        """When each closing burst began (monotonic ns), by the close of its candles (ms)."""
        lines = self.bursts.read_text(encoding="utf-8").splitlines()
        pairs = (line.split() for line in lines)
        return {int(open_ms) + 1_000: int(began_ns) for open_ms, began_ns in pairs}


@contextmanager
def exchange(folder: Path, symbols: int, history: int, every: int = 1) -> Iterator[Exchange]:
    """Run a sandbox exchange with candles of 1 s; all symbols close in the same instant."""
    bursts = folder / "bursts"
    options = {
        "--symbols": symbols,
        "--history": history,
        "--updates": 0,
        "--every": every,
        "--bursts": bursts,
        "--encode-ahead-ms": _ENCODE_AHEAD_MS,
    }
    words = [str(word) for pair in options.items() for word in pair]
    with running(*python("daemon.sandbox", *words), log=folder / "exchange.log") as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line, (folder / "exchange.log").read_text(encoding="utf-8")
        yield Exchange(**json.loads(line), every=every, bursts=bursts, pid=child.pid)


@contextmanager
def busy_loop(folder: Path) -> Iterator[None]:
    """Keep a third of a core busy."""
    with running(*python("benchmarks.harness.busy_loop"), log=folder / "log"):
        yield


def cpu_s(pid: int) -> tuple[float, float]:
    """Processor seconds that a process has used: its main thread, and all threads that live."""
    used = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        # Nanoseconds on a processor; /proc/PID/stat counts in hundredths of a second.
        used[int(task.name)] = int((task / "schedstat").read_text().split()[0]) / 1e9
    return used[pid], sum(used.values())


def private_mb(pid: int) -> float:
    """Resident memory of a process that is not backed by a file, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("RssAnon:"))
    return int(kib) * 1024 / 1e6


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
