"""Run real servers for tests on free loopback ports, and stop them afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HOST = "127.0.0.1"
MAX_WAIT_S = 120.0
"""For what a quiet machine does in a moment; a busy one may stand still for some seconds."""


_AT_NORMAL_PRIORITY = (
    "import os, sys;"
    "os.setpriority = os.sched_setscheduler = lambda *_: None;"
    "from daemon.cli.main import main;"
    "sys.exit(main())"
)

NORMAL_PRIORITY_COMMAND = (sys.executable, "-c", _AT_NORMAL_PRIORITY)
"""Runs a job of the command line that cannot lower its priority.

Beside two busy processes a job of the idle policy would get no processor time on two cores.
"""


@asynccontextmanager
async def silent_exchange() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """The address of a server that never answers, and whether it was asked."""
    asked = asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        asked.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(never_answer, HOST, 0) as server:
        yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}", asked


def free_port() -> int:
    """A loopback port without a listener."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def accepts(port: int) -> bool:
    """Whether something accepts TCP connections on the loopback port."""
    try:
        socket.create_connection((HOST, port), timeout=0.2).close()
    except OSError:
        return False
    return True


def program(name: str) -> str:
    """Path of an installed program; the test is skipped with a message where it is missing."""
    # Debian keeps daemons where an ordinary user's PATH does not look.
    found = shutil.which(name, path=os.pathsep.join((os.environ["PATH"], "/usr/sbin")))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


class Mosquitto:
    """A mosquitto that keeps its port over stops and starts."""

    def __init__(self, folder: Path, *lines: str) -> None:
        """Write its configuration.

        Args:
            folder: empty or the tests' own; configuration and log go there.
            lines: further configuration lines; ``allow_anonymous`` is true unless named here.
        """
        self.host = HOST
        self.port = free_port()
        self._program = program("mosquitto")
        self._config = folder / f"mosquitto-{self.port}.conf"
        self._log = folder / f"mosquitto-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.configure(*lines)

    def configure(self, *lines: str) -> None:
        """Write the configuration that the next start reads, with further ``lines``."""
        config = [f"listener {self.port} {HOST}", "max_queued_messages 0", *lines]
        if not any(line.startswith("allow_anonymous") for line in lines):
            config.append("allow_anonymous true")
        if os.geteuid() == 0:
            # As root it would become a user who may not read the test's files.
            config.append("user root")
        self._config.write_text("\n".join(config) + "\n")

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Its process id; it must be running."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, on the same port as before, and wait until it accepts connections."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-c", str(self._config), "-v"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + MAX_WAIT_S
        while not accepts(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                pytest.fail(f"mosquitto did not start:\n{self.log}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End it the way a service manager does (SIGTERM)."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a farewell (SIGKILL)."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(MAX_WAIT_S)
            self._process = None


@contextmanager
def mosquitto(folder: Path, *lines: str) -> Iterator[Mosquitto]:
    """A running mosquitto with further configuration ``lines``."""
    broker = Mosquitto(folder, *lines)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


def password_file(folder: Path, user: str, password: str) -> Path:
    """A file for mosquitto's ``password_file`` with one user in it."""
    path = folder / "passwords"
    path.touch(0o600)
    subprocess.run(
        [program("mosquitto_passwd"), "-b", str(path), user, password],
        check=True,
        timeout=MAX_WAIT_S,
    )
    return path


class Subscriber:
    """A running ``mosquitto_sub``: every message as a dict, in the order of arrival.

    A message holds ``topic``, ``qos``, ``retain``, ``payload`` (text) and the MQTT 5 properties
    that mosquitto_sub reports.
    """

    def __init__(self, process: subprocess.Popen[str], mark: Callable[[], str]) -> None:
        """Read what ``process`` prints.

        Args:
            process: a mosquitto_sub that prints JSON.
            mark: publishes a message that the process is subscribed to; returns its topic.
        """
        self._process = process
        self._mark = mark
        self._messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # The last line may be cut short by `close`.
            if line.endswith("\n"):
                self._messages.put(json.loads(line))

    def next(self, timeout_s: float = MAX_WAIT_S) -> dict[str, Any]:
        """The next message.

        Raises:
            queue.Empty: none came in time.
        """
        return self._messages.get(timeout=timeout_s)

    def received(self) -> list[dict[str, Any]]:
        """Everything that has arrived and was not taken yet."""
        taken = []
        while not self._messages.empty():
            taken.append(self._messages.get())
        return taken

    def passed_on(self) -> list[dict[str, Any]]:
        """Everything that was not taken yet of what the broker has passed on up to now.

        A message that is published now marks the end: the broker keeps their order.
        """
        topic, taken = self._mark(), []
        while (message := self.next())["topic"] != topic:
            taken.append(message)
        return taken

    def close(self) -> None:
        """End it, keeping what it has received."""
        # At SIGTERM mosquitto_sub 2.0.11 hangs or aborts if it is handling a message; it writes
        # each message out at once, so SIGKILL loses none.
        self._process.kill()
        self._process.wait(MAX_WAIT_S)
        self._reader.join(MAX_WAIT_S)
        assert not self._reader.is_alive()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def mosquitto_sub(port: int, *topics: str, qos: int = 1) -> Iterator[Subscriber]:
    """Subscribe to ``topics`` by MQTT 5; subscribed for certain once the body runs.

    A retained message on a topic of its own marks the moment.
    """
    topic = f"subscribed/{port}/{time.monotonic_ns()}"
    where = ["-h", HOST, "-p", str(port), "-V", "5"]

    def mark(*options: str) -> str:
        subprocess.run(
            [program("mosquitto_pub"), *where, "-q", "1", "-t", topic, "-m", "1", *options],
            check=True,
            timeout=MAX_WAIT_S,
        )
        return topic

    mark("-r")
    chosen = [part for name in (*topics, topic) for part in ("-t", name)]
    process = subprocess.Popen(
        [program("mosquitto_sub"), *where, "-q", str(qos), "-F", "%j", *chosen],
        stdout=subprocess.PIPE,
        text=True,
    )
    subscriber = Subscriber(process, mark)
    try:
        earlier = []
        while (message := subscriber.next())["topic"] != topic:
            earlier.append(message)
        for message in earlier:
            subscriber._messages.put(message)  # noqa: SLF001 - its own maker
        yield subscriber
    finally:
        subscriber.close()


@dataclass(frozen=True)
class SandboxProcess:
    """A running ``python -m daemon.sandbox`` and its first output."""

    process: subprocess.Popen[str]
    rest_url: str
    ws_url: str
    timeframe: str
    origin_ms: int
    slice_rows: int
    symbols: list[str]


@contextmanager
def sandbox_process(*arguments: str, module: str = "daemon.sandbox") -> Iterator[SandboxProcess]:
    """The sandbox exchange in a process of its own; ended, if it still runs, afterwards."""
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "the sandbox ended before it was ready"
            yield SandboxProcess(process, **json.loads(line))
        finally:
            process.terminate()
            process.wait(MAX_WAIT_S)
