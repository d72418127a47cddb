"""An exchange that answers without end, or with a bomb of zeros, is given up in time."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import ccxt
import pytest
from aiohttp import web

from daemon.exchange import response_limit
from daemon.exchange.ccxt_client import make_exchange


@asynccontextmanager
async def answering(body: bytes, count: int, *, compressed: bool) -> AsyncIterator[str]:
    """A server whose answer is ``body`` so many times over."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        packer = zlib.compressobj(wbits=31)
        if compressed:
            response.headers["Content-Encoding"] = "gzip"
        await response.prepare(request)
        for _ in range(count):
            await response.write(packer.compress(body) if compressed else body)
        if compressed:
            await response.write(packer.flush())
        return response

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def fetched(url: str) -> object:
    exchange = make_exchange("binance", url)
    try:
        return await exchange.fetch(f"{url}/api")
    finally:
        await exchange.close()


@pytest.mark.parametrize("compressed", [False, True])
async def test_an_answer_that_is_too_long(
    monkeypatch: pytest.MonkeyPatch, *, compressed: bool
) -> None:
    monkeypatch.setattr(response_limit, "MAX_RESPONSE_BYTES", 1 << 20)
    async with answering(b"0" * 65_536, 2_000, compressed=compressed) as url:
        with pytest.raises(ccxt.ExchangeError) as caught:
            await fetched(url)
    assert "longer than 1 MiB" in str(caught.value.__cause__)


@pytest.mark.parametrize("compressed", [False, True])
async def test_an_answer_of_reasonable_length(*, compressed: bool) -> None:
    async with answering(b"[1, 2" + b" " * 60_000 + b"]", 1, compressed=compressed) as url:
        assert await fetched(url) == [1, 2]
