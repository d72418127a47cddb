"""Run the read-only commands `watch`, `doctor` and `check-config`."""

from __future__ import annotations

import argparse
import asyncio
import os
from contextlib import aclosing
from pathlib import Path

from daemon.cli.common import load_settings, run_until_signal
from model.core.errors import CandlecastError, ConfigError


def watch_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `candlecast watch`."""
    parser.add_argument("--host", help="MQTT broker (default: that of the configuration)")
    parser.add_argument("--port", metavar="PORT", help="port of the broker")
    parser.add_argument("--username", metavar="NAME", help="user name for the broker")
    parser.add_argument(
        "--password-file",
        # Relative to the working directory; in the configuration, to the configuration's folder.
        type=lambda name: str(Path(name).absolute()),
        metavar="FILE",
        help="file with the password (or set CANDLECAST__MQTT__PASSWORD)",
    )


def watch(args: argparse.Namespace) -> None:
    """Show a broker's forecasts until a signal."""
    from rich.console import Console

    from config import settings as configuration
    from daemon.factories import broker_of
    from daemon.runtime.address import host_port
    from daemon.runtime.clock import SystemClock
    from daemon.runtime.progress import can_redraw
    from daemon.watch.board import Board
    from daemon.watch.subscriber import watch_until

    overrides = {
        f"CANDLECAST__MQTT__{name.upper()}": getattr(args, name)
        for name in ("host", "port", "username", "password_file")
        if getattr(args, name) is not None
    }
    # With --host no configuration is needed, so that the command runs on any machine.
    path = args.config if args.host is None else configuration.shipped()
    broker = broker_of(configuration.load(path, os.environ | overrides))
    board = Board(f"candlecast watch · {host_port(broker.host, broker.port)}")
    console = Console(force_terminal=can_redraw())
    run_until_signal(lambda stop: watch_until(stop, broker, board, console, SystemClock()))


def doctor(args: argparse.Namespace) -> None:
    """Check the installation and print the findings.

    Raises:
        CandlecastError: at least one finding is a problem.
    """
    settings = load_settings(args)
    from daemon.doctor.checks import Target, run_checks, silence_log
    from daemon.doctor.findings import line, ok, problem, units_of, verdict
    from daemon.exchange.source import MarketSource
    from daemon.factories import broker_of, page_access_of, requirements_of
    from daemon.runtime.clock import SystemClock
    from daemon.runtime.tasks import unwrap_expected
    from model.core.candle import Timeframe

    trading, endpoint = settings.trading, settings.exchange.endpoint
    frame = Timeframe.parse(trading.timeframe)
    source = MarketSource(
        settings.exchange.name, endpoint.rest, endpoint.ws, trading.symbols, frame
    )
    target = Target(
        source=source,
        broker=broker_of(settings),
        instance=settings.instance,
        model=requirements_of(settings),
        state_dir=settings.state_dir,
        keep_days=settings.history.keep_days,
        http=(settings.http.host, settings.http.port),
        https=page_access_of(settings).tls is not None,
        units=units_of(args.config.resolve()),
    )
    silence_log()
    findings = [ok("config", f"{args.config} is valid")]
    print(line(findings[0]))

    async def check(stop: asyncio.Event) -> None:
        async with aclosing(run_checks(target, SystemClock())) as checks:
            async for finding in checks:
                findings.append(finding)
                print(line(finding), flush=True)
        stop.set()

    async def check_until(stop: asyncio.Event) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                checking = group.create_task(check(stop))
                await stop.wait()
                if checking.cancel():
                    findings.append(problem("doctor", "was interrupted", "run it again"))
        except ExceptionGroup as group_error:
            raise unwrap_expected(group_error, BrokenPipeError) from None

    run_until_signal(check_until)
    good, summary = verdict(findings)
    if not good:
        raise CandlecastError(summary)
    print(summary)


def check_config(args: argparse.Namespace) -> None:
    """Check the configuration without connecting.

    Raises:
        ConfigError: the daemon would not start with it.
    """
    settings = load_settings(args)
    from daemon.exchange.capabilities import check_capability
    from daemon.exchange.ccxt_client import make_exchange
    from daemon.runtime.forward_proxy import proxies_of

    trading, endpoint = settings.trading, settings.exchange.endpoint
    exchange = make_exchange(settings.exchange.name, endpoint.rest, endpoint.ws)
    check_capability(exchange, trading.symbols, trading.timeframe, capability="watchOHLCV")
    proxies_of(exchange)
    from daemon.cli.jobs import retrain_job
    from daemon.factories import broker_of, page_access_of, rules_of

    broker_of(settings)
    page_access_of(settings)
    count = len(trading.symbols)
    print(
        f"{args.config}: valid: {count} symbol{'s' if count > 1 else ''} of "
        f"{settings.exchange.name} at {trading.timeframe}, target "
        f"{settings.model.target}, state in {settings.state_dir}"
    )
    try:
        retrain_job(settings, args.config, rules_of(settings))
    except ConfigError as error:
        # The daemon can still serve models that were trained elsewhere.
        print(f"but candlecast retrain would fail: {error}")
