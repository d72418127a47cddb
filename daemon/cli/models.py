"""Commands about candles and models: what is fetched, learnt, judged, served."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from daemon.cli.common import add_config, load, positive, symbol
from model.core.errors import BundleError, CandlecastError

_DAYS = 30.0


def fetch_options(parser: argparse.ArgumentParser) -> None:
    """Options of `candlecast fetch`."""
    parser.add_argument(
        "--days", type=positive, default=_DAYS, help=f"how far back (default: {_DAYS:g})"
    )
    parser.add_argument(
        "--symbols", nargs="+", type=symbol, metavar="SYMBOL", help="instead of trading.symbols"
    )


def fetch(args: argparse.Namespace) -> None:
    """Fetch candle history to CSV files."""
    settings = load(args)
    from daemon.jobs.fetch import FetchJob
    from daemon.jobs.fetch import fetch as fetch_history
    from daemon.runtime.clock import SystemClock
    from daemon.runtime.progress import candles_progress
    from model.core.candle import Timeframe

    job = FetchJob(
        settings.exchange.name,
        settings.exchange.endpoint.rest,
        tuple(args.symbols or settings.trading.symbols),
        Timeframe.parse(settings.trading.timeframe),
        args.days,
        settings.paths.data,
    )
    with candles_progress() as progress:
        came = asyncio.run(fetch_history(job, SystemClock(), progress))
    for one in came:
        if one.path is not None:
            print(one.path)
    few = [one.lack for one in came if one.lacking_share <= settings.model.max_filled and one.lack]
    for line in few:
        print(line)
    lacking = [one.lack for one in came if one.lacking_share > settings.model.max_filled]
    if lacking:
        lacking.append("ask for fewer days with --days, or train on the candles that came")
        raise CandlecastError("\n".join(lacking))


def train_options(parser: argparse.ArgumentParser) -> None:
    """Options of `candlecast train`."""
    _add_data(parser)
    parser.add_argument("--promote", action="store_true", help="serve the model from now on")


def train(args: argparse.Namespace) -> None:
    """Train a model on the fetched candles."""
    from daemon.cli.native_output import native_notes_hidden

    with native_notes_hidden():
        _train_quietly(args)


def _train_quietly(args: argparse.Namespace) -> None:
    settings = load(args)
    from daemon.jobs.models import models_command
    from daemon.runtime.clock import SystemClock
    from model import train_lstm
    from model.core.candle import Timeframe
    from model.files.csv_reader import FileRules
    from model.registry.registry import Registry
    from model.retraining.bundle_export import pack_trained
    from model.training.dataset import choose_candles

    timeframe = Timeframe.parse(settings.trading.timeframe)
    paths = settings.paths
    rules = FileRules(settings.model.max_filled, print)
    candles = choose_candles(args.data, paths.data, settings.trading.symbols, timeframe, rules)
    trained = train_lstm.train(
        args.config, candles, timeframe, models=paths.models, data=paths.data
    )
    registry = Registry(settings.registry_dir)
    version = registry.write(pack_trained(trained, paths.models, SystemClock().wall_ms()))
    if not args.promote:
        print(f"model: {version}")
        return
    for line in models_command(registry, "promote", version, SystemClock().wall_ms()):
        print(line)


def retrain(args: argparse.Namespace) -> None:
    """Train a challenger, judge it, promote it if it has earned that."""
    from daemon.cli.native_output import native_notes_hidden

    with native_notes_hidden():
        settings = load(args)
        from daemon.cli.jobs import run_retrain
        from daemon.factories import rules_of

        print(run_retrain(settings, args.config, rules_of(settings)))


def replay_options(parser: argparse.ArgumentParser) -> None:
    """Options of `candlecast replay`."""
    for name, text in (("from", "the first moment"), ("to", "the moment after the last")):
        parser.add_argument(
            f"--{name}", required=True, metavar="TIME", dest=name,
            help=f"{text}: 2026-11-23 or 2026-11-23T02:00, UTC",
        )  # fmt: skip


def replay(args: argparse.Namespace) -> None:
    """Compute again what was published, and compare."""
    settings = load(args)
    from daemon.cli.jobs import run_replay

    for line in run_replay(settings, getattr(args, "from"), args.to):
        print(line)


def evaluate_options(parser: argparse.ArgumentParser) -> None:
    """Options of `candlecast evaluate`."""
    _add_data(parser)
    parser.add_argument(
        "--version", metavar="VERSION", dest="model", help="instead of the champion"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="for numbers and plot (default: paths.models)"
    )


def evaluate(args: argparse.Namespace) -> None:
    """Judge a model by candles it has not learnt from."""
    settings = load(args)
    from rich.console import Console

    from daemon.jobs.evaluate import EvaluateJob, evaluate_model, show, show_note
    from daemon.runtime.progress import candles_progress
    from model.files.csv_reader import FileRules
    from model.registry.registry import Registry

    paths, console = settings.paths, Console()
    job = EvaluateJob(
        args.model,
        args.data,
        settings.trading.symbols,
        paths.data,
        args.output or paths.models,
        FileRules(settings.model.max_filled, lambda line: show_note(line, console)),
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
        help="candle files, one a symbol (default: each symbol's newest in paths.data)",
    )


def models_options(parser: argparse.ArgumentParser) -> None:
    """Options of `candlecast models`."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, text in (
        ("list", "every model, oldest first, and what was decided"),
        ("show", "one model's manifest and story (default: the champion's)"),
        ("promote", "serve this model from now on"),
        ("rollback", "serve the previous champion again"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        add_config(action, argparse.SUPPRESS)
        action.set_defaults(action=name)
        if name in {"show", "promote"}:
            # `list` shows versions; an optional one stands for the champion.
            action.add_argument("version", nargs="?" if name == "show" else None)


def models(args: argparse.Namespace) -> None:
    """List, show, promote or roll back models."""
    settings = load(args)
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
