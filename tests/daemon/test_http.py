"""The local pages: right codes, loud about a taken port, silent about a scraper that leaves."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from daemon.clock import SystemClock
from daemon.http import Health, serve_http
from daemon.metrics import Metrics
from model.errors import CandlecastError

WELL = Health(alive=True, ready=True, detail={"symbols": 20, "stale_symbols": []})


@asynccontextmanager
async def serving(
    health: Callable[[], Health] = lambda: WELL, metrics: Metrics | None = None, port: int = 0
) -> AsyncIterator[str]:
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(
            serve_http(
                "127.0.0.1", port, metrics or Metrics(), health, SystemClock(), listening.set_result
            )
        )
        yield await listening
        task.cancel()


async def get(url: str, accept: str = "*/*") -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, headers={"Accept": accept}) as answer,
    ):
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def test_metrics_come_in_the_format_that_is_accepted() -> None:
    async with serving() as url:
        status, kind, text = await get(f"{url}/metrics")
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert "\ncandlecast_predictions_total{" in text
        status, kind, text = await get(
            f"{url}/metrics", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
        )
        assert status == 200
        assert kind.startswith("application/openmetrics-text; version=1.0.0")
        assert text.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("alive", "ready", "codes"),
    [(True, True, (200, 200)), (True, False, (200, 503)), (False, False, (503, 503))],
)
async def test_health_is_said_by_code_and_in_words(
    *, alive: bool, ready: bool, codes: tuple[int, int]
) -> None:
    async with serving(lambda: Health(alive, ready, {"stale_symbols": ["BTC/USDT"]})) as url:
        answers = [await get(f"{url}/{page}") for page in ("healthz", "readyz")]
    assert tuple(status for status, _, _ in answers) == codes
    for _, kind, text in answers:
        assert kind == "application/json"
        assert '"stale_symbols":["BTC/USDT"]' in text


async def test_what_goes_wrong_in_a_page_is_its_own_500(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Health:
        msg = "made to fail"
        raise RuntimeError(msg)

    async with serving(broken) as url:
        status, _, _ = await get(f"{url}/healthz")
        assert status == 500
        assert (await get(f"{url}/metrics"))[0] == 200
    assert "made to fail" in caplog.text


async def test_a_taken_port_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            CandlecastError, match=rf"^http\.port {port} on http\.host 127\.0\.0\.1 is taken; .+$"
        ):
            await serve_http("127.0.0.1", port, Metrics(), lambda: WELL, SystemClock())


async def test_an_address_of_another_machine_is_one_clear_line() -> None:
    with pytest.raises(CandlecastError, match=r"^cannot listen on http\.host 192\.0\.2\.1, .+$"):
        await serve_http("192.0.2.1", 0, Metrics(), lambda: WELL, SystemClock())


async def test_the_port_is_free_again_afterwards() -> None:
    async with serving() as url:
        port = int(url.rsplit(":", 1)[1])
    async with serving(port=port) as again:
        assert (await get(f"{again}/readyz"))[0] == 200


async def test_a_scraper_that_leaves_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as url:
        host, port = url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        await writer.drain()
        writer.transport.abort()
        assert (await get(f"{url}/healthz"))[0] == 200
    # On a busy machine asyncio's debug mode complains of slow steps.
    said = [r for r in caplog.records if r.levelno >= logging.WARNING and r.name != "asyncio"]
    assert said == []
