"""The expected error of a task group is unwrapped unless the task is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from daemon.runtime.tasks import unwrap_expected


async def _lose(closing: asyncio.Event, closed: asyncio.Event) -> None:
    """Lose a connection beside one that takes its time to close; then try again, as edges do."""

    async def fail() -> None:
        raise ConnectionResetError

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closing.set()
            await closed.wait()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(linger())]
            await asyncio.sleep(0)
            tasks.append(group.create_task(fail()))
            await asyncio.wait(tasks)
    except ExceptionGroup as error:
        raise unwrap_expected(error, OSError) from None


async def test_the_expected_error_is_unwrapped() -> None:
    closed = asyncio.Event()
    closed.set()
    with pytest.raises(ConnectionResetError):
        await _lose(asyncio.Event(), closed)


async def test_an_unexpected_error_stays_in_its_group() -> None:
    with pytest.raises(ExceptionGroup):
        unwrap_expected(ExceptionGroup("two", [OSError(), KeyError()]), OSError)


async def test_a_cancellation_survives_the_loss_of_a_connection() -> None:
    closing, closed = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_lose(closing, closed))
        await closing.wait()
        task.cancel()
        closed.set()
        await asyncio.wait([task])
    assert task.cancelled()
