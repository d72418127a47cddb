"""A prepared candle passes the files that the documentation lists, in their order."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from benchmarks.harness.in_process import Path1m, decode
from daemon.mqtt.connection import MqttConnection
from tests.support.servers import MAX_WAIT_S, mosquitto

SECTION = re.compile(r"<!-- path of a candle -->(.*)<!-- end of path -->", re.DOTALL)
STEP = re.compile(r"^\d+\. `([^`]+)`: .+$", re.MULTILINE)


class Trace:
    """Files of ours in which a function was called, by first call, until a forecast is written."""

    def __init__(self, repository: Path) -> None:
        self._folders = tuple(f"{repository / name}/" for name in ("daemon", "model"))
        self._repository = repository
        self.files: dict[str, None] = {}
        self.written = asyncio.Event()

    def start(self) -> None:
        self.files = {}
        self.written.clear()
        sys.setprofile(self._on_event)

    def on_write(self, data: bytes) -> None:
        if b"/prediction" in data:
            sys.setprofile(None)
            self.written.set()

    def _on_event(self, frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(self._folders):
            self.files[str(Path(name).relative_to(self._repository))] = None


class Transport:
    """A transport that reports what is written."""

    def __init__(self, inner: asyncio.BaseTransport, trace: Trace) -> None:
        self._inner: Any = inner
        self._trace = trace

    def write(self, data: bytes) -> None:
        self._trace.on_write(data)
        self._inner.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.mark.may_block("tracing every call takes its time")
async def test_a_candle_passes_the_files_that_the_documentation_lists(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = Trace(repository)
    connection_made = MqttConnection.connection_made

    def traced(self: MqttConnection, transport: asyncio.BaseTransport) -> None:
        connection_made(self, Transport(transport, trace))  # type: ignore[arg-type]

    monkeypatch.setattr(MqttConnection, "connection_made", traced)
    passed: list[list[str]] = []
    with mosquitto(tmp_path) as broker:
        path = Path1m(1, tmp_path, broker.port)
        async with path.running():
            for _ in range(4):
                messages = decode(path.closing_frames())
                trace.start()
                try:
                    path.receive(messages)
                    async with asyncio.timeout(MAX_WAIT_S):
                        await trace.written.wait()
                finally:
                    sys.setprofile(None)
                passed.append(list(trace.files))
                await path.scheduler.wait_idle()
    # Something else may run meanwhile, but not every time; the first one finds empty caches.
    every = set.intersection(*map(set, passed))
    found = [name for name in passed[-1] if name in every]
    match = SECTION.search((repository / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert match is not None
    listed = STEP.findall(match[1])
    assert found == listed
