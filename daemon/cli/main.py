"""Run the `candlecast` command.

Exit codes: 0 success, 1 failure, 2 wrong usage or configuration. Each command imports its modules
when it runs, so that `--help` and usage errors are printed at once.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path

from daemon.cli.common import (
    DEFAULT_CONFIG,
    add_config,
    load_settings,
    positive_number,
    run_until_signal,
)
from daemon.cli.diagnostics import check_config, doctor, watch, watch_options
from daemon.cli.models import (
    evaluate,
    evaluate_options,
    fetch,
    fetch_options,
    models,
    models_options,
    replay,
    replay_options,
    retrain,
    train,
    train_options,
)
from daemon.cli.native_output import lost_interrupts_resent
from daemon.runtime.gc_control import no_gc
from model.core.errors import CandlecastError

_OPTIONAL_PACKAGES = {
    "iotcore",
    "keras",
    "matplotlib",
    "onnx",
    "pandas",
    "sklearn",
    "talib",
    "tensorflow",
    "websockets",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; None for the process's own.

    Returns:
        The exit code.
    """
    _accept_any_terminal()
    args = build_parser().parse_args(argv)
    try:
        with ExitStack() as args.exit_stack, lost_interrupts_resent():
            args.command(args)
    except CandlecastError as error:
        for line in str(error).splitlines():
            _print_error(line)
        return error.exit_code
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in _OPTIONAL_PACKAGES:
            raise
        _print_error(f"this command needs {error.name}; install candlecast[demo]")
        return 1
    except BrokenPipeError:
        # The reader of stdout has ended, as `head` does. Discard what is still buffered.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # An unusable file is a problem of the installation; any other OSError is a bug.
        if error.filename is None:
            raise
        _print_error(f"{error.filename}: {error.strerror}")
        return 1
    except KeyboardInterrupt:
        # A second interrupt would only disturb the exit.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _print_error("interrupted")
        return 1
    return 0


def _accept_any_terminal() -> None:
    """Replace characters that the terminal's encoding lacks instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def _print_error(text: str) -> None:
    from daemon.runtime.logs import mark

    print(f"{mark(sys.stderr, logging.ERROR, os.environ)}candlecast: {text}", file=sys.stderr)


@dataclass(frozen=True)
class _Command:
    name: str
    help: str
    run: Callable[[argparse.Namespace], None]
    options: Callable[[argparse.ArgumentParser], None] = lambda parser: None  # noqa: ARG005


def build_parser() -> argparse.ArgumentParser:
    """Create the parser with every command and option."""
    parser = argparse.ArgumentParser(
        prog="candlecast",
        description="Forecast the next candle of each market and publish the forecast to MQTT.",
    )
    parser.add_argument(
        "--version", action="version", version=f"candlecast {version('candlecast')}"
    )
    add_config(parser, DEFAULT_CONFIG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        description = f"{command.help[0].upper()}{command.help[1:]}."
        sub = commands.add_parser(command.name, help=command.help, description=description)
        # Without SUPPRESS, the default would overwrite an option before the command.
        add_config(sub, argparse.SUPPRESS)
        command.options(sub)
        sub.set_defaults(command=command.run)
    return parser


def _run(args: argparse.Namespace) -> None:
    # systemd's watchdog kills a hanging daemon by SIGABRT; this prints every thread's stack then.
    faulthandler.enable()
    with no_gc():
        settings = load_settings(args)
        from config.settings import load
        from daemon.app import serve

    run_until_signal(lambda stop: serve(settings, stop, lambda: load(args.config)))


def _demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--duration",
        type=positive_number,
        metavar="SECONDS",
        help="seconds of forecasts before it ends (default: to the end of the recording)",
    )
    parser.add_argument(
        "--headless", action="store_true", help="print plain lines instead of a live table"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="candles to replay (CSV: timestamp, open … volume)",
    )
    parser.add_argument(
        "--exchange",
        default="binance",
        metavar="NAME",
        help="exchange to simulate: binance (default, one candle per second), or okx, bybit or "
        "kraken (one candle per minute)",
    )


def _demo(args: argparse.Namespace) -> None:
    from rich.console import Console

    from daemon.cli.demo import Demo, run_demo
    from daemon.runtime.progress import can_redraw

    demo = Demo(
        duration_s=args.duration,
        headless=args.headless,
        data=args.data,
        exchange=args.exchange,
    )
    console = Console(force_terminal=can_redraw() and not args.headless)
    run_until_signal(lambda stop: run_demo(demo, console, stop))


_COMMANDS = (
    _Command("run", "run the daemon: publish a forecast for each closed candle", _run),
    _Command(
        "demo",
        "run a demonstration with a simulated exchange and an MQTT broker",
        _demo,
        _demo_options,
    ),
    _Command("fetch", "download candle history to CSV files", fetch, fetch_options),
    _Command("train", "train a model on candle files", train, train_options),
    _Command("retrain", "train a new model and promote it if it passes the gate", retrain),
    _Command(
        "evaluate",
        "measure a model's skill on candles that it was not trained on",
        evaluate,
        evaluate_options,
    ),
    _Command(
        "replay", "compute published forecasts again and compare them", replay, replay_options
    ),
    _Command("models", "list, show, promote or roll back models", models, models_options),
    _Command("watch", "show a broker's forecasts in the terminal", watch, watch_options),
    _Command("doctor", "check the installation and advise how to correct problems", doctor),
    _Command("check-config", "check the configuration without connecting", check_config),
)
