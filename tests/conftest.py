"""Provide fixtures to all tests, and fail tests that block the event loop or are skipped in CI."""

from __future__ import annotations

import inspect
import logging
import os
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parents[1]
CANDLES = REPOSITORY / "daemon" / "sandbox" / "data" / "slim_BTCUSDT-15m_2025-01_05.csv.gz"
REQUIRE_ALL = "CANDLECAST_REQUIRE_ALL"
SOAK = "CANDLECAST_SOAK"

# The time of an example depends on the load of the machine.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds pyproject.toml."""
    return REPOSITORY


@pytest.fixture(scope="session")
def candles_csv() -> Path:
    """Recorded BTC/USDT candles that are part of the project (ts, open … volume)."""
    return CANDLES


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Recorded data that may not be redistributed, kept beside the repository."""
    folder = Path(os.environ.get("CANDLECAST_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no recorded data at {folder}; set CANDLECAST_SHARED to its folder")
    return folder


@pytest.fixture
def rounds() -> Callable[[int, int], int]:
    """How often to do it: the first number in `make test`, the second in `make soak`.

    `make soak` runs the tests that use this fixture.
    """

    def choose(test: int, soak: int) -> int:
        return soak if os.environ.get(SOAK) else test

    return choose


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `make soak` repeats."""
    for item in items:
        if "rounds" in getattr(item, "fixturenames", ()):
            item.add_marker("soak")


@pytest.fixture(autouse=True)
def _loop_must_not_block(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail an async test in which the project's own code blocks the event loop."""
    test = getattr(request.node, "obj", None)
    if not inspect.iscoroutinefunction(test) or request.node.get_closest_marker("may_block"):
        yield
        return
    guard = BlockBuster(scanned_modules=["config", "daemon", "model"])
    guard.activate()
    try:
        yield
    finally:
        guard.deactivate()


@pytest.fixture(autouse=True, scope="session")
def _interrupts_reach_child_processes() -> None:
    """Accept SIGINT, which a shell without job control ignores for background jobs."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _pauses_of_the_machine_are_not_logged() -> Iterator[None]:
    """Drop asyncio's warnings of slow callbacks, which a busy machine causes by itself."""
    asyncio_log = logging.getLogger("asyncio")
    asyncio_log.addFilter(_is_no_pause)
    yield
    asyncio_log.removeFilter(_is_no_pause)


def _is_no_pause(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Executing <")


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure where the environment promises that everything is there."""
    if not report.skipped or hasattr(report, "wasxfail") or not os.environ.get(REQUIRE_ALL):
        return
    detail = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{REQUIRE_ALL} is set, and yet: {detail}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skipped test fails under CANDLECAST_REQUIRE_ALL."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module that skips itself as a whole fails too."""
    report = yield
    _refuse_skip(report)
    return report
