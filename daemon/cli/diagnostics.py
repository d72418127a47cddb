"""Commands that look and change nothing."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from daemon.cli.common import load, until_told
from model.core.errors import CandlecastError, ConfigError


def watch_options(parser: argparse.ArgumentParser) -> None:
    """Options of `candlecast watch`."""
    parser.add_argument("--host", help="broker to read from, instead of the configuration's")
    parser.add_argument("--port", metavar="PORT", help="its port")
    parser.add_argument("--username", metavar="NAME", help="user to log in as")
    parser.add_argument(
        "--password-file",
        # What stands on a command line is relative to where one is, not to the configuration.
        type=lambda name: str(Path(name).absolute()),
        metavar="FILE",
        help="holds the password (or CANDLECAST__MQTT__PASSWORD)",
    )


def watch(args: argparse.Namespace) -> None:
    """Show a broker's forecasts until told to stop."""
    from rich.console import Console

    from config import settings as configuration
    from daemon.factories import broker_of
    from daemon.runtime.address import host_port
    from daemon.runtime.clock import SystemClock
    from daemon.runtime.progress import can_redraw
    from daemon.watch.board import Board
    from daemon.watch.subscriber import watch_until

    asked = {
        f"CANDLECAST__MQTT__{name.upper()}": getattr(args, name)
        for name in ("host", "port", "username", "password_file")
        if getattr(args, name) is not None
    }
    # With a host of its own it needs no configuration, and may run on any machine.
    path = args.config if args.host is None else configuration.shipped()
    broker = broker_of(configuration.load(path, os.environ | asked))
    board = Board(f"candlecast watch · {host_port(broker.host, broker.port)}")
    console = Console(force_terminal=can_redraw())
    until_told(lambda stop: watch_until(stop, broker, board, console, SystemClock()))


def doctor(args: argparse.Namespace) -> None:
    """Examine everything that the daemon needs."""
    settings = load(args)
    from daemon.doctor.checks import Target, examine, quiet
    from daemon.doctor.findings import line, ok, problem, units_of, verdict
    from daemon.exchange.source import MarketSource
    from daemon.factories import broker_of, page_access_of, requirements_of
    from daemon.runtime.clock import SystemClock
    from daemon.runtime.tasks import unwrap_expected
    from model.core.candle import Timeframe

    trading, endpoint = settings.trading, settings.exchange.endpoint
    frame = Timeframe.parse(trading.timeframe)
    patient = Target(
        MarketSource(settings.exchange.name, endpoint.rest, endpoint.ws, trading.symbols, frame),
        broker_of(settings),
        settings.instance,
        requirements_of(settings),
        settings.state_dir,
        settings.history.keep_days,
        (settings.http.host, settings.http.port),
        page_access_of(settings).tls is not None,
        units_of(args.config.resolve()),
    )
    quiet()
    findings = [ok("config", f"{args.config} is valid")]
    print(line(findings[0]))

    async def examined(stop: asyncio.Event) -> None:
        async for finding in examine(patient, SystemClock()):
            findings.append(finding)
            print(line(finding), flush=True)
        stop.set()

    async def unless_told(stop: asyncio.Event) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                work = group.create_task(examined(stop))
                await stop.wait()
                if work.cancel():
                    findings.append(problem("doctor", "was interrupted", "let it end"))
        except ExceptionGroup as group_error:
            raise unwrap_expected(group_error, BrokenPipeError) from None

    until_told(unless_told)
    good, last = verdict(findings)
    if not good:
        raise CandlecastError(last)
    print(last)


def check_config(args: argparse.Namespace) -> None:
    """Check the configuration without connecting."""
    settings = load(args)
    from daemon.exchange.capabilities import check_offer
    from daemon.exchange.ccxt_client import make_exchange
    from daemon.runtime.forward_proxy import proxies_of

    trading, endpoint = settings.trading, settings.exchange.endpoint
    exchange = make_exchange(settings.exchange.name, endpoint.rest, endpoint.ws)
    check_offer(exchange, trading.symbols, trading.timeframe, ability="watchOHLCV")
    proxies_of(exchange)
    from daemon.cli.jobs import retrain_job
    from daemon.factories import broker_of, page_access_of, rules_of

    broker_of(settings)
    page_access_of(settings)
    count = len(trading.symbols)
    print(
        f"{args.config}: fine: {count} symbol{'s' if count > 1 else ''} of "
        f"{settings.exchange.name} at {trading.timeframe}, target "
        f"{settings.model.target}, state in {settings.state_dir}"
    )
    try:
        retrain_job(settings, args.config, rules_of(settings))
    except ConfigError as error:
        # Who trains elsewhere, or never, may serve all the same.
        print(f"but candlecast retrain would not begin: {error}")
