"""Serve the status page, its live events and the series of its charts."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from aiohttp import web

from daemon.web.page_rows import RowTable, series
from model.core.errors import HistoryError

if TYPE_CHECKING:
    from daemon.candles.window import Window
    from daemon.forecast.issuer import Issuer
    from daemon.forecast.pipeline import Pipeline
    from daemon.metrics.metrics import Metrics
    from daemon.persistence.recorder import Recorder
    from daemon.runtime.clock import Clock
    from model.forecasts.forecast import ForecastRow, Market
    from model.history.store import History

MAX_WATCHERS: Final = 16
"""Browsers that may show the page at a time."""

_MAX_SERIES_REQUESTS: Final = 4
"""Requests for series that are served at a time; the history has a single thread."""

_MAX_SYMBOLS: Final = 40
"""Symbols in one request for series."""

_MAX_CANDLES: Final = 240
"""Candles of a symbol in one request for series."""

_SLICE_SIZE: Final = 64
"""Symbols updated in one go, some 0.2 ms; then other tasks of the event loop run."""

_UPDATE_INTERVAL_S: Final = 0.1
_STATE_INTERVAL_S: Final = 1.0

_MAX_DELAY_S: Final = 2.5
"""After this long an update no longer waits for the end of a burst. The page takes a connection
that is silent for five seconds for lost."""

_MAX_WRITE_S: Final = 10.0
"""A browser that reads nothing for this long is disconnected; it reconnects by itself."""


_SCRIPTS: Final = (
    *("helpers.js", "chart.js", "state.js", "connection.js"),
    *("table.js", "panels.js", "page.js"),
)
"""Files of the page's script, in the order in which they run."""


class PageSources(NamedTuple):
    """Where the page's content comes from.

    Attributes:
        market: the exchange, timeframe and symbols.
        pipeline: has the windows.
        issuer: has the newest forecasts.
        state: returns what concerns no single symbol.
    """

    market: Market
    pipeline: Pipeline
    issuer: Issuer
    state: Callable[[], Mapping[str, object]]


