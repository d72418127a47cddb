"""Notifications reach the service manager, and keep-alives need progress."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.runtime.sd_notify import Notifier, Watchdog, report_progress
from model.core.errors import ConfigError
from tests.support.manual_clock import ManualClock
from tests.support.servers import MAX_WAIT_S


@contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + address[1:] if address.startswith("@") else address)
        listening.settimeout(5)
        yield listening


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@candlecast{tmp_path}"


def test_notifications_as_sent(address: str) -> None:
    with manager(address) as listening:
        notifier = Notifier({"NOTIFY_SOCKET": address})
        assert notifier.is_enabled
        clock = ManualClock(0)
        notifier.ready()
        notifier.status("20 symbols;\nbroker connected")
        with notifier.reloading(clock):
            now_s = clock.monotonic()
        notifier.stopping()
        notifications = [listening.recv(4096).decode() for _ in range(5)]
        notifier.close()
    assert notifications == [
        "READY=1",
        "STATUS=20 symbols; broker connected",
        f"RELOADING=1\nMONOTONIC_USEC={int(now_s * 1e6)}",
        "READY=1",
        "STOPPING=1\nSTATUS=stopping",
    ]


def test_a_reload_that_fails_ends_all_the_same(address: str) -> None:
    with manager(address) as listening:
        notifier = Notifier({"NOTIFY_SOCKET": address})
        with pytest.raises(RuntimeError), notifier.reloading(ManualClock(0)):
            raise RuntimeError
        assert listening.recv(4096).startswith(b"RELOADING=1\n")
        assert listening.recv(4096) == b"READY=1"
        notifier.close()


def test_a_service_manager_that_is_gone_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "notify")
    notifier = Notifier({"NOTIFY_SOCKET": path})
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            notifier.ready()
        assert len(caplog.records) == 1
        with manager(path) as listening:
            notifier.ready()
            assert listening.recv(100) == b"READY=1"
        notifier.ready()
    assert len(caplog.records) == 2
    notifier.close()


def test_a_service_manager_that_does_not_read_blocks_nothing(address: str) -> None:
    with manager(address):
        notifier = Notifier({"NOTIFY_SOCKET": address})
        for number in range(2_000):
            notifier.status(f"{number} of many")
        notifier.close()


def test_without_a_service_manager_nothing_is_sent() -> None:
    notifier = Notifier({})
    assert not notifier.is_enabled
    assert notifier.watchdog_s is None
    notifier.ready()
    notifier.close()


@pytest.mark.parametrize(
    "environ",
    [
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-1"},
    ],
)
def test_impossible_notification_settings_are_refused(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(environ))):
        Notifier(environ)


@given(
    st.lists(
        st.tuples(
            st.floats(0.01, 10.0),  # until the next look
            st.booleans(),  # whether work is waiting without progress
        ),
        max_size=30,
    )
)
def test_a_keep_alive_is_sent_if_and_only_if_there_was_progress(
    looks: list[tuple[float, bool]],
) -> None:
    now_s = fed_s = progress_s = 100.0
    watchdog = Watchdog(now_s)
    for pause_s, stands_still in looks:
        now_s += pause_s
        if not stands_still:
            progress_s = now_s
        fed = watchdog.has_progress(now_s, now_s - progress_s)
        # Subtracting twice may lose the last bit.
        assert fed == (progress_s >= fed_s) or abs(progress_s - fed_s) < 1e-9
        if fed:
            fed_s = now_s


class Inner:
    """What `report_progress` asks, under the test's control."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.answers.set()
        self.waiting_s = 0.0

    async def ping(self) -> None:
        await self.answers.wait()

    def stuck_s(self, now_s: float) -> float:
        del now_s
        return self.waiting_s

    def status(self) -> str:
        return "fine"


async def test_no_keep_alive_while_the_inference_thread_or_a_candle_is_stuck(address: str) -> None:
    with manager(address) as listening:
        listening.settimeout(0)
        loop = asyncio.get_running_loop()
        notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "8000000"})
        clock, inner = ManualClock(0), Inner()

        async def next_notification() -> str:
            return (await asyncio.wait_for(loop.sock_recv(listening, 4096), MAX_WAIT_S)).decode()

        async def silent() -> None:
            for _ in range(8):
                await clock.advance(2.0)
            with pytest.raises(BlockingIOError):
                listening.recv(4096)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(
                report_progress(notifier, clock, inner.ping, inner.stuck_s, inner.status)
            )
            assert await next_notification() == "WATCHDOG=1"
            assert await next_notification() == "STATUS=fine"
            await clock.advance(2.0)
            assert await next_notification() == "WATCHDOG=1"
            inner.answers.clear()
            await clock.advance(2.0)
            await silent()
            inner.answers.set()
            assert await next_notification() == "WATCHDOG=1"
            inner.waiting_s = 1000.0
            await silent()
            inner.waiting_s = 0.0
            await clock.advance(2.0)
            assert await next_notification() == "WATCHDOG=1"
            task.cancel()
        notifier.close()
