"""Test IPv6 addresses wherever one is used or shown."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from config.settings import load
from daemon.doctor.broker_check import check_broker
from daemon.doctor.checks import check_http
from daemon.exchange.ccxt_client import make_exchange
from daemon.factories import broker_of
from daemon.metrics.metrics import Metrics
from daemon.mqtt.outbox import Outbox
from daemon.mqtt.publisher import Publisher
from daemon.runtime.clock import SystemClock
from daemon.sandbox.exchange import SandboxExchange
from daemon.web.server import Health, serve_http
from tests.integration.harness import write_config
from tests.sandbox.scaled import second_playback
from tests.support.forward_proxy import relay
from tests.support.servers import HOST, MAX_WAIT_S, free_port, mosquitto, program

HOST6 = "::1"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A mosquitto's port on the loopback address of IPv6."""
    there = free_port()
    with mosquitto(tmp_path, f"listener {there} {HOST6}"):
        yield there


def settings_for(folder: Path, **chosen: Any) -> Any:
    return load(write_config(folder, chosen), {})


@pytest.mark.may_block(reason="reads a configuration")
async def test_doctor_publishes_and_reads(tmp_path: Path, port: int) -> None:
    settings = settings_for(tmp_path, mqtt={"host": HOST6, "port": port, "instance": "tester"})
    finding = await check_broker(broker_of(settings), "tester", SystemClock())
    assert finding.good is True
    assert finding.text.startswith(f"[{HOST6}]:{port} accepts and delivers")


@pytest.mark.may_block(reason="reads a configuration")
async def test_an_absent_broker_is_named_in_brackets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = free_port()
    settings = settings_for(tmp_path, mqtt={"host": HOST6, "port": nowhere})
    broker = broker_of(settings)
    finding = await check_broker(broker, "tester", SystemClock())
    assert f"no broker at [{HOST6}]:{nowhere} (" in finding.text
    publisher = Publisher(broker, "tester", Outbox(1), SystemClock(), Metrics(1))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(publisher.run())
        async with asyncio.timeout(MAX_WAIT_S):
            while f"no MQTT broker at [{HOST6}]:{nowhere} (" not in caplog.text:
                await asyncio.sleep(0.01)
        task.cancel()


def test_watch_and_the_example_read_from_it(port: int, repository: Path) -> None:
    state = json.dumps({"instance": "trader-1", "state": "online"})
    where = ["-h", HOST6, "-p", str(port), "-q", "1", "-r"]
    command = [program("mosquitto_pub"), *where, "-t", "candlecast/v1/status/trader-1", "-m", state]
    subprocess.run(command, check=True, timeout=MAX_WAIT_S)
    example = [sys.executable, str(repository / "examples" / "subscriber.py"), HOST6, str(port)]
    with subprocess.Popen(example, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "trader-1 is online\n"
        process.terminate()
    nowhere = free_port()
    watch = [sys.executable, "-m", "daemon", "watch", "--host", HOST6, "--port", str(nowhere)]
    done = subprocess.run(watch, capture_output=True, text=True, timeout=MAX_WAIT_S, check=False)
    assert done.returncode == 1
    assert f"the MQTT broker at [{HOST6}]:{nowhere}: " in done.stderr


@asynccontextmanager
async def on_ipv6(url: str) -> AsyncIterator[str]:
    """The address in IPv6 of a server that listens on IPv4."""
    scheme, _, address = url.partition("://")
    target = int(address.rsplit(":", 1)[1])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await relay((reader, writer), await asyncio.open_connection(HOST, target))

    server = await asyncio.start_server(serve, HOST6, 0)
    try:
        yield f"{scheme}://[{HOST6}]:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.may_block(reason="reads a configuration")
async def test_an_exchange_is_reached_by_rest_and_websocket(tmp_path: Path) -> None:
    async with (
        SandboxExchange(second_playback(2)) as sandbox,
        on_ipv6(sandbox.rest_url) as rest,
        on_ipv6(sandbox.ws_url) as ws,
    ):
        settings = settings_for(tmp_path, exchange={"endpoint": {"rest": rest, "ws": ws}})
        endpoint = settings.exchange.endpoint
        exchange = make_exchange("binance", endpoint.rest, endpoint.ws, symbols=["S00/USDT"])
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                await exchange.load_markets()
                assert await exchange.fetch_ohlcv("S00/USDT", "1s", limit=3)
                assert await exchange.watch_ohlcv("S00/USDT", "1s")
        finally:
            await exchange.close()


@pytest.mark.may_block(reason="binds a port")
async def test_doctor_sees_the_pages_there() -> None:
    finding = await check_http(HOST6, port := free_port(), https=False)
    assert finding.text == f"[{HOST6}]:{port} is free"
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        well = Health(alive=True, ready=True, detail={})
        pages = serve_http(HOST6, 0, Metrics(1), lambda: well, SystemClock(), listening.set_result)
        task = group.create_task(pages)
        url = await listening
        finding = await check_http(HOST6, int(url.rpartition(":")[2]), https=False)
        task.cancel()
    assert finding.good is True
    assert f"the daemon runs on {url.removeprefix('http://')}" in finding.text
