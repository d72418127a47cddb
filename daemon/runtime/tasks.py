"""Wait for the first of several events, and unwrap the expected error of a task group."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daemon.runtime.clock import Clock


async def wait_first(clock: Clock, seconds: float, *events: asyncio.Event) -> None:
    """Wait until one of ``events`` is set, for ``seconds`` of ``clock`` at most."""
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(clock.sleep(seconds))]
        waits += [group.create_task(_wait_event(event)) for event in events]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


async def _wait_event(event: asyncio.Event) -> None:
    await event.wait()


def unwrap_expected(
    group: ExceptionGroup[Exception], kinds: type[Exception] | tuple[type[Exception], ...]
) -> Exception:
    """Return the first error of ``kinds`` in a group that holds nothing else.

    The body of the task group must wait for the tasks itself: before Python 3.13 a failure while
    the group waits at its end counts as a cancellation of the task around it.

    Raises:
        ExceptionGroup: the other errors that the group holds.
        CancelledError: the current task was cancelled while the group ended.
    """
    known, other = group.split(kinds)
    if other is not None:
        raise other
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        # Before Python 3.13 a group loses a cancellation when a child fails, and a loop that
        # reconnects would not end with the daemon.
        raise asyncio.CancelledError
    error: Exception | None = known
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert error is not None  # noqa: S101 - a group is never empty
    return error
