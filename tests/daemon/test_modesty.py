"""A nightly job stands back, where it is allowed to."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from daemon.modesty import be_modest


def modest() -> None:
    # Like the pools that libraries start as they are imported.
    done = threading.Event()
    early = threading.Thread(target=done.wait)
    early.start()
    before = os.nice(0)
    be_modest(4, 1)
    threads = [int(task.name) for task in Path("/proc/self/task").iterdir()]
    assert early.native_id in threads
    for thread in threads:
        assert os.getpriority(os.PRIO_PROCESS, thread) == min(19, before + 4)
        assert len(os.sched_getaffinity(thread)) == 1
        assert os.sched_getscheduler(thread) == os.SCHED_IDLE
    done.set()
    early.join()


def test_a_job_takes_what_nobody_wants_and_is_bounded() -> None:
    # In a process of its own: what was given away does not come back.
    process = multiprocessing.get_context("spawn").Process(target=modest)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_what_is_forbidden_is_left_to_the_service_manager(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def forbidden(*_: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", forbidden)
    caplog.set_level("INFO")
    be_modest(4, 1)
    assert "priority and cores stay as they are: Operation not permitted" in caplog.text
