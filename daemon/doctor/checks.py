"""Run the checks of `candlecast doctor` with the daemon's own clients."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import aiohttp

from daemon.control.model_loader import open_champion
from daemon.doctor.broker_check import check_broker
from daemon.doctor.findings import (
    Finding,
    judge_clock,
    judge_disk,
    judge_health,
    judge_unit,
    ok,
    problem,
    unknown,
)
from daemon.doctor.stream_check import check_streams
from daemon.exchange.exchange_clock import ExchangeClock
from daemon.exchange.rest import RestClient
from daemon.metrics.metrics import Metrics
from daemon.runtime.address import host_port
from daemon.runtime.forward_proxy import proxies_of
from model.core.candle import moment
from model.core.errors import BundleError, CandlecastError, NotOffered

if TYPE_CHECKING:
    from daemon.control.model_loader import ModelRequirements
    from daemon.exchange.source import MarketSource
    from daemon.mqtt.broker import Broker
    from daemon.runtime.clock import Clock

_REST_TIMEOUT_S: Final = 60.0
_HTTP_TIMEOUT_S: Final = 5.0
_UNIT_PROPERTIES: Final = "LoadState,ActiveState,UnitFileState,Result"
_SYSTEMD_FOLDER: Final = Path("/run/systemd/system")
"""Exists if systemd manages this machine."""


class Target(NamedTuple):
    """The configuration to check.

    Attributes:
        source: exchange, symbols and timeframe.
        broker: MQTT broker.
        instance: the daemon's name.
        model: requirements of the champion.
        state_dir: folder of registry and history.
        keep_days: `history.keep_days`.
        http: host and port of the status page.
        https: whether the status page uses TLS.
        units: systemd units that should run.
    """

    source: MarketSource
    broker: Broker
    instance: str
    model: ModelRequirements
    state_dir: Path
    keep_days: float
    http: tuple[str, int]
    https: bool
    units: Sequence[str]


async def run_checks(target: Target, clock: Clock) -> AsyncGenerator[Finding]:
    """Run every check in order; change nothing permanently.

    Close the generator if you leave it early: it holds a connection to the exchange.
    """
    async with aclosing(_check_exchange(target.source, clock)) as findings:
        async for finding in findings:
            yield finding
    yield await check_broker(target.broker, target.instance, clock)
    yield await asyncio.to_thread(_check_model, target.model)
    for finding in await asyncio.to_thread(_check_state, target):
        yield finding
    yield await check_http(*target.http, https=target.https)
    async for finding in _check_systemd(target.units):
        yield finding


async def _check_exchange(source: MarketSource, clock: Clock) -> AsyncGenerator[Finding]:
    exchange_clock = ExchangeClock(clock)
    rest = RestClient(source, exchange_clock, Metrics(1), _ignore)
    started_s = clock.monotonic()
    try:
        try:
            async with asyncio.timeout(_REST_TIMEOUT_S):
                await rest.open()
                await rest.last_trade(source.symbols[0])
        except TimeoutError:
            text = (
                f"{source.name} did not answer within {_REST_TIMEOUT_S:g} s; it may have banned us"
            )
            yield problem("exchange", text, "wait, then try again with fewer symbols")
            return
        except NotOffered as error:
            advice = "change exchange.name, trading.symbols or trading.timeframe"
            yield problem("exchange", str(error), advice)
            return
        except CandlecastError as error:
            advice = "check the network, a proxy (HTTPS_PROXY), exchange and trading"
            yield problem("exchange", str(error), advice)
            return
        took_s = clock.monotonic() - started_s
        count = len(source.symbols)
        text = f"{source.name} answers and has {_symbols(count)} at {source.timeframe.text}"
        text += "".join(f", through the proxy {proxy}" for proxy in proxies_of(rest.exchange))
        if (grid := rest.grid.timeframe) != source.timeframe:
            text += f", candles opening e.g. at {moment(grid.floor(exchange_clock.wall_ms()))}"
        yield ok("exchange", f"{text} ({took_s:.1f} s)")
        yield judge_clock(
            exchange_clock.offset_s if exchange_clock.measured else None,
            exchange_clock.error_ms / 1e3,
        )
        for finding in await check_streams(source, rest, exchange_clock):
            yield finding
    finally:
        await rest.close()


def _ignore(error: Exception) -> None:
    """Ignore invalid candles in the history; they are not checked."""
    del error


def _symbols(count: int) -> str:
    return "the symbol" if count == 1 else f"all {count} symbols"


def _check_model(requirements: ModelRequirements) -> Finding:
    try:
        bundle = open_champion(requirements)
    except BundleError as error:
        return problem("model", str(error), "see what there is: candlecast models list")
    return ok("model", f"champion {bundle.version} is valid and matches the configuration")


def _check_state(target: Target) -> list[Finding]:
    folder = target.state_dir
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    history = folder / "history.sqlite"
    try:
        held = history.stat().st_size if history.exists() else 0
        with tempfile.TemporaryFile(dir=existing):
            pass
        if held and not os.access(history, os.W_OK):
            raise PermissionError(errno.EACCES, "the history is read-only", str(history))
    except OSError as error:
        text = f"{folder}: cannot be written to ({error.strerror})"
        advice = (
            f"change its owner to the daemon's user (chown), or run this as that user: {existing}"
        )
        return [problem("state", text, advice)]
    state = "is writable" if existing == folder else "will be created"
    disk = judge_disk(
        shutil.disk_usage(existing).free,
        held,
        len(target.source.symbols),
        target.source.timeframe.ms,
        target.keep_days,
    )
    return [ok("state", f"{folder} {state}"), disk]


async def check_http(host: str, port: int, *, https: bool) -> Finding:
    """Check that the address of the status page is free, or that the daemon serves it."""
    address = host_port(host, port)
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return judge_health(address, *await _health(host, port, https=https))
        text = f"cannot listen on {address} ({error.strerror})"
        return problem("http", text, "set http.host to an address of this machine")
    return ok("http", f"{address} is free")


async def _health(host: str, port: int, *, https: bool) -> tuple[int, dict[str, Any] | None]:
    url = f"{'https' if https else 'http'}://{host_port(host, port)}"
    timeout = aiohttp.ClientTimeout(total=_HTTP_TIMEOUT_S)
    try:
        # The server may be any program, so no login is sent.
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{url}/healthz", ssl=False) as answer,
        ):
            document = await answer.json(content_type=None)
            return answer.status, document if isinstance(document, dict) else None
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return 0, None


async def _check_systemd(units: Sequence[str]) -> AsyncIterator[Finding]:
    systemctl = shutil.which("systemctl")
    if systemctl is None or not await asyncio.to_thread(_SYSTEMD_FOLDER.is_dir):
        yield unknown("systemd", "does not manage this machine")
        return
    pipe = asyncio.subprocess.PIPE
    for name in units:
        process = await asyncio.create_subprocess_exec(
            systemctl, "show", f"--property={_UNIT_PROPERTIES}", name, stdout=pipe, stderr=pipe
        )
        stdout, stderr = await process.communicate()
        if process.returncode:
            text = stderr.decode(errors="replace").strip()
            yield unknown("systemd", f"cannot query {name} ({text})", f"systemctl status {name}")
            return
        lines = stdout.decode(errors="replace").splitlines()
        yield judge_unit(name, dict(text.split("=", 1) for text in lines if "=" in text))


def silence_log() -> None:
    """Disable log lines, which would repeat the findings."""
    logging.getLogger().setLevel(logging.CRITICAL)
