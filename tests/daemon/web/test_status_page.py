"""Check the status page over real sockets: events, series, limits and cost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from daemon.web.server import Health, serve_http
from daemon.web.status_page import MAX_WATCHERS, PageSources, StatusPage
from model.history.store import History
from model.registry.bundle import Bundle
from tests.support.pipeline_harness import (
    CAPACITY,
    MINUTE,
    SYMBOLS,
    T0,
    PipelineHarness,
    SampleMarket,
    running,
)
from tests.support.servers import MAX_WAIT_S
from tests.support.tiny_models import Floats


class Shown:
    """A pipeline with a status page."""

    def __init__(self, path: PipelineHarness, market: SampleMarket) -> None:
        self.path = path
        self.market = market
        sources = PageSources(
            market=path.market,
            pipeline=path.pipeline,
            table=path.table,
            scheduler=path.scheduler,
            accounting=path.pipeline.accounting,
            state=lambda: {"model": "m"},
        )
        self.page = StatusPage(sources, path.recorder, path.metrics, path.clock)
        self.url = ""

    @property
    def watchers(self) -> float:
        return self.path.sample("candlecast_page_watchers")

    async def close_all(self, at: int) -> None:
        """Close candle ``at`` of every symbol and wait for the forecasts."""
        self.path.at(at + 1)
        for symbol in SYMBOLS:
            self.path.close(self.market, symbol, at)
        await self.path.scheduler.wait_idle()

    async def status(self, query: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}{query}") as answer,
        ):
            return answer.status, await answer.text()


@pytest.fixture
async def shown(
    bundle: Bundle, history: History, candles: dict[str, Floats]
) -> AsyncIterator[Shown]:
    async with running(PipelineHarness(bundle, history)) as path, asyncio.TaskGroup() as group:
        made = Shown(path, SampleMarket(candles))
        path.warm(made.market, CAPACITY)
        await path.scheduler.wait_idle()
        listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        serving = group.create_task(
            serve_http(
                "127.0.0.1",
                0,
                path.metrics,
                lambda: Health(alive=True, ready=True, detail={}),
                path.clock,
                listening.set_result,
                made.page.add_to,
            )
        )
        made.url = await listening
        yield made
        serving.cancel()


@asynccontextmanager
async def watching(url: str) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
    """The events of the page, as a browser receives them."""

    async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
        name = ""
        async for line in answer.content:
            key, _, value = line.decode().rstrip("\n").partition(": ")
            if key == "event":
                name = value
            elif key == "data":
                yield name, json.loads(value)

    timeout = aiohttp.ClientTimeout(total=MAX_WAIT_S)
    # A line holds every symbol.
    async with (
        aiohttp.ClientSession(timeout=timeout, read_bufsize=1 << 20) as session,
        session.get(f"{url}/events") as answer,
    ):
        assert answer.status == 200, await answer.text()
        assert answer.headers["Content-Type"] == "text/event-stream"
        yield events(answer)


async def test_a_browser_gets_all_rows_and_then_changes(shown: Shown) -> None:
    async with watching(shown.url) as events:
        name, document = await anext(events)
        assert name == "all"
        rows = [dict(zip(document["fields"], values, strict=True)) for values in document["rows"]]
        assert [row["symbol"] for row in rows] == list(SYMBOLS)
        published = {f["symbol"]: f for f in shown.path.published.forecasts}
        for row in rows:
            assert row["predicted"] == pytest.approx(published[row["symbol"]]["predicted_close"])
            assert row["close"] == pytest.approx(published[row["symbol"]]["last_close"])
            assert row["valid_until_ms"] == published[row["symbol"]]["valid_until_ms"]
        name, state = await anext(events)
        assert name == "state"
        assert state["now_ms"] == shown.path.clock.now_ms
        assert (state["exchange"], state["step_ms"]) == ("binance", MINUTE.ms)
        assert state["model"] == "m"
        await shown.close_all(CAPACITY)
        while (event := await anext(events))[0] != "rows":
            assert event[0] == "state"
        for values in event[1]:
            row = dict(zip(document["fields"], values, strict=True))
            assert row["open_ms"] == T0 + CAPACITY * MINUTE.ms
            assert row["target_ms"] == row["open_ms"] + MINUTE.ms


async def test_series_are_the_windows_candles_and_the_published_forecasts(shown: Shown) -> None:
    for at in range(CAPACITY, CAPACITY + 3):
        await shown.close_all(at)
    await shown.path.recorder.flush()
    async with aiohttp.ClientSession() as session:
        query = [("limit", "20"), *(("symbol", symbol) for symbol in SYMBOLS[:2])]
        async with session.get(f"{shown.url}/series", params=query) as answer:
            document = await answer.json()
    assert list(document) == list(SYMBOLS[:2])
    for symbol in document:
        expected = shown.market.span(symbol, CAPACITY - 17, CAPACITY + 3)
        assert document[symbol]["candles"] == [[c.open_ms, *c.ohlcv[:4]] for c in expected]
        published = [f for f in shown.path.published.forecasts if f["symbol"] == symbol]
        assert document[symbol]["forecasts"] == [
            [f["candle_close_ms"], f["predicted_close"], *bounds(f)] for f in published
        ]


def bounds(forecast: dict[str, Any]) -> tuple[float | None, float | None]:
    interval = forecast["interval"]
    return (None, None) if interval is None else (interval["lower"], interval["upper"])


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?symbol=A/U",
        "?limit=5",
        "?limit=0&symbol=A/U",
        "?limit=241&symbol=A/U",
        f"?limit={'9' * 5000}&symbol=A/U",
        "?limit=x&symbol=A/U",
        "?limit=5&symbol=NO/U",
        "?limit=5" + "&symbol=A/U" * 41,
    ],
)
async def test_invalid_requests_for_series_are_refused(shown: Shown, query: str) -> None:
    status, text = await shown.status(f"/series{query}")
    assert status == 400
    assert text == "expected ?limit=1…240&symbol=…, at most 40 symbols"


async def test_the_number_of_browsers_is_bounded(shown: Shown) -> None:
    async with asyncio.TaskGroup() as group:
        enough = asyncio.Event()

        async def watch() -> None:
            async with watching(shown.url) as events:
                await anext(events)
                await enough.wait()

        for _ in range(MAX_WATCHERS):
            group.create_task(watch())
        while shown.watchers < MAX_WATCHERS:
            await asyncio.sleep(0.02)
        status, text = await shown.status("/events")
        assert (status, text) == (503, "16 browsers are watching already")
        enough.set()
    # A disconnected browser is noticed at the next write.
    async with asyncio.timeout(MAX_WAIT_S):
        while shown.watchers:
            await asyncio.sleep(0.05)


async def test_without_browsers_the_page_does_no_work(shown: Shown) -> None:
    await shown.close_all(CAPACITY)
    await shown.status("/")
    await asyncio.sleep(0.3)
    assert shown.page.frame_number == 0


async def test_a_slow_browser_gets_the_newest_frame_and_skips_are_counted(shown: Shown) -> None:
    class Slow:
        """A response that blocks until the test releases it."""

        def __init__(self) -> None:
            self.written: list[bytes] = []
            self.released = asyncio.Event()

        async def write(self, data: bytes) -> None:
            self.written.append(data)
            await self.released.wait()

    slow = Slow()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(shown.page.send_events(cast("web.StreamResponse", slow)))
        async with watching(shown.url) as events:
            for at in range(CAPACITY, CAPACITY + 3):
                await shown.close_all(at)
                while (await anext(events))[0] != "rows":
                    pass
            slow.released.set()
            while len(slow.written) < 2:
                await asyncio.sleep(0.02)
        task.cancel()
    assert slow.written[0].startswith(b"event: all\n")
    assert slow.written[1].startswith(b"event: all\n")
    newest = T0 + (CAPACITY + 2) * MINUTE.ms
    assert str(newest).encode() in slow.written[1]
    assert shown.path.sample("candlecast_page_skipped_updates_total") >= 2


async def test_the_page_is_one_document_that_contacts_no_other_origin(shown: Shown) -> None:
    async with aiohttp.ClientSession() as session, session.get(shown.url) as answer:
        text = await answer.text()
        policy = answer.headers["Content-Security-Policy"]
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "unsafe" not in policy
    assert "/* style */" not in text
    assert "/* script */" not in text
    # Any other URL would be of another origin; the namespace of SVG is not one.
    assert text.replace("http://www.w3.org/2000/svg", "").count("://") == 0
    assert "innerHTML" not in text
