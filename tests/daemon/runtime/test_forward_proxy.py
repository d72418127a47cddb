"""Exchanges behind the environment's proxy: a real proxy, the real client, the sandbox."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import ccxt.pro
import pytest

from daemon.exchange.ccxt_client import exchange_error, make_exchange, network_errors
from daemon.runtime.forward_proxy import note_proxies, proxies_of, proxy_for
from daemon.runtime.tls import server_context
from daemon.sandbox.exchange import SandboxExchange
from model.core.errors import ConfigError
from tests.sandbox.scaled import second_playback
from tests.support.certificates import Authority
from tests.support.forward_proxy import ForwardProxy, tls_endpoint
from tests.support.servers import HOST, MAX_WAIT_S

NAMES = ("http", "https", "all", "no", "ws", "wss")
SECRET = "se:cr@t"
LOGIN = "me:se%3Acr%40t"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        for variable in (f"{name}_proxy", f"{name}_proxy".upper()):
            monkeypatch.delenv(variable, raising=False)


@asynccontextmanager
async def behind(
    folder: Path, *, tls: bool, login: str | None = None
) -> AsyncIterator[tuple[ForwardProxy, Any]]:
    """A proxy, and an exchange whose name only the proxy resolves."""
    authority = Authority(folder)
    pair = authority.issue("exchange", "*.exchange.test")
    context = server_context(pair.certificate, pair.key)
    async with SandboxExchange(second_playback(2)) as sandbox:
        rest, ws = (int(url.rsplit(":", 1)[1]) for url in (sandbox.rest_url, sandbox.ws_url))
        async with tls_endpoint(rest, context) as safe_rest, tls_endpoint(ws, context) as safe_ws:
            ports = (safe_rest, safe_ws) if tls else (rest, ws)
            hosts = dict(zip(("rest.exchange.test", "ws.exchange.test"), ports, strict=True))
            async with ForwardProxy(hosts, login) as proxy:
                yield proxy, authority


def client(authority: Authority, *, tls: bool) -> Any:
    letter = "s" if tls else ""
    made = make_exchange(
        "binance",
        f"http{letter}://rest.exchange.test",
        f"ws{letter}://ws.exchange.test",
        symbols=["S00/USDT"],
    )
    made.cafile = str(authority.ca)
    return made


async def candle_from(exchange: Any) -> list[float]:
    """The newest candle by websocket, after a look at the history."""
    async with asyncio.timeout(MAX_WAIT_S):
        await exchange.load_markets()
        assert await exchange.fetch_ohlcv("S00/USDT", "1s", limit=3)
        rows: list[list[float]] = await exchange.watch_ohlcv("S00/USDT", "1s")
    return rows[-1]


@pytest.mark.may_block(reason="reads certificates")
@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("login", [None, f"me:{SECRET}"])
@pytest.mark.parametrize("variable", ["specific", "ALL_PROXY"])
async def test_candles_are_received_through_the_proxy_by_rest_and_websocket(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    login: str | None,
    *,
    tls: bool,
) -> None:
    caplog.set_level(logging.DEBUG)
    if variable == "specific":
        variable = "HTTPS_PROXY" if tls else "http_proxy"
    async with behind(tmp_path, tls=tls, login=login) as (proxy, authority):
        address = f"{HOST}:{proxy.port}"
        monkeypatch.setenv(variable, f"http://{LOGIN}@{address}" if login else address)
        exchange = client(authority, tls=tls)
        try:
            note_proxies(exchange)
            assert len(await candle_from(exchange)) == 6
        finally:
            await exchange.close()
        assert proxy.refused == 0
        if tls:
            assert set(proxy.requests) == {
                "CONNECT rest.exchange.test:443",
                "CONNECT ws.exchange.test:443",
            }
        else:
            assert set(proxy.requests) == {
                "GET http://rest.exchange.test",
                "GET ws://ws.exchange.test",
            }
    lines = [r.getMessage() for r in caplog.records if r.name == "candlecast.runtime"]
    assert lines == [f"binance is reached through the proxy {address}"]
    assert "cr%40t" not in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.may_block(reason="reads certificates")
@pytest.mark.parametrize("tls", [True, False])
async def test_a_proxy_that_refuses_the_login_is_one_line_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, tls: bool
) -> None:
    async with behind(tmp_path, tls=tls, login="me:another") as (proxy, authority):
        monkeypatch.setenv("ALL_PROXY", f"http://{LOGIN}@{HOST}:{proxy.port}")
        exchange = client(authority, tls=tls)
        try:
            with pytest.raises(network_errors()) as caught:
                await exchange.load_markets()
            with pytest.raises(network_errors()) as stream_error:
                await exchange.watch_ohlcv("S00/USDT", "1s")
        finally:
            await exchange.close()
        assert proxy.refused >= 2
    for error in (caught.value, stream_error.value):
        text = f"{exchange_error('binance', 'asking', error)} {error} {error!r} {error.__cause__!r}"
        assert "407" in text
        for secret in (SECRET, "cr%40t", "me:"):
            assert secret not in text


async def test_a_proxy_that_is_down_is_named_without_its_login(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://{LOGIN}@{HOST}:9")
    exchange = make_exchange("binance")
    try:
        with pytest.raises(network_errors()) as caught:
            await exchange.load_markets()
    finally:
        await exchange.close()
    line = str(exchange_error("binance", "loading its markets", caught.value))
    assert f"{HOST}:9" in line
    assert "cr" + "%40t" not in line


@pytest.mark.parametrize(
    ("url", "proxies", "expected"),
    [
        ("https://api.example/x", {}, None),
        ("https://api.example/x", {"http": "http://p:1"}, None),
        ("https://api.example/x", {"https": "http://p:1", "all": "http://q:2"}, "http://p:1"),
        ("wss://api.example/x", {"https": "http://p:1"}, "http://p:1"),
        ("ws://api.example/x", {"http": "http://p:1"}, "http://p:1"),
        ("wss://api.example/x", {"all": "p:1"}, "http://p:1"),
        ("https://api.example/x", {"https": "http://me:pw@p:1"}, "http://me:pw@p:1"),
        ("https://api.example/x", {"https": "http://[::1]:1"}, "http://[::1]:1"),
        ("https://api.example/x", {"all": "p:1", "no": "*"}, None),
        ("https://api.example/x", {"all": "p:1", "no": "a.b, api.example"}, None),
        ("https://api.example:8443/x", {"all": "p:1", "no": ".example"}, None),
        ("https://api.example/x", {"all": "p:1", "no": "pi.example"}, "http://p:1"),
        ("https://api.example/x", {"all": "socks5://p:1", "no": "api.example"}, None),
        ("http://127.0.0.1:80/x", {"all": "p:1"}, None),
        ("ws://localhost:80/x", {"all": "socks5://p:1"}, None),
        ("ws://[::1]:80/x", {"all": "p:1"}, None),
    ],
)
def test_the_proxy_of_an_address(url: str, proxies: dict[str, str], expected: str | None) -> None:
    assert proxy_for(url, proxies) == expected


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        (
            f"socks5://{LOGIN}@p.example:1080",
            "kind socks5 \\(p.example:1080\\), and ",
        ),
        ("socks5h://p.example", "of the kind socks5h"),
        ("https://p.example:443", "of the kind https"),
        (f"http://{LOGIN}@p.example:x", "not an address such as"),
        ("http://", "not an address such as"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, proxy: str, words: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ConfigError, match=words) as caught:
        proxies_of(make_exchange("binance"))
    assert "me:" not in str(caught.value)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("NO_PROXY", "*")
    assert proxies_of(make_exchange("binance")) == []


def test_unused_addresses_need_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fetch from a local server, as in the demo, goes to no stream."""
    monkeypatch.setenv("ALL_PROXY", "socks5://p.example:1080")
    exchange = make_exchange("binance", f"http://{HOST}:9")
    assert proxies_of(exchange, streams=False) == []
    with pytest.raises(ConfigError):
        proxies_of(exchange)


def test_two_logins_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:a@p.example:1")
    monkeypatch.setenv("HTTP_PROXY", "http://me:b@p.example:1")
    with pytest.raises(ConfigError, match="different logins"):
        proxies_of(make_exchange("binance"))
    local = make_exchange("binance", f"http://{HOST}:9", f"ws://{HOST}:9")
    assert proxies_of(local) == []


@pytest.mark.parametrize("name", ccxt.pro.exchanges)
def test_every_exchange_goes_through_the_proxy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://me:pw@p.example:3128")
    assert proxies_of(make_exchange(name)) == ["p.example:3128"]
