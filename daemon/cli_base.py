"""What several commands share."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from config.settings import Settings


def load(args: argparse.Namespace) -> Settings:
    """Read the configuration that a command was given, and set logging up by it."""
    from config import settings as configuration

    settings = configuration.load(args.config)
    from daemon.clock import SystemClock
    from daemon.logs import logging_to

    said = settings.logging
    args.closing.enter_context(
        logging_to(sys.stderr, said.level, said.format, os.environ, SystemClock().monotonic)
    )
    return settings


def until_told(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run ``work`` with an event that SIGINT and SIGTERM set: both are a clean end."""

    async def supervised() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await work(stop)

    import uvloop

    uvloop.run(supervised())
