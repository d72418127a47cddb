"""Provide option types, configuration loading and signal handling to the commands."""

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


def load_settings(args: argparse.Namespace) -> Settings:
    """Read the configuration given by ``args.config`` and set up logging.

    Raises:
        ConfigError: the configuration is invalid.
    """
    from config import settings as configuration

    settings = configuration.load(args.config)
    settings.check_folders()
    from daemon.runtime.clock import SystemClock
    from daemon.runtime.logs import logging_to

    logs = settings.logging
    args.exit_stack.enter_context(
        logging_to(sys.stderr, logs.level, logs.format, os.environ, SystemClock().monotonic)
    )
    if settings.ignored:
        log.warning(
            "%s: settings that no longer exist are ignored: %s; remove them",
            args.config,
            ", ".join(settings.ignored),
        )
    return settings


def run_until_signal(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run ``work`` with an event that SIGINT, SIGTERM and SIGHUP set; it must end then."""

    async def supervised() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await work(stop)

    import uvloop

    uvloop.run(supervised())


def add_config(parser: argparse.ArgumentParser, default: object) -> None:
    """Add the option ``--config``."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="PATH",
        default=default,
        help=f"configuration file (default: {DEFAULT_CONFIG})",
    )


def positive_number(text: str) -> float:
    """Parse the value of an option that must be positive and finite."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        msg = f"must be a positive number, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return value


def ccxt_symbol(text: str) -> str:
    """Parse the value of an option that is a ccxt symbol."""
    from model.core.symbol_hint import likely_symbol

    likely = likely_symbol(text)
    if likely is not None:
        msg = f"{text!r} is not of the form BASE/QUOTE; did you mean {likely}?"
        raise argparse.ArgumentTypeError(msg)
    return text
