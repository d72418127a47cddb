"""Run the commands that fetch candles and train, evaluate, replay and manage models."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from daemon.cli.common import add_config, ccxt_symbol, load_settings, positive_number
from model.core.errors import BundleError, CandlecastError

_DEFAULT_DAYS = 30.0


def fetch_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `candlecast fetch`."""
    parser.add_argument(
        "--days",
        type=positive_number,
        default=_DEFAULT_DAYS,
        help=f"days of history, up to now (default: {_DEFAULT_DAYS:g})",
    )
    parser.add_argument(
        "--symbols",
        nargs="+",
        type=ccxt_symbol,
        metavar="SYMBOL",
        help="symbols to fetch (default: trading.symbols)",
    )


def fetch(args: argparse.Namespace) -> None:
    """Fetch candle history to CSV files.

    Raises:
        CandlecastError: a symbol lacks more than `model.max_filled` of its candles.
    """
    settings = load_settings(args)
    from daemon.jobs.fetch import FetchJob
    from daemon.jobs.fetch import fetch as fetch_history
    from daemon.runtime.clock import SystemClock
    from daemon.runtime.progress import candles_progress
    from model.core.candle import Timeframe

    job = FetchJob(
        exchange=settings.exchange.name,
        endpoint_rest=settings.exchange.endpoint.rest,
        symbols=tuple(args.symbols or settings.trading.symbols),
        timeframe=Timeframe.parse(settings.trading.timeframe),
        days=args.days,
        folder=settings.paths.data,
    )
    with candles_progress() as progress:
        results = asyncio.run(fetch_history(job, SystemClock(), progress))
    for result in results:
        if result.path is not None:
            print(result.path)
    problems = []
    for result in results:
        if result.missing_share > settings.model.max_filled:
            problems.append(result.note)
        elif result.note:
            print(result.note)
    if problems:
        problems.append("fetch fewer days with --days, or train on the candles in the files")
        raise CandlecastError("\n".join(problems))


def train_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `candlecast train`."""
    _add_data(parser)
    parser.add_argument(
        "--promote",
        action="store_true",
        help="make the model the champion, which the daemon serves",
    )


def train(args: argparse.Namespace) -> None:
    """Train a model on the fetched candles."""
    from daemon.cli.native_output import native_stderr_hidden

    with native_stderr_hidden():
        _train(args)


def _train(args: argparse.Namespace) -> None:
    settings = load_settings(args)
    from daemon.jobs.models import models_command
    from daemon.runtime.clock import SystemClock
    from model import train_lstm
    from model.core.candle import Timeframe
    from model.files.csv_reader import FileRules
    from model.registry.registry import Registry
    from model.retraining.bundle_export import bundle_parts
    from model.training.candle_sources import choose_candles

    timeframe = Timeframe.parse(settings.trading.timeframe)
    paths = settings.paths
    rules = FileRules(settings.model.max_filled, print)
    candles = choose_candles(args.data, paths.data, settings.trading.symbols, timeframe, rules)
    trained = train_lstm.train(
        args.config, candles, timeframe, models=paths.models, data=paths.data
    )
    registry = Registry(settings.registry_dir)
    version = registry.write(bundle_parts(trained, paths.models, SystemClock().wall_ms()))
    if not args.promote:
        print(f"model: {version}")
        return
    for line in models_command(registry, "promote", version, SystemClock().wall_ms()):
        print(line)


def retrain(args: argparse.Namespace) -> None:
    """Train a new model and promote it if it passes the gate."""
    from daemon.cli.native_output import native_stderr_hidden

    with native_stderr_hidden():
        settings = load_settings(args)
        from daemon.cli.jobs import run_retrain
        from daemon.factories import rules_of

        print(run_retrain(settings, args.config, rules_of(settings)))


def replay_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `candlecast replay`."""
    for name, text in (("from", "start of the span"), ("to", "end of the span, exclusive")):
        parser.add_argument(
            f"--{name}", required=True, metavar="TIME", dest=name,
            help=f"{text}: 2026-11-23 or 2026-11-23T02:00, UTC",
        )  # fmt: skip


def replay(args: argparse.Namespace) -> None:
    """Compute published forecasts again and compare them."""
    settings = load_settings(args)
    from daemon.cli.jobs import run_replay

    for line in run_replay(settings, getattr(args, "from"), args.to):
        print(line)


def evaluate_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `candlecast evaluate`."""
    _add_data(parser)
    parser.add_argument(
        "--version",
        metavar="VERSION",
        dest="model",
        help="model to evaluate (default: the champion)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for evaluation.json and evaluation.png (default: paths.models)",
    )


def evaluate(args: argparse.Namespace) -> None:
    """Measure a model's skill on candles that it was not trained on."""
    settings = load_settings(args)
    from rich.console import Console

    from daemon.jobs.evaluate import EvaluateJob, evaluate_model, show, show_note
    from daemon.runtime.progress import candles_progress
    from model.files.csv_reader import FileRules
    from model.registry.registry import Registry

    paths, console = settings.paths, Console()
    job = EvaluateJob(
        version=args.model,
        files=args.data,
        symbols=settings.trading.symbols,
        data=paths.data,
        output=args.output or paths.models,
        rules=FileRules(settings.model.max_filled, lambda line: show_note(line, console)),
    )
    with candles_progress() as progress:
        scores = evaluate_model(job, Registry(settings.registry_dir), progress.update)
    show(scores, job.output, console)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        default=(),
        metavar="CSV",
        help="candle files, one per symbol (default: each symbol's newest in paths.data)",
    )


def models_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `candlecast models`."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, text in (
        ("list", "list every model, oldest first, and the latest decisions"),
        ("show", "print a model's manifest and its decisions as JSON"),
        ("promote", "make a model the champion, which the daemon serves"),
        ("rollback", "make the previous champion the champion again"),
    ):
        description = f"{text[0].upper()}{text[1:]}."
        action = actions.add_parser(name, help=text, description=description)
        add_config(action, argparse.SUPPRESS)
        action.set_defaults(action=name)
        if name == "show":
            action.add_argument("version", nargs="?", help="default: the champion")
        elif name == "promote":
            action.add_argument("version", help="as candlecast models list prints it")


def models(args: argparse.Namespace) -> None:
    """List, show, promote or roll back models."""
    settings = load_settings(args)
    from daemon.jobs.models import models_command
    from daemon.runtime.clock import SystemClock
    from model.registry.registry import Registry

    lines = models_command(
        Registry(settings.registry_dir),
        args.action,
        getattr(args, "version", None),
        SystemClock().wall_ms(),
    )
    for line in lines:
        print(line)
    if args.action in {"promote", "rollback"}:
        from daemon.control.model_loader import open_champion
        from daemon.factories import requirements_of

        try:
            open_champion(requirements_of(settings))
        except BundleError as error:
            print(f"the daemon will not serve it: {error}")
