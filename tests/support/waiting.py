"""Wait in a test until something has happened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.support.servers import MAX_WAIT_S

_POLL_INTERVAL_S = 0.002


async def until(condition: Callable[[], object], timeout_s: float = MAX_WAIT_S) -> None:
    """Wait until ``condition()`` is true.

    Raises:
        TimeoutError: it was not within ``timeout_s``.
    """
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(_POLL_INTERVAL_S)