class StatusPage:
    """Serves the page to at most `MAX_WATCHERS` browsers; without any, it does nothing.

    Nothing is queued: a browser that reads slowly gets the newest state when it has read, and the
    updates that it missed are counted.
    """

    def __init__(
        self, sources: PageSources, recorder: Recorder, metrics: Metrics, clock: Clock
    ) -> None:
        """Prepare; `add_to` registers the pages.

        Args:
            sources: where the content comes from.
            recorder: reads past forecasts.
            metrics: counts watchers and missed updates.
            clock: the injected clock; its wall time is the exchange's.
        """
        self._sources = sources
        self._recorder = recorder
        self._metrics = metrics
        self._clock = clock
        self._table = RowTable()
        # Held while the table is updated, by the task of one browser for all.
        self._update_lock = asyncio.Lock()
        # Set when the web server shuts down.
        self._closing = asyncio.Event()
        self._watchers = 0
        self._series_requests = 0
        self._stale: frozenset[str] = frozenset()
        # When rows were last updated, and when the state last was, monotonic.
        self._updated_s = self._state_s = float("-inf")

    def add_to(self, application: web.Application) -> None:
        """Add the routes ``/``, ``/events`` and ``/series``."""
        headers = {
            "Content-Security-Policy": _POLICY,
            "Cache-Control": "no-cache",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }

        async def page(_: web.Request) -> web.Response:
            return web.Response(
                body=_HTML, content_type="text/html", charset="utf-8", headers=headers
            )

        async def close(_: web.Application) -> None:
            self._closing.set()

        application.router.add_get("/", page)
        application.router.add_get("/events", self._events)
        application.router.add_get("/series", self._series)
        application.on_shutdown.append(close)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Send a browser all rows, then changes, until it disconnects or the daemon stops."""
        if self._watchers >= MAX_WATCHERS:
            raise web.HTTPServiceUnavailable(text=f"{MAX_WATCHERS} browsers are watching already")
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
            }
        )
        with self._count_watcher():
            await response.prepare(request)
            with suppress(ConnectionError, TimeoutError):
                await self.send_events(response)
        return response

    @contextmanager
    def _count_watcher(self) -> Iterator[None]:
        self._watchers += 1
        self._metrics.page.watchers.set(self._watchers)
        try:
            yield
        finally:
            self._watchers -= 1
            self._metrics.page.watchers.set(self._watchers)

    @property
    def frame_number(self) -> int:
        """Number of the newest frame; 0 before the first browser connected."""
        return self._table.frame.number

    async def send_events(self, response: web.StreamResponse) -> None:
        """Send one browser all rows, then changes, until the daemon stops.

        Raises:
            ConnectionError: the browser has disconnected.
            TimeoutError: the browser does not read.
        """
        seen = 0
        while not self._closing.is_set():
            await self._update()
            number = self.frame_number
            if number != seen:
                if seen:
                    self._metrics.page.skipped_updates.inc(number - seen - 1)
                async with asyncio.timeout(_MAX_WRITE_S):
                    await response.write(self._table.events_after(seen))
                seen = number
            await self._clock.sleep(_UPDATE_INTERVAL_S)

    @property
    def _is_quiet(self) -> bool:
        """Whether no candle waits for its forecast, and no forecast for its accounting."""
        return self._sources.pipeline.is_idle and not len(self._sources.issuer.ledger)

    async def _update(self) -> None:
        """Update the rows in slices while the pipeline is idle, and make a frame of the changes."""
        pipeline, newest = self._sources.pipeline, self._sources.issuer.ledger.newest
        async with self._update_lock:
            now_s = self._clock.monotonic()
            is_state_due = now_s - self._state_s >= _STATE_INTERVAL_S
            is_overdue = now_s - self._state_s >= _MAX_DELAY_S
            if now_s - self._updated_s < _UPDATE_INTERVAL_S / 2 or not (
                is_overdue or self._is_quiet
            ):
                return
            windows = pipeline.windows
            if is_state_due:
                self._stale = frozenset(pipeline.stale_symbols(self._clock.wall_ms()))
            self._table.remove_all_but([window.symbol for window in windows])
            changed = []
            for start in range(0, len(windows), _SLICE_SIZE):
                part = windows[start : start + _SLICE_SIZE]
                changed += self._table.update(part, newest, self._stale)
                # If a burst of candles begins, it goes first.
                await self._clock.sleep(0 if self._is_quiet else _UPDATE_INTERVAL_S)
            if is_state_due:
                self._state_s = now_s
            self._table.make_frame(changed, self._state() if is_state_due else None)
            self._updated_s = self._clock.monotonic()

    def _state(self) -> dict[str, object]:
        market = self._sources.market
        return {
            "now_ms": self._clock.wall_ms(),
            "instance": market.instance,
            "exchange": market.exchange,
            "timeframe": market.timeframe.text,
            "step_ms": market.timeframe.ms,
            **self._metrics.summary(),
            **self._sources.state(),
            "stale_symbols": len(self._stale),
        }

    async def _series(self, request: web.Request) -> web.Response:
        """Return recent candles and forecasts of the requested symbols."""
        if self._series_requests >= _MAX_SERIES_REQUESTS:
            raise web.HTTPServiceUnavailable(text="too many requests at a time; try again")
        names = request.query.getall("symbol", [])
        limit = request.query.get("limit", "")
        windows = {window.symbol: window for window in self._sources.pipeline.windows}
        if (
            not 0 < len(names) <= _MAX_SYMBOLS
            or not limit.isdecimal()
            or not 0 < int(limit[:9]) <= _MAX_CANDLES
            or not windows.keys() >= set(names)
        ):
            raise web.HTTPBadRequest(
                text=f"expected ?limit=1…{_MAX_CANDLES}&symbol=…, at most {_MAX_SYMBOLS} symbols"
            )
        self._series_requests += 1
        try:
            document = await self._read_series({name: windows[name] for name in names}, int(limit))
        except HistoryError as error:
            raise web.HTTPServiceUnavailable(text=str(error)) from None
        finally:
            self._series_requests -= 1
        return web.Response(
            body=orjson.dumps(document),
            content_type="application/json",
            headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
        )

    async def _read_series(self, windows: Mapping[str, Window], limit: int) -> dict[str, Any]:
        market = self._sources.market

        def read(history: History) -> dict[str, list[ForecastRow]]:
            return {s: history.forecasts(market.key, s, limit) for s in windows}

        forecasts = await self._recorder.read(read)
        return {
            symbol: series(window, market.timeframe.ms, forecasts[symbol], limit)
            for symbol, window in windows.items()
        }


def _assemble_page() -> tuple[bytes, str]:
    """Return the page as one document, and the policy that allows only its own script and style."""
    folder = resources.files("daemon.web") / "static"

    def read(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    style = read("page.css")
    # One function keeps the names of all files out of the page's global scope.
    script = '"use strict";\n(() => {\n' + "\n".join(map(read, _SCRIPTS)) + "})();\n"
    html = read("page.html").replace("/* style */", style).replace("/* script */", script)
    policy = (
        "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        f"style-src {_digest(style)}; script-src {_digest(script)}"
    )
    return html.encode(), policy


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_HTML, _POLICY = _assemble_page()
