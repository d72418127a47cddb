"""The `candlecast` command.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration. What each command needs is imported
when it runs, so that `--help` and a wrong option answer at once.
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

from daemon.cli.common import DEFAULT_CONFIG, add_config, positive, until_told
from daemon.cli.common import load as load_settings
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
from daemon.cli.native_output import interrupts_kept
from daemon.runtime.gc_control import no_gc
from model.core.errors import CandlecastError

_OPTIONAL = {
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
        argv: arguments without the program's name; None takes the process's own.

    Returns:
        The exit code.
    """
    _accept_any_terminal()
    args = build_parser().parse_args(argv)
    try:
        with ExitStack() as args.closing, interrupts_kept():
            args.command(args)
    except CandlecastError as error:
        for line in str(error).splitlines():
            _complain(line)
        return error.exit_code
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in _OPTIONAL:
            raise
        _complain(f"this needs {error.name}; install candlecast[demo] to have everything")
        return 1
    except BrokenPipeError:
        # Whoever read along has left, as `head` does; what is still buffered has no reader either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # A file that cannot be used is the operator's to see to; anything else is an error of ours.
        if error.filename is None:
            raise
        _complain(f"{error.filename}: {error.strerror}")
        return 1
    except KeyboardInterrupt:
        # Another one could only spoil the way out.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _complain("interrupted")
        return 1
    return 0


def _accept_any_terminal() -> None:
    """Nothing that is done is to fail because a terminal lacks a sign to tell it with."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def _complain(text: str) -> None:
    from daemon.runtime.logs import mark

    print(f"{mark(sys.stderr, logging.ERROR, os.environ)}candlecast: {text}", file=sys.stderr)


@dataclass(frozen=True)
class _Command:
    name: str
    help: str
    run: Callable[[argparse.Namespace], None]
    options: Callable[[argparse.ArgumentParser], None] = lambda parser: None  # noqa: ARG005


def build_parser() -> argparse.ArgumentParser:
    """Every command and option."""
    parser = argparse.ArgumentParser(
        prog="candlecast", description="Next-candle forecasts on MQTT, on time."
    )
    parser.add_argument(
        "--version", action="version", version=f"candlecast {version('candlecast')}"
    )
    add_config(parser, DEFAULT_CONFIG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        sub = commands.add_parser(command.name, help=command.help, description=command.help)
        # Suppressed, or it would overwrite what stood before the command.
        add_config(sub, argparse.SUPPRESS)
        command.options(sub)
        sub.set_defaults(command=command.run)
    return parser


def _run(args: argparse.Namespace) -> None:
    # A watchdog ends what hangs by SIGABRT; what every thread was doing then goes to the journal.
    faulthandler.enable()
    with no_gc():
        settings = load_settings(args)
        from config.settings import load
        from daemon.app import serve

    until_told(lambda stop: serve(settings, stop, lambda: load(args.config)))


def _demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--duration", type=positive, metavar="SECONDS", help="end after so long")
    parser.add_argument("--headless", action="store_true", help="plain lines, no live table")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="recorded candles to play (CSV: timestamp, open … volume)",
    )
    parser.add_argument(
        "--exchange",
        default="binance",
        metavar="NAME",
        help="binance (a candle a second), or okx, bybit, kraken (a candle a minute)",
    )


def _demo(args: argparse.Namespace) -> None:
    from rich.console import Console

    from daemon.cli.demo import Demo, run_demo
    from daemon.runtime.progress import can_redraw

    demo = Demo(args.duration, args.headless, args.data, args.exchange)
    console = Console(force_terminal=can_redraw() and not args.headless)
    until_told(lambda stop: run_demo(demo, console, stop))


_COMMANDS = (
    _Command("run", "forecast every closing candle until told to stop", _run),
    _Command(
        "demo", "see it work: own exchange, own broker, recorded candles", _demo, _demo_options
    ),
    _Command("fetch", "fetch candle history to CSV files", fetch, fetch_options),
    _Command("train", "train a model on the fetched candles", train, train_options),
    _Command("retrain", "train a challenger, judge it, promote it if it has earned that", retrain),
    _Command(
        "evaluate", "judge a model by candles it has not learnt from", evaluate, evaluate_options
    ),
    _Command("replay", "compute again what was published, and compare", replay, replay_options),
    _Command("models", "list, show, promote or roll back models", models, models_options),
    _Command(
        "watch", "see a broker's forecasts as they come, from any machine", watch, watch_options
    ),
    _Command("doctor", "try everything that the daemon needs, and say what to do", doctor),
    _Command("check-config", "check the configuration without connecting", check_config),
)
