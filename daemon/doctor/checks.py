"""`candlecast doctor`: try everything that a daemon needs, by the daemon's own means."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import aiohttp

from daemon.control.model_loader import open_champion
from daemon.doctor.broker_check import examine_broker
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
from daemon.doctor.stream_check import examine_streams
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

_REST_S: Final = 60.0
_HTTP_S: Final = 5.0
_SHOWN: Final = "LoadState,ActiveState,UnitFileState,Result"
_SYSTEMD: Final = Path("/run/systemd/system")


class Target(NamedTuple):
    """What is to be examined.

    Attributes:
        source: exchange, symbols and timeframe.
        broker: where forecasts go.
        instance: the daemon's name.
        recipe: what the champion must be for.
        state_dir: folder of registry and history.
        keep_days: `history.keep_days`.
        http: host and port of the status page.
        https: whether it is served by TLS.
        units: those of systemd that ought to run.
    """

    source: MarketSource
    broker: Broker
    instance: str
    recipe: ModelRequirements
    state_dir: Path
    keep_days: float
    http: tuple[str, int]
    https: bool
    units: Sequence[str]


async def examine(patient: Target, clock: Clock) -> AsyncIterator[Finding]:
    """Look at everything, one after the other; nothing that lasts is changed."""
    async for finding in _examine_exchange(patient.source, clock):
        yield finding
    yield await examine_broker(patient.broker, patient.instance, clock)
    yield await asyncio.to_thread(_examine_model, patient.recipe)
    for finding in await asyncio.to_thread(_examine_state, patient):
        yield finding
    yield await examine_http(*patient.http, https=patient.https)
    async for finding in _examine_systemd(patient.units):
        yield finding


async def _examine_exchange(source: MarketSource, clock: Clock) -> AsyncIterator[Finding]:
    time = ExchangeClock(clock)
    rest = RestClient(source, time, Metrics(1), _pass_over)
    started_s = clock.monotonic()
    try:
        try:
            async with asyncio.timeout(_REST_S):
                await rest.open()
                await rest.last_trade(source.symbols[0])
        except TimeoutError:
            text = f"{source.name} did not answer within {_REST_S:g} s; is this address banned?"
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
            text += f", candles opening e.g. at {moment(grid.floor(time.wall_ms()))}"
        yield ok("exchange", f"{text} ({took_s:.1f} s)")
        yield judge_clock(time.offset_s if time.measured else None, time.error_ms / 1e3)
        for finding in await examine_streams(source, rest, time):
            yield finding
    finally:
        await rest.close()


def _pass_over(error: Exception) -> None:
    """What the history holds besides the candles that are asked for is not examined."""
    del error


def _symbols(count: int) -> str:
    return "the symbol" if count == 1 else f"all {count} symbols"


def _examine_model(recipe: ModelRequirements) -> Finding:
    try:
        bundle = open_champion(recipe)
    except BundleError as error:
        return problem("model", str(error), "candlecast models list tells what there is")
    return ok("model", f"champion {bundle.version} verifies and fits")


def _examine_state(patient: Target) -> list[Finding]:
    folder = patient.state_dir
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    history = folder / "history.sqlite"
    try:
        held = history.stat().st_size if history.exists() else 0
        with tempfile.TemporaryFile(dir=there):
            pass
        if held and not os.access(history, os.W_OK):
            raise PermissionError(errno.EACCES, "the history may only be read", str(history))
    except OSError as error:
        text = f"{folder}: cannot be written to ({error.strerror})"
        advice = f"give it to who runs the daemon (chown), or run this as that user: {there}"
        return [problem("state", text, advice)]
    made = "is writable" if there == folder else "will be made"
    disk = judge_disk(
        shutil.disk_usage(there).free,
        held,
        len(patient.source.symbols),
        patient.source.timeframe.ms,
        patient.keep_days,
    )
    return [ok("state", f"{folder} {made}"), disk]


async def examine_http(host: str, port: int, *, https: bool) -> Finding:
    """Whether the pages can be served at an address, or the daemon serves them already."""
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
    timeout = aiohttp.ClientTimeout(total=_HTTP_S)
    try:
        # Whoever it is, it is asked nothing that is secret.
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{url}/healthz", ssl=False) as answer,
        ):
            document = await answer.json(content_type=None)
            return answer.status, document if isinstance(document, dict) else None
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return 0, None


async def _examine_systemd(units: Sequence[str]) -> AsyncIterator[Finding]:
    systemctl = shutil.which("systemctl")
    if systemctl is None or not await asyncio.to_thread(_SYSTEMD.is_dir):
        yield unknown("systemd", "does not run this machine")
        return
    pipe = asyncio.subprocess.PIPE
    for name in units:
        process = await asyncio.create_subprocess_exec(
            systemctl, "show", f"--property={_SHOWN}", name, stdout=pipe, stderr=pipe
        )
        said, complaint = await process.communicate()
        if process.returncode:
            text = complaint.decode(errors="replace").strip()
            yield unknown(
                "systemd", f"does not tell of {name} ({text})", f"systemctl status {name}"
            )
            return
        lines = said.decode(errors="replace").splitlines()
        yield judge_unit(name, dict(text.split("=", 1) for text in lines if "=" in text))


def quiet() -> None:
    """Keep the log out of the findings: they say it all."""
    logging.getLogger().setLevel(logging.CRITICAL)
