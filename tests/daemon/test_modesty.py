"""A nightly job stands back, where it is allowed to."""

from __future__ import annotations

import errno
import multiprocessing
import os

import pytest

from daemon.retrain import be_modest


def modest() -> None:
    before = os.nice(0)
    be_modest(4, 1)
    assert os.nice(0) == min(19, before + 4)
    assert len(os.sched_getaffinity(0)) == 1


def test_a_job_is_niced_and_bounded() -> None:
    # In a process of its own: what was given away does not come back.
    process = multiprocessing.get_context("spawn").Process(target=modest)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_what_is_forbidden_is_left_to_the_service_manager(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def forbidden(_: int) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "nice", forbidden)
    caplog.set_level("INFO")
    be_modest(4, 1)
    assert "priority and cores stay as they are: Operation not permitted" in caplog.text
