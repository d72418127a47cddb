"""Test the status page in a real browser without other hosts."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest

from daemon.candles.window import Window
from daemon.forecast.accounting import DeferredAccounting
from daemon.metrics.metrics import Metrics
from daemon.persistence.recorder import Recorder
from daemon.runtime.clock import SystemClock
from daemon.web.server import Health, serve_http
from daemon.web.status_page import PageSources, StatusPage
from model.core.candle import Candle, Ohlcv, Timeframe
from model.core.market import MarketKey
from model.forecasts.forecast import Market
from model.history.store import History
from tests.integration.harness import (
    Daemon,
    daemon,
    playback_of,
    promote_drawn,
    sections,
    write_config,
)
from tests.support.browser import Tab, browser
from tests.support.servers import (
    HOST,
    SandboxProcess,
    free_port,
    mosquitto,
    program,
    sandbox_process,
)

SYMBOLS = 4
FIRST = "document.querySelector('#rows > [role=row]')"
PAINTED = "document.getElementById('chart').toDataURL().length > 5000"
"""As PNG; an empty canvas takes less than half of it."""

WIDE = """[...document.querySelectorAll('*')].filter(
    (e) => e.getBoundingClientRect().right > innerWidth).map((e) => e.id || e.className)"""
MINUTE = Timeframe.parse("1m")


class Service(NamedTuple):
    """A running daemon and all that it needs."""

    exchange: SandboxProcess
    config: Path
    running: Daemon


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    program("chromium")
    folder = tmp_path_factory.mktemp("service")
    http_port = free_port()
    with (
        mosquitto(folder) as broker,
        sandbox_process("--symbols", str(SYMBOLS), "--history", "1100") as exchange,
    ):
        few = {"min_n": 2}
        config = write_config(folder, sections(exchange, broker.port, http_port, accuracy=few))
        promote_drawn(folder, playback_of(exchange))
        with daemon(config, http_port) as running:
            running.wait_ready()
            yield Service(exchange, config, running)


@asynccontextmanager
async def shown(service: Service, folder: Path) -> AsyncIterator[Tab]:
    async with browser(folder) as tab:
        await tab.show_as(1280, 900, "light")
        await tab.open(f"http://{HOST}:{service.running.http_port}/")
        await tab.until("document.body.dataset.link === 'live'")
        await tab.until(f"document.querySelectorAll('#rows canvas').length === {SYMBOLS}")
        await tab.until(PAINTED)
        yield tab


async def text(tab: Tab, selector: str) -> str:
    found: str = await tab.value(f"document.querySelector({selector!r}).textContent")
    return found


async def test_the_page_shows_every_symbol_and_updates_by_itself(
    service: Service, tmp_path: Path
) -> None:
    async with shown(service, tmp_path) as tab:
        rows = "[...document.querySelectorAll('#rows .symbol')].map((cell) => cell.textContent)"
        assert await tab.value(rows) == service.exchange.symbols
        assert await text(tab, "#name") == service.exchange.symbols[0]
        assert await text(tab, "#where") == "binance · 1s · tester"
        assert await text(tab, "#broker") == "connected"
        await tab.until("document.getElementById('feed').textContent === 'live'")
        await tab.until("document.querySelector('#skill').textContent.includes('±')")
        await tab.until("document.querySelector('#headline').textContent.startsWith('All 4')")
        for selector in ("#last", "#next", "#rows .close", "#rows .forecast"):
            before = await text(tab, selector)
            await tab.until(f"document.querySelector('{selector}').textContent !== {before!r}")
        # Past forecasts come from the history, further candles by the events alone.
        asked = len(tab.requests)
        newest = await tab.value("document.getElementById('chart').layout.next")
        await tab.until(f"document.getElementById('chart').layout.next >= {newest + 3000}")
        assert await tab.value("document.getElementById('chart').layout.known.length") > 3
        assert tab.requests[asked:] == []
        origin = f"http://{HOST}:{service.running.http_port}/"
        assert {url for url in tab.requests if not url.startswith((origin, "data:"))} == set()
        assert tab.complaints == []


async def test_the_keyboard_reaches_everything(service: Service, tmp_path: Path) -> None:
    focused = "document.activeElement.id || document.activeElement.dataset.symbol"
    count = "document.querySelectorAll('#rows > [role=row]').length"
    symbols = service.exchange.symbols
    async with shown(service, tmp_path) as tab:
        await tab.press("/")
        assert await tab.value(focused) == "filter"
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert await tab.value(outline) == "solid"
        for key in symbols[2][:3].lower():
            await tab.press(key)
        assert await tab.value(count) == 1
        assert await text(tab, "#count") == "1 of 4 symbols"
        await tab.until(f"document.getElementById('name').textContent === {symbols[2]!r}")
        await tab.press("Escape")
        assert await tab.value(count) == SYMBOLS
        await tab.press("ArrowDown")
        assert await tab.value(focused) == symbols[3]
        assert await tab.value(outline) == "solid"
        await tab.press("Home")
        assert await tab.value(focused) == symbols[0]
        await tab.until(f"document.getElementById('name').textContent === {symbols[0]!r}")
        await tab.press("Enter")
        assert await tab.value(focused) == "chart"
        await tab.press("ArrowLeft")
        await tab.until(
            "/open .* close .*forecast/.test(document.querySelector('#reading').textContent)"
        )
        await tab.press("Escape")
        assert await tab.value(focused) == symbols[0]
        await tab.value("document.querySelector('#heads button').focus()")
        # Chromium clicks a focused button by the character that Enter types.
        for expected in ("ascending", "descending", None):
            await tab.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", text="\r")
            await tab.call("Input.dispatchKeyEvent", type="keyUp", key="Enter")
            head = "document.querySelector('#heads > :first-child').getAttribute('aria-sort')"
            assert await tab.value(head) == expected
            first = symbols[-1] if expected == "descending" else symbols[0]
            assert await tab.value(f"{FIRST}.dataset.symbol") == first
        assert tab.complaints == []


async def test_it_fits_a_phone_and_follows_the_scheme(service: Service, tmp_path: Path) -> None:
    async with shown(service, tmp_path) as tab:
        papers = set()
        for width in (1280, 1200, 950, 768, 390, 320):
            for scheme in ("light", "dark"):
                await tab.show_as(width, 844, scheme)
                papers.add(await tab.value("getComputedStyle(document.body).backgroundColor"))
                wide = await tab.value("document.documentElement.scrollWidth")
                assert wide <= width, f"{width} {scheme} {await tab.value(WIDE)}"
                await tab.until(PAINTED)
        assert len(papers) == 2
        assert tab.complaints == []


async def test_forecasts_of_a_silent_exchange_are_removed_from_the_page(
    service: Service, tmp_path: Path
) -> None:
    none = f"document.querySelectorAll('#rows > .none').length === {SYMBOLS}"
    async with shown(service, tmp_path) as tab:
        service.exchange.process.send_signal(signal.SIGSTOP)
        try:
            await tab.until(none)
            # It stays so: what a forecast leaves in the row is not shown again.
            await tab.until(
                "document.querySelector('#rows .state').textContent.includes('no forecast · ')"
            )
            assert await text(tab, "#headline") == "No symbol has a forecast."
            assert (await text(tab, "#until")).startswith("No forecast since ")
            hidden = "getComputedStyle(document.querySelector('#rows .forecast')).visibility"
            assert await tab.value(hidden) == "hidden"
            assert (
                await tab.value("getComputedStyle(document.querySelector('#next')).display")
                == "none"
            )
            assert await tab.value("document.body.dataset.link") == "live"
        finally:
            service.exchange.process.send_signal(signal.SIGCONT)
        await tab.until(f"!({none})")


async def test_the_page_shows_a_stopped_daemon_and_its_return(
    service: Service, tmp_path: Path
) -> None:
    async with shown(service, tmp_path) as tab:
        assert tab.complaints == []
        service.running.kill()
        await tab.until("document.body.dataset.link === 'lost'")
        await tab.until(
            "document.querySelector('#headline').textContent.startsWith('Disconnected. ')"
        )
        assert await text(tab, "#link-text") == "disconnected, trying again"
        await tab.until(f"document.querySelectorAll('#rows > .none').length === {SYMBOLS}")
        with daemon(service.config, service.running.http_port) as again:
            await tab.until("document.body.dataset.link === 'live'")
            await tab.until(
                "document.querySelector('#headline').textContent.startsWith('All 4')", 60
            )
            # On a stop, it closes the browser's connection instead of waiting for it.
            assert await asyncio.to_thread(again.stop) == 0
            await tab.until("document.body.dataset.link === 'lost'")


HOSTILE = '<img src=x onerror="document.title=`owned`">/USDT'


@asynccontextmanager
async def page_of(windows: list[Window], folder: Path) -> AsyncIterator[Tab]:
    """The page in a browser, of a daemon that has these windows and nothing else."""
    program("chromium")
    symbols = tuple(window.symbol for window in windows)
    clock, metrics = SystemClock(), Metrics(10)
    with_history = await asyncio.to_thread(History, folder / "history.sqlite")
    recorder = Recorder(with_history, MarketKey.parse("binance", "1m"), 90, clock, metrics)
    pipeline = SimpleNamespace(stale_symbols=lambda _: [HOSTILE])
    market = Market("tester", "binance", symbols, MINUTE)
    state = {"warming_up": False, "broker_connected": True, "model": HOSTILE}
    view = PageSources(
        market=market,
        pipeline=cast("Any", pipeline),
        table=cast("Any", SimpleNamespace(windows=windows)),
        scheduler=cast("Any", SimpleNamespace(is_idle=True)),
        accounting=DeferredAccounting(cast("Any", None), MINUTE),
        state=lambda: state,
    )
    page = StatusPage(view, recorder, metrics, clock)
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(recorder.run()),
            group.create_task(
                serve_http(
                    HOST, 0, metrics, lambda: Health(alive=True, ready=True, detail={}), clock,
                    listening.set_result, page.add_to,
                )
            ),
        ]  # fmt: skip
        async with browser(folder / "profile") as tab:
            await tab.show_as(1280, 900, "dark")
            await tab.open(await listening)
            yield tab
        for task in tasks:
            task.cancel()
    await asyncio.to_thread(with_history.close)


def start_ms() -> int:
    return MINUTE.floor(SystemClock().wall_ms()) - 50 * MINUTE.ms


async def test_a_thousand_symbols_stay_usable_and_are_text(tmp_path: Path) -> None:
    symbols = (HOSTILE, *(f"S{number:03}/USDT" for number in range(999)))
    windows = [filled(symbol, start_ms()) for symbol in symbols]
    async with page_of(windows, tmp_path) as tab:
        await tab.until("document.querySelectorAll('#rows canvas').length > 3")
        assert await tab.value("document.querySelectorAll('#rows > [role=row]').length") == 1000
        # Charts are requested and drawn only while visible.
        assert await tab.value("document.querySelectorAll('#rows canvas').length") < 60
        assert len(tab.requests) < 10
        await tab.value("document.querySelector('#rows > :last-child').scrollIntoView()")
        await tab.until("!!document.querySelector('#rows > :last-child canvas')")
        assert await tab.value("document.querySelectorAll('#rows canvas').length") < 60
        assert await text(tab, "#name") == HOSTILE
        assert await text(tab, "#model") == HOSTILE
        assert await tab.value("document.title") == "candlecast"
        assert await tab.value("document.querySelectorAll('img').length") == 0
        assert tab.complaints == []


LABELS = """(() => {
  window.labels = new Set();
  const draw = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, ...place) {
    window.labels.add(text);
    draw.call(this, text, ...place);
  };
  window.dispatchEvent(new Event("resize"));
  return true;
})()"""


@pytest.mark.parametrize(
    ("scale", "close"),
    [
        (1e-10, "1.50000e-10"),
        (1.2e-7, "1.80000e-7"),
        (1e-5, "0.0000150000"),
        (40_000.0, "60,000.00"),
    ],
)
async def test_prices_of_any_size_have_their_digits(
    tmp_path: Path, scale: float, close: str
) -> None:
    async with page_of([filled("PEPE/BTC", start_ms(), scale)], tmp_path) as tab:
        await tab.until(PAINTED)
        assert await text(tab, "#rows .close") == close
        assert await text(tab, "#last") == close
        await tab.value(LABELS)
        await tab.until("window.labels.size > 4")
        words = await tab.value("[...window.labels]")
        prices = [t for t in words if ":" not in t and t != "no forecast"]
        assert len(prices) > 2
        assert all(0.4 < float(t.replace(",", "")) / scale < 2.1 for t in prices)
        assert tab.complaints == []


def filled(symbol: str, start_ms: int, scale: float = 1.0) -> Window:
    window = Window(symbol, MINUTE, 40)
    opens = range(start_ms, start_ms + 50 * MINUTE.ms, MINUTE.ms)
    ohlcv = Ohlcv(1.0 * scale, 2.0 * scale, 0.5 * scale, 1.5 * scale, 3.0)
    window.merge_history(Candle(symbol, at, at + MINUTE.ms, ohlcv, at, 0.0, "rest") for at in opens)
    return window
