"""The status page's server side: the page itself, its live events and the series of its charts."""

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

from daemon.web.page_rows import Rows, series
from model.core.errors import HistoryError

if TYPE_CHECKING:
    from daemon.candles.window import Window
    from daemon.forecast.accounting import DeferredAccounting
    from daemon.forecast.pipeline import Pipeline
    from daemon.forecast.scheduler import InferenceScheduler
    from daemon.forecast.symbol_table import SymbolTable
    from daemon.metrics.metrics import Metrics
    from daemon.persistence.recorder import Recorder
    from daemon.runtime.clock import Clock
    from model.forecasts.forecast import ForecastRow, Market
    from model.history.store import History

MOST_WATCHERS: Final = 16
_MOST_QUESTIONS: Final = 4
"""Requests for series that are worked on at a time; the history has a single thread."""

_MOST_SYMBOLS: Final = 40
_MOST_CANDLES: Final = 240
_SLICE: Final = 64
"""Symbols looked at in one go, some 0.2 ms; then whoever waits for the event loop has its turn."""

_LOOK_S: Final = 0.1
_STATE_S: Final = 1.0
_OVERDUE_S: Final = 2.5
"""A browser takes five silent seconds for a lost connection, so a long burst is not waited for."""

_PATIENCE_S: Final = 10.0
"""A browser that takes nothing for so long is let go; it comes back by itself."""


class PageSources(NamedTuple):
    """What there is to see.

    Attributes:
        market: what is forecast.
        pipeline: tells which symbols are stale.
        table: has the windows.
        scheduler: tells whether a candle waits for its forecast.
        accounting: has the newest forecasts.
        state: asked for what concerns no single symbol.
    """

    market: Market
    pipeline: Pipeline
    table: SymbolTable
    scheduler: InferenceScheduler
    accounting: DeferredAccounting
    state: Callable[[], Mapping[str, object]]


