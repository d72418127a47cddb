from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from daemon.sandbox.exchange import SandboxExchange
from tests.sandbox.scaled import second_playback


@pytest.fixture
async def exchange() -> AsyncIterator[SandboxExchange]:
    async with SandboxExchange(second_playback(2)) as running:
        yield running


async def get(exchange: SandboxExchange, path: str, **query: object) -> tuple[int, Any, str | None]:
    text = {name: str(value) for name, value in query.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.get(exchange.rest_url + path, params=text) as answer,
    ):
        return answer.status, await answer.json(), answer.headers.get("Retry-After")


async def test_it_listens_on_loopback_alone(exchange: SandboxExchange) -> None:
    assert exchange.rest_url.startswith("http://127.0.0.1:")
    assert exchange.ws_url.startswith("ws://127.0.0.1:")


async def test_ping_and_time(exchange: SandboxExchange) -> None:
    assert await get(exchange, "/api/v3/ping") == (200, {}, None)
    status, body, _ = await get(exchange, "/api/v3/time")
    origin_ms = exchange.playback.origin_ms
    assert status == 200
    assert origin_ms + 1_500_000 <= body["serverTime"] <= origin_ms + 1_530_000


async def test_klines_default_to_500_and_end_at_1000(exchange: SandboxExchange) -> None:
    common = {"symbol": "S00USDT", "interval": "1s"}
    _, rows, _ = await get(exchange, "/api/v3/klines", **common)
    assert len(rows) == 500
    _, rows, _ = await get(exchange, "/api/v3/klines", limit=5_000, **common)
    assert len(rows) == 1_000
    assert [type(field) for field in rows[0]] == [int, *[str] * 5, int, str, int, *[str] * 3]


@pytest.mark.parametrize(
    ("query", "code", "says"),
    [
        ({"symbol": "NOPE", "interval": "1s"}, -1121, "Invalid symbol."),
        ({"symbol": "S00USDT", "interval": "7m"}, -1120, "Invalid interval."),
        ({"symbol": "S00USDT", "interval": "1h"}, -1120, "Invalid interval."),
        ({"interval": "1s"}, -1102, "'symbol'"),
        ({"symbol": "S00USDT", "interval": ""}, -1102, "'interval'"),
        ({"symbol": "S00USDT", "interval": "1s", "startTime": "-5"}, -1100, "'startTime'"),
        ({"symbol": "S00USDT", "interval": "1s", "endTime": "x"}, -1100, "'endTime'"),
        ({"symbol": "S00USDT", "interval": "1s", "limit": "0"}, -1130, "'limit'"),
    ],
)
async def test_bad_requests_get_binances_codes(
    exchange: SandboxExchange, query: dict[str, str], code: int, says: str
) -> None:
    status, body, _ = await get(exchange, "/api/v3/klines", **query)
    assert (status, body["code"]) == (400, code)
    assert says in body["msg"]


@pytest.mark.parametrize("status", [418, 429])
async def test_a_ban_names_its_end_and_ends(exchange: SandboxExchange, status: int) -> None:
    exchange.ban(status, 30)
    got, body, retry_after = await get(exchange, "/api/v3/ping")
    assert (got, body["code"], retry_after) == (status, -1003, "30")
    assert exchange.rest.requests == {"/api/v3/ping": 1}
    exchange.ban(status, 0)
    assert await get(exchange, "/api/v3/ping") == (200, {}, None)


async def test_an_unknown_path_is_404(exchange: SandboxExchange) -> None:
    async with aiohttp.ClientSession() as session:
        answer = await session.get(exchange.rest_url + "/api/v3/depth")
        assert answer.status == 404
