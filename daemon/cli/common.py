"""What several commands share."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from config.settings import Settings

log = logging.getLogger("candlecast.cli")

DEFAULT_CONFIG: Final = Path("config/config.yaml")


def load(args: argparse.Namespace) -> Settings:
    """Read the configuration that a command was given, and set logging up by it."""
    from config import settings as configuration

    settings = configuration.load(args.config)
    settings.check_folders()
    from daemon.runtime.clock import SystemClock
    from daemon.runtime.logs import logging_to

    said = settings.logging
    args.closing.enter_context(
        logging_to(sys.stderr, said.level, said.format, os.environ, SystemClock().monotonic)
    )
    if settings.ignored:
        log.warning(
            "%s: settings that no longer exist are ignored: %s; remove them",
            args.config,
            ", ".join(settings.ignored),
        )
    return settings


def until_told(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run ``work`` with an event that Ctrl-C, SIGTERM and a closed terminal set: a clean end."""

    async def supervised() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await work(stop)

    import uvloop

    uvloop.run(supervised())


def add_config(parser: argparse.ArgumentParser, default: object) -> None:
    """Where the configuration is."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="PATH",
        default=default,
        help=f"configuration file (default: {DEFAULT_CONFIG})",
    )


def positive(text: str) -> float:
    """What an option holds that counts or measures."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        msg = f"must be a positive number, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return value


def symbol(text: str) -> str:
    """What an option holds that names a market."""
    from model.core.symbol_hint import likely_symbol

    likely = likely_symbol(text)
    if likely is not None:
        msg = f"{text!r} is not of the form BASE/QUOTE; did you mean {likely}?"
        raise argparse.ArgumentTypeError(msg)
    return text
