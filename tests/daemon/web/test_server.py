"""Check the web server: status codes, login, host names, limits and error messages."""

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

from daemon.metrics.metrics import Metrics
from daemon.runtime.clock import Clock, SystemClock
from daemon.runtime.tls import server_context
from daemon.web.auth import MAX_WAITING_GUESSES, WRONG_PASSWORD_DELAY_S, PageAccess
from daemon.web.host_names import is_own_host
from daemon.web.server import Health, serve_http
from model.core.errors import CandlecastError
from tests.support.certificates import Authority
from tests.support.manual_clock import ManualClock, PollingClock
from tests.support.servers import MAX_WAIT_S

HEALTHY = Health(alive=True, ready=True, detail={"symbols": 20, "stale_symbols": []})


@asynccontextmanager
async def serving(
    health: Callable[[], Health] = lambda: HEALTHY,
    metrics: Metrics | None = None,
    port: int = 0,
    access: PageAccess | None = None,
    clock: Clock | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[str]:
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(
            serve_http(
                host,
                port,
                metrics or Metrics(),
                health,
                clock or SystemClock(),
                listening.set_result,
                access=access or PageAccess(),
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
async def test_health_is_given_by_status_code_and_text(
    *, alive: bool, ready: bool, codes: tuple[int, int]
) -> None:
    async with serving(lambda: Health(alive, ready, {"stale_symbols": ["BTC/USDT"]})) as url:
        answers = [await get(f"{url}/{page}") for page in ("healthz", "readyz")]
    assert tuple(status for status, _, _ in answers) == codes
    for _, kind, text in answers:
        assert kind == "application/json"
        assert '"stale_symbols":["BTC/USDT"]' in text


async def test_an_exception_in_a_page_is_answered_with_500(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> Health:
        msg = "made to fail"
        raise RuntimeError(msg)

    async with serving(broken) as url:
        status, _, _ = await get(f"{url}/healthz")
        assert status == 500
        assert (await get(f"{url}/metrics"))[0] == 200
    assert "made to fail" in caplog.text


async def test_a_taken_port_is_a_clear_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            CandlecastError, match=rf"^http\.port {port} on http\.host 127\.0\.0\.1 is taken; .+$"
        ):
            await serve_http("127.0.0.1", port, Metrics(), lambda: HEALTHY, SystemClock())


async def test_an_address_of_another_machine_is_a_clear_error() -> None:
    with pytest.raises(CandlecastError, match=r"^cannot listen on http\.host 192\.0\.2\.1, .+$"):
        await serve_http("192.0.2.1", 0, Metrics(), lambda: HEALTHY, SystemClock())


async def test_the_port_is_free_again_afterwards() -> None:
    async with serving() as url:
        port = int(url.rsplit(":", 1)[1])
    async with serving(port=port) as again:
        assert (await get(f"{again}/readyz"))[0] == 200


async def test_a_scraper_that_disconnects_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as url:
        host, port = url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await writer.drain()
        writer.transport.abort()
        assert (await get(f"{url}/healthz"))[0] == 200
    # On a busy machine asyncio's debug mode logs slow steps.
    logged = [r for r in caplog.records if r.levelno >= logging.WARNING and r.name != "asyncio"]
    assert logged == []


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("page", ["metrics", "healthz", "readyz", "nowhere"])
async def test_without_the_right_login_nothing_is_shown(page: str) -> None:
    access = PageAccess(("me", "gehëim:with colon"))
    wrong = (
        *("", "Basic", "Basic !!!", "Bearer x", basic(""), basic("me"), basic(":"), basic("me:")),
        *(basic("me:gehëim"), basic("you:gehëim:with colon"), basic("me:gehëim:with colon ")),
    )
    clock = PollingClock(0, longest_s=60)
    async with serving(access=access, clock=clock) as url, aiohttp.ClientSession() as session:
        for value in wrong:
            async with session.get(f"{url}/{page}", headers={"Authorization": value}) as answer:
                assert answer.status == 401, value
                assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
                assert "candlecast_" not in await answer.text()
        right = {"Authorization": basic("me:gehëim:with colon")}
        async with session.get(f"{url}/{page}", headers=right) as answer:
            assert answer.status == (404 if page == "nowhere" else 200)


async def test_wrong_passwords_are_answered_slowly_and_the_right_one_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock(0)
    async with (
        serving(access=PageAccess(("me", "secret")), clock=clock) as url,
        aiohttp.ClientSession() as session,
        asyncio.TaskGroup() as group,
    ):

        async def ask(value: str) -> int:
            headers = {"Authorization": basic(value)} if value else {}
            async with session.get(f"{url}/healthz", headers=headers) as answer:
                return answer.status

        guesses = [group.create_task(ask("me:guess")) for _ in range(MAX_WAITING_GUESSES)]
        while len(clock.slept) < MAX_WAITING_GUESSES:
            await asyncio.sleep(0.001)
        # Prometheus may have the same address, behind the same reverse proxy.
        assert await ask("me:secret") == 200
        assert await ask("me:another") == 429
        assert await ask("") == 401
        assert await ask("me:secret") == 200
        assert not any(guess.done() for guess in guesses)
        await clock.advance(WRONG_PASSWORD_DELAY_S)
        assert [await guess for guess in guesses] == [401] * MAX_WAITING_GUESSES
        assert await ask("me:secret") == 200
    assert clock.slept == [WRONG_PASSWORD_DELAY_S] * MAX_WAITING_GUESSES
    lines = [r.getMessage() for r in caplog.records if r.name == "candlecast.web"]
    assert lines == ["wrong name or password for the pages from 127.0.0.1"]


@pytest.mark.may_block(reason="reads certificates")
async def test_pages_by_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    access = PageAccess(None, server_context(pair.certificate, pair.key))
    trusting = ssl.create_default_context(cafile=str(authority.ca))
    async with serving(access=access) as url, aiohttp.ClientSession() as session:
        assert url.startswith("https://127.0.0.1:")
        async with session.get(f"{url}/readyz", ssl=trusting) as answer:
            assert answer.status == 200
        with pytest.raises(aiohttp.ClientError):
            await session.get(url.replace("https", "http") + "/readyz")


HEAD = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n"
NO_HTTP = {
    "path": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "header": HEAD + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
    "headers": HEAD + b"".join(b"X%d: a\r\n" % number for number in range(3_000)) + b"\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01" + b"\0" * 600,
    "no host": b"GET /readyz HTTP/1.1\r\n\r\n",
    "two hosts": HEAD + b"Host: localhost\r\n\r\n",
    "method": b"G@T /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "garbage": b"\x00\x01\xff\xfe\r\n\r\n",
    "version": b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "address": b"GET http://[::1/readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "length": HEAD + b"Content-Length: -5\r\n\r\n",
    "lengths": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "mqtt": bytes.fromhex("101000044d5154540502001e000003616263"),
}


@pytest.mark.parametrize("login", [None, ("me", "secret")])
@pytest.mark.parametrize("raw", NO_HTTP.values(), ids=NO_HTTP)
async def test_bytes_other_than_http_get_400_and_at_most_one_log_line(
    raw: bytes, login: tuple[str, str] | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(access=PageAccess(login)) as url:
        caplog.clear()
        host, port = url.removeprefix("http://").split(":")
        for _ in range(3):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(raw)
            lines = (await reader.read()).split(b"\r\n")
            assert any(line.startswith(b"HTTP/1.") and b" 400 " in line for line in lines)
            writer.close()
            await writer.wait_closed()
        status, _, _ = await get(f"{url}/readyz")
        assert status == (401 if login else 200)
    logged = [r for r in caplog.records if r.name != "asyncio"]
    assert len(logged) <= 1
    for record in logged:
        assert record.exc_info is None
        assert "that is not HTTP" in record.getMessage()


async def test_a_mislabelled_body_causes_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as url:
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc")
        assert (await reader.readline()).split(b" ")[1] == b"200"
        await reader.read()
        writer.close()
    assert [r.getMessage() for r in caplog.records if r.exc_info] == []


@pytest.mark.may_block(reason="reads certificates")
async def test_garbage_on_the_tls_port_is_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair = Authority(tmp_path).issue("server")
    access = PageAccess(None, server_context(pair.certificate, pair.key))
    # In debug mode asyncio logs each failed handshake.
    asyncio.get_running_loop().set_debug(False)
    async with serving(access=access) as url:
        port = int(url.rpartition(":")[2])
        for raw in NO_HTTP.values():
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(raw)
            with suppress(ConnectionError):
                await reader.read()
            writer.close()
    assert [r for r in caplog.records if r.levelno >= logging.WARNING and r.exc_info] == []


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:1", 200),
        ("localhost:9108", 200),
        ("LOCALHOST.", 200),
        ("[::1]:9108", 200),
        ("pages.example:443", 200),
        ("Pages.Example", 200),
        ("evil.example", 421),
        ("evil.example:9108", 421),
        ("localhost.evil.example", 421),
        ("pages.example.evil.example", 421),
        ("evil.example@localhost", 421),
        ("192.0.2.7", 421),
        ("0.0.0.0", 421),
        ("2130706433", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
@pytest.mark.parametrize("page", ["metrics", "healthz", "readyz", "nowhere"])
async def test_only_the_servers_own_names_are_served(host: str, status: int, page: str) -> None:
    async with (
        serving(access=PageAccess(names=("pages.example",))) as url,
        aiohttp.ClientSession() as session,
        session.get(f"{url}/{page}", headers={"Host": host}) as answer,
    ):
        assert answer.status == (404 if (page, status) == ("nowhere", 200) else status)
        assert ("candlecast_" in await answer.text()) == ((page, status) == ("metrics", 200))


async def test_a_foreign_name_is_refused_before_the_login_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        serving(access=PageAccess(("me", "secret"))) as url,
        aiohttp.ClientSession() as session,
    ):
        for name in ("evil.example", "b.example"):
            headers = {"Host": name, "Authorization": basic("me:secret")}
            async with session.get(f"{url}/readyz", headers=headers) as answer:
                assert answer.status == 421
    lines = [r.getMessage() for r in caplog.records if r.name == "candlecast.web"]
    assert len(lines) == 1
    assert "'evil.example'" in lines[0]
    assert "add it to http.names" in lines[0]


async def test_without_a_host_only_version_1_0_is_served() -> None:
    async with serving() as url:
        host, port = url.removeprefix("http://").split(":")
        for version, code in ((b"1.0", b"200"), (b"1.1", b"400")):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET /readyz HTTP/" + version + b"\r\n\r\n")
            assert (await reader.readline()).split(b" ")[1] == code
            writer.close()


def test_behind_nat_any_address_is_accepted_but_no_name() -> None:
    """A container is reached by the address of its machine."""
    assert is_own_host("10.0.0.5:9108", "172.17.0.2", ())
    assert is_own_host("[2001:db8::1]", "fe80::1%eth0", ())
    assert not is_own_host("evil.example", "172.17.0.2", ())
    assert not is_own_host("10.0.0.5", "", ())


async def test_an_ipv6_address_is_a_valid_url() -> None:
    async with serving(host="::1") as url:
        assert url.startswith("http://[::1]:")
        assert (await get(f"{url}/readyz"))[0] == 200


async def test_connections_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daemon.web.server._MAX_CONNECTIONS", 8)
    monkeypatch.setattr("daemon.web.server._MAX_IDLE_S", 0.5)
    async with serving() as url:
        host, port = url.removeprefix("http://").split(":")
        pairs = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
        # The first ones are accepted and send a request that never ends; the others are closed.
        for _, writer in pairs[:8]:
            writer.write(b"GET /readyz HT")
        for reader, _ in pairs[8:]:
            with suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), MAX_WAIT_S) == b""
        for reader, _ in pairs[:8]:
            assert await asyncio.wait_for(reader.read(), MAX_WAIT_S) == b""
        assert (await get(f"{url}/readyz"))[0] == 200
        for _, writer in pairs:
            writer.close()
