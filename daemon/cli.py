"""The `candlecast` command.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration. What each command needs is imported
when it runs, so that `--help` and a wrong option answer at once.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from daemon.cli_base import load as _load
from daemon.cli_base import until_told as _until_told
from daemon.cli_look import check_config, doctor, watch, watch_options
from daemon.tidy import uncollected
from model.errors import CandlecastError

DEFAULT_CONFIG = Path("config/config.yaml")
_DAYS = 30.0
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
    args = build_parser().parse_args(argv)
    try:
        with ExitStack() as args.closing:
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
    except KeyboardInterrupt:
        _complain("interrupted")
        return 1
    return 0


def _complain(text: str) -> None:
    from daemon.logs import mark

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
    _add_config(parser, DEFAULT_CONFIG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        sub = commands.add_parser(command.name, help=command.help, description=command.help)
        # Suppressed, or it would overwrite what stood before the command.
        _add_config(sub, argparse.SUPPRESS)
        command.options(sub)
        sub.set_defaults(command=command.run)
    return parser


def _add_config(parser: argparse.ArgumentParser, default: object) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="PATH",
        default=default,
        help=f"configuration file (default: {DEFAULT_CONFIG})",
    )


def _run(args: argparse.Namespace) -> None:
    # A watchdog ends what hangs by SIGABRT; what every thread was doing then goes to the journal.
    faulthandler.enable()
    with uncollected():
        settings = _load(args)
        from config.settings import load
        from daemon.app import serve

    _until_told(lambda stop: serve(settings, stop, lambda: load(args.config)))


def _demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--duration", type=_positive, metavar="SECONDS", help="end after so long")
    parser.add_argument("--headless", action="store_true", help="plain lines, no live table")
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="recorded candles to play (ts,open … volume)"
    )
    parser.add_argument(
        "--exchange",
        default="binance",
        metavar="NAME",
        help="binance (a candle a second), or okx, bybit, kraken (a candle a minute)",
    )


def _demo(args: argparse.Namespace) -> None:
    from rich.console import Console

    from daemon.demo import Demo, run_demo

    demo = Demo(args.duration, args.headless, args.data, args.exchange)
    console = Console(force_terminal=False if args.headless else None)
    _until_told(lambda stop: run_demo(demo, console, stop))


def _fetch_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--days", type=_positive, default=_DAYS, help=f"how far back (default: {_DAYS:g})"
    )
    parser.add_argument("--symbols", nargs="+", metavar="SYMBOL", help="instead of trading.symbols")


def _fetch(args: argparse.Namespace) -> None:
    settings = _load(args)
    from daemon.clock import SystemClock
    from daemon.fetch import FetchJob, fetch
    from daemon.progress import candles_progress
    from model.candle import Timeframe

    job = FetchJob(
        settings.exchange.name,
        settings.exchange.endpoint.rest,
        tuple(args.symbols or settings.trading.symbols),
        Timeframe.parse(settings.trading.timeframe),
        args.days,
        settings.paths.data,
    )
    with candles_progress() as progress:
        paths = asyncio.run(fetch(job, SystemClock(), progress))
    for path in paths:
        print(path)


def _train_options(parser: argparse.ArgumentParser) -> None:
    _add_data(parser)
    parser.add_argument("--promote", action="store_true", help="serve the model from now on")


def _train(args: argparse.Namespace) -> None:
    from daemon.quiet import native_notes_hidden

    with native_notes_hidden():
        _train_quietly(args)


def _train_quietly(args: argparse.Namespace) -> None:
    settings = _load(args)
    from daemon.clock import SystemClock
    from daemon.listing import models_command
    from model.candle import Timeframe
    from model.dataset import choose_candles
    from model.packing import pack_trained
    from model.registry import Registry
    from model.train_lstm import train

    timeframe = Timeframe.parse(settings.trading.timeframe)
    paths = settings.paths
    candles = choose_candles(args.data, paths.data, settings.trading.symbols, timeframe)
    trained = train(args.config, candles, timeframe, models=paths.models, data=paths.data)
    registry = Registry(settings.registry_dir)
    version = registry.write(pack_trained(trained, paths.models, SystemClock().wall_ms()))
    if not args.promote:
        print(f"model: {version}")
        return
    for line in models_command(registry, "promote", version, SystemClock().wall_ms()):
        print(line)


def _retrain(args: argparse.Namespace) -> None:
    from daemon.quiet import native_notes_hidden

    with native_notes_hidden():
        settings = _load(args)
        from daemon.wiring import rules_of
        from daemon.work import run_retrain

        print(run_retrain(settings, args.config, rules_of(settings)))


def _replay_options(parser: argparse.ArgumentParser) -> None:
    for name, text in (("from", "the first moment"), ("to", "the moment after the last")):
        parser.add_argument(
            f"--{name}", required=True, metavar="TIME", dest=name,
            help=f"{text}: 2026-11-23 or 2026-11-23T02:00, UTC",
        )  # fmt: skip


def _replay(args: argparse.Namespace) -> None:
    settings = _load(args)
    from daemon.work import run_replay

    for line in run_replay(settings, getattr(args, "from"), args.to):
        print(line)


def _evaluate_options(parser: argparse.ArgumentParser) -> None:
    _add_data(parser)
    parser.add_argument(
        "--version", metavar="VERSION", dest="model", help="instead of the champion"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="for numbers and plot (default: paths.models)"
    )


def _evaluate(args: argparse.Namespace) -> None:
    settings = _load(args)
    from rich.console import Console

    from daemon.evaluate import EvaluateJob, evaluate_model, show
    from daemon.progress import candles_progress
    from model.registry import Registry

    paths = settings.paths
    job = EvaluateJob(
        args.model,
        args.data,
        settings.trading.symbols,
        paths.data,
        args.output or paths.models,
    )
    with candles_progress() as progress:
        scores = evaluate_model(job, Registry(settings.registry_dir), progress.update)
    show(scores, job.output, Console())


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        default=(),
        metavar="CSV",
        help="candle files, one a symbol (default: each symbol's newest in paths.data)",
    )


def _models_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, text in (
        ("list", "every model, oldest first, and what was decided"),
        ("show", "one model's manifest and story (default: the champion's)"),
        ("promote", "serve this model from now on"),
        ("rollback", "serve the previous champion again"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        _add_config(action, argparse.SUPPRESS)
        action.set_defaults(action=name)
        if name in {"show", "promote"}:
            # `list` shows versions; an optional one stands for the champion.
            action.add_argument("version", nargs="?" if name == "show" else None)


def _models(args: argparse.Namespace) -> None:
    settings = _load(args)
    from daemon.clock import SystemClock
    from daemon.listing import models_command
    from model.registry import Registry

    lines = models_command(
        Registry(settings.registry_dir),
        args.action,
        getattr(args, "version", None),
        SystemClock().wall_ms(),
    )
    print(*lines, sep="\n")


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        msg = f"must be a positive number, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return value


_COMMANDS = (
    _Command("run", "forecast every closing candle until told to stop", _run),
    _Command(
        "demo", "see it work: own exchange, own broker, recorded candles", _demo, _demo_options
    ),
    _Command("fetch", "fetch candle history to CSV files", _fetch, _fetch_options),
    _Command("train", "train a model on the fetched candles", _train, _train_options),
    _Command("retrain", "train a challenger, judge it, promote it if it has earned that", _retrain),
    _Command(
        "evaluate", "judge a model by candles it has not learnt from", _evaluate, _evaluate_options
    ),
    _Command("replay", "compute again what was published, and compare", _replay, _replay_options),
    _Command("models", "list, show, promote or roll back models", _models, _models_options),
    _Command(
        "watch", "see a broker's forecasts as they come, from any machine", watch, watch_options
    ),
    _Command("doctor", "try everything that the daemon needs, and say what to do", doctor),
    _Command("check-config", "check the configuration without connecting", check_config),
)
