"""The local pages: right codes, loud about a taken port, silent about a scraper that leaves."""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from daemon.clock import Clock, SystemClock
from daemon.guard import GUESSES, PAUSE_S, Guard
from daemon.http import Health, serve_http
from daemon.metrics import Metrics
from daemon.tls import server_context
from model.errors import CandlecastError
from tests.certificates import Authority
from tests.daemon.handclock import HandClock, RecordedClock

WELL = Health(alive=True, ready=True, detail={"symbols": 20, "stale_symbols": []})


@asynccontextmanager
async def serving(
    health: Callable[[], Health] = lambda: WELL,
    metrics: Metrics | None = None,
    port: int = 0,
    guard: Guard | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[str]:
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(
            serve_http(
                "127.0.0.1",
                port,
                metrics or Metrics(),
                health,
                clock or SystemClock(),
                listening.set_result,
                guard=guard or Guard(),
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


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("page", ["metrics", "healthz", "readyz", "nowhere"])
async def test_without_the_right_login_nothing_is_shown(page: str) -> None:
    guard = Guard(("me", "gehëim:with colon"))
    wrong = (
        *("", "Basic", "Basic !!!", "Bearer x", basic(""), basic(":"), basic("me:")),
        *(basic("me:gehëim"), basic("you:gehëim:with colon"), basic("me:gehëim:with colon ")),
    )
    clock = RecordedClock(0)
    async with serving(guard=guard, clock=clock) as url, aiohttp.ClientSession() as session:
        for value in wrong:
            async with session.get(f"{url}/{page}", headers={"Authorization": value}) as answer:
                assert answer.status == 401, value
                assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
                assert "candlecast_" not in await answer.text()
        right = {"Authorization": basic("me:gehëim:with colon")}
        async with session.get(f"{url}/{page}", headers=right) as answer:
            assert answer.status == (404 if page == "nowhere" else 200)


async def test_passwords_are_guessed_slowly_however_many_guess_at_once() -> None:
    clock = HandClock(0)
    async with (
        serving(guard=Guard(("me", "secret")), clock=clock) as url,
        aiohttp.ClientSession() as session,
        asyncio.TaskGroup() as group,
    ):

        async def ask(value: str) -> int:
            headers = {"Authorization": basic(value)} if value else {}
            async with session.get(f"{url}/healthz", headers=headers) as answer:
                return answer.status

        guesses = [group.create_task(ask("me:guess")) for _ in range(GUESSES)]
        while len(clock.slept) < GUESSES:
            await asyncio.sleep(0.001)
        # Nothing more is looked at from there, be it right; a question is no guess.
        assert await ask("me:secret") == 429
        assert await ask("") == 401
        assert not any(guess.done() for guess in guesses)
        await clock.advance(PAUSE_S)
        assert [await guess for guess in guesses] == [401] * GUESSES
        assert await ask("me:secret") == 200
    assert clock.slept == [PAUSE_S] * GUESSES


async def test_pages_by_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    guard = Guard(None, server_context(pair.certificate, pair.key))
    trusting = ssl.create_default_context(cafile=str(authority.ca))
    async with serving(guard=guard) as url, aiohttp.ClientSession() as session:
        assert url.startswith("https://127.0.0.1:")
        async with session.get(f"{url}/readyz", ssl=trusting) as answer:
            assert answer.status == 200
        with pytest.raises(aiohttp.ClientError):
            await session.get(url.replace("https", "http") + "/readyz")


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /readyz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01" + b"\0" * 600,
    ],
    ids=["path", "header", "tls"],
)
async def test_what_is_too_long_or_no_http_is_refused(request_line: bytes) -> None:
    async with serving() as url:
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request_line)
        answer = await reader.readline()
        assert answer.split(b" ")[1] == b"400"
        writer.close()
        await writer.wait_closed()
        assert (await get(f"{url}/readyz"))[0] == 200


async def test_connections_are_bounded_however_many_are_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daemon.http._MOST_CONNECTIONS", 8)
    monkeypatch.setattr("daemon.http._IDLE_S", 0.5)
    async with serving() as url:
        host, port = url.removeprefix("http://").split(":")
        pairs = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
        # The first ones are taken and wait for a request that never ends, the others are let go.
        for _, writer in pairs[:8]:
            writer.write(b"GET /readyz HT")
        for reader, _ in pairs[8:]:
            with suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 5) == b""
        for reader, _ in pairs[:8]:
            assert await asyncio.wait_for(reader.read(), 5) == b""
        assert (await get(f"{url}/readyz"))[0] == 200
        for _, writer in pairs:
            writer.close()