class StatusPage:
    """Shows the daemon to at most `MOST_WATCHERS` browsers; without any, it does nothing.

    Nothing is queued: a browser that is slow to read gets the newest state when it has read, and
    what it missed is counted.
    """

    def __init__(
        self, view: PageSources, recorder: Recorder, metrics: Metrics, clock: Clock
    ) -> None:
        """Prepare; `add_to` lets it be asked for.

        Args:
            view: what there is to see.
            recorder: reads past forecasts.
            metrics: counts watchers and what they missed.
            clock: the injected clock; its wall time is the exchange's.
        """
        self._view = view
        self._recorder = recorder
        self._metrics = metrics
        self._clock = clock
        self._rows = Rows()
        self._turn = asyncio.Lock()
        self._closing = asyncio.Event()
        self._watchers = 0
        self._questions = 0
        self._stale: frozenset[str] = frozenset()
        self._looked_s = self._told_s = float("-inf")

    def add_to(self, application: web.Application) -> None:
        """Add the page's addresses: ``/``, ``/events`` and ``/series``."""
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
        """Tell a browser everything, then what changes, until it leaves or the daemon stops."""
        if self._watchers >= MOST_WATCHERS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_WATCHERS} browsers are watching already")
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
            }
        )
        with self._watching():
            await response.prepare(request)
            with suppress(ConnectionError, TimeoutError):
                await self.tell(response)
        return response

    @contextmanager
    def _watching(self) -> Iterator[None]:
        self._watchers += 1
        self._metrics.page_watchers.set(self._watchers)
        try:
            yield
        finally:
            self._watchers -= 1
            self._metrics.page_watchers.set(self._watchers)

    @property
    def frame_number(self) -> int:
        """How many steps have been told; 0 before the first browser came."""
        return self._rows.frame.number

    async def tell(self, response: web.StreamResponse) -> None:
        """Tell one browser everything, then what changes, until the daemon stops.

        Raises:
            ConnectionError: it is gone.
            TimeoutError: it takes nothing any more.
        """
        seen = 0
        while not self._closing.is_set():
            await self._look()
            number = self.frame_number
            if number != seen:
                if seen:
                    self._metrics.page_skipped.inc(number - seen - 1)
                async with asyncio.timeout(_PATIENCE_S):
                    await response.write(self._rows.after(seen))
                seen = number
            await self._clock.sleep(_LOOK_S)

    @property
    def _is_quiet(self) -> bool:
        """Whether no candle waits for its forecast, and no forecast to be entered in the books."""
        return self._view.scheduler.is_idle and not len(self._view.accounting)

    async def _look(self) -> None:
        """Bring the rows up to date, in slices, when nothing else is to be done."""
        pipeline, newest = self._view.pipeline, self._view.accounting.newest
        async with self._turn:
            now_s = self._clock.monotonic()
            due = now_s - self._told_s >= _STATE_S
            overdue = now_s - self._told_s >= _OVERDUE_S
            if now_s - self._looked_s < _LOOK_S / 2 or not (overdue or self._is_quiet):
                return
            windows = self._view.table.windows
            if due:
                self._stale = frozenset(pipeline.stale_symbols(self._clock.wall_ms()))
            self._rows.keep([window.symbol for window in windows])
            changed = []
            for start in range(0, len(windows), _SLICE):
                some = windows[start : start + _SLICE]
                changed += self._rows.update(some, newest, self._stale)
                # A burst that begins meanwhile goes first.
                await self._clock.sleep(0 if self._is_quiet else _LOOK_S)
            if due:
                self._told_s = now_s
            self._rows.step(changed, self._state() if due else None)
            self._looked_s = self._clock.monotonic()

    def _state(self) -> dict[str, object]:
        market = self._view.market
        return {
            "now_ms": self._clock.wall_ms(),
            "instance": market.instance,
            "exchange": market.exchange,
            "timeframe": market.timeframe.text,
            "step_ms": market.timeframe.ms,
            **self._metrics.summary(),
            **self._view.state(),
            "stale_symbols": len(self._stale),
        }

    async def _series(self, request: web.Request) -> web.Response:
        """Recent candles and forecasts of the symbols that are asked for."""
        if self._questions >= _MOST_QUESTIONS:
            raise web.HTTPServiceUnavailable(text="too many questions at a time; ask again")
        names = request.query.getall("symbol", [])
        limit = request.query.get("limit", "")
        windows = {window.symbol: window for window in self._view.table.windows}
        if (
            not 0 < len(names) <= _MOST_SYMBOLS
            or not limit.isdecimal()
            or not 0 < int(limit[:9]) <= _MOST_CANDLES
            or not windows.keys() >= set(names)
        ):
            raise web.HTTPBadRequest(
                text=f"ask for ?limit=1…{_MOST_CANDLES}&symbol=…, at most {_MOST_SYMBOLS} symbols"
            )
        self._questions += 1
        try:
            document = await self._read({name: windows[name] for name in names}, int(limit))
        except HistoryError as error:
            raise web.HTTPServiceUnavailable(text=str(error)) from None
        finally:
            self._questions -= 1
        return web.Response(
            body=orjson.dumps(document),
            content_type="application/json",
            headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
        )

    async def _read(self, windows: Mapping[str, Window], limit: int) -> dict[str, Any]:
        exchange, frame = self._view.market.exchange, self._view.market.timeframe

        def past(history: History) -> dict[str, list[ForecastRow]]:
            return {s: history.forecasts(exchange, s, frame.text, limit) for s in windows}

        forecasts = await self._recorder.read(past)
        return {
            symbol: series(window, frame.ms, forecasts[symbol], limit)
            for symbol, window in windows.items()
        }


def _assembled() -> tuple[bytes, str]:
    """The page in one piece, and the policy that lets a browser run this text and nothing else."""
    folder = resources.files("daemon.web") / "static"
    texts = {
        name: (folder / name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", "chart.js", "page.js")
    }
    script = texts["chart.js"] + texts["page.js"]
    html = texts["page.html"].replace("/* style */", texts["page.css"])
    html = html.replace("/* script */", script)
    policy = (
        "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        f"style-src {_digest(texts['page.css'])}; script-src {_digest(script)}"
    )
    return html.encode(), policy


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_HTML, _POLICY = _assembled()
