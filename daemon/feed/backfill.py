"""Fetch missing candles by REST, a few symbols at a time, and retry with backoff."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any, Protocol

from daemon.candles.closing import grace_ms
from daemon.candles.overdue import OverdueCandles
from daemon.exchange.rate_limits import Banned
from daemon.runtime.backoff import Backoff
from daemon.runtime.outage import Outage
from model.core.errors import ExchangeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from daemon.candles.grid import Grid
    from daemon.candles.window import Window
    from daemon.metrics.metrics import Metrics
    from daemon.runtime.clock import Clock
    from model.core.candle import Candle, Timeframe

log = logging.getLogger("candlecast.feed")

_MAX_CONCURRENT = 4
"""Symbols fetched at the same time, in the whole daemon."""

_OVERLAP_CANDLES = 3
"""Closed candles fetched again, to see late revisions of them."""

_RETRY_MIN_S = 0.5
_RETRY_MAX_S = 15.0

_MAX_JOIN_ATTEMPTS = 5
"""Answers in a row that do not reach back to the window before it starts over. One answer may lack
candles; what five lack, the exchange does not keep any more."""

_POLL_INTERVAL_S = 0.5
"""Longest pause between two looks for overdue candles; shorter where candles are short."""


class HistorySource(Protocol):
    """What a backfill needs of the feed."""

    @property
    def grid(self) -> Grid:
        """Opening times of the exchange's candles."""

    def earliest_ms(self) -> int:
        """Lower bound of the exchange's time, Unix milliseconds."""

    async def history(self, symbol: str, since_ms: int) -> list[Candle]:
        """Closed candles that opened at ``since_ms`` or later; ExchangeError if unanswered."""


class Backfill:
    """Fetches the history of symbols whose windows have gaps, each at most once at a time.

    Requests are a set of symbols and cannot outgrow their number. A symbol that failed waits for
    the next retry. While every request fails, all symbols wait, and each retry sends a few
    requests only. During a ban nothing is sent.
    """

    def __init__(
        self,
        feed: HistorySource,
        windows: Iterable[Window],
        timeframe: Timeframe,
        clock: Clock,
        metrics: Metrics,
        on_history: Callable[[str, Sequence[Candle]], None],
        capacity: int,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Prepare; `run` does the fetching.

        Args:
            feed: source of the history.
            windows: of all symbols.
            timeframe: length of the candles; the feed has the grid.
            clock: the injected clock.
            metrics: counts fetches and failures.
            on_history: receives the fetched candles of a symbol.
            capacity: candles that a window holds.
            draw: random numbers of [0, 1) for the jitter of retries.
        """
        self._feed = feed
        self._windows = {window.symbol: window for window in windows}
        self._timeframe = timeframe
        self._clock = clock
        self._metrics = metrics
        self._on_history = on_history
        self._capacity = capacity
        # Symbols to fetch, in order of request.
        self._requested: dict[str, None] = {}
        self._in_flight: set[str] = set()
        # Symbols that failed or stayed incomplete, to be fetched again by the next retry.
        self._failed: dict[str, None] = {}
        # Symbols whose last request was not answered.
        self._unanswered: set[str] = set()
        # Per symbol: answers in a row that did not reach back to the window.
        self._join_attempts: dict[str, int] = {}
        # Whether any request of this round was answered.
        self._any_answer = False
        # Whether no request of the last round was answered.
        self._exchange_down = False
        self._work_ready = asyncio.Event()
        self._retry_needed = asyncio.Event()
        self._backoff = Backoff(_RETRY_MIN_S, _RETRY_MAX_S, draw)
        self._outage = Outage(log)
        # How long the exchange has banned this daemon, seconds; 0 for no ban.
        self._ban_s = 0.0
        self._overdue = OverdueCandles(timeframe)

    def set_windows(self, windows: Iterable[Window]) -> None:
        """Fetch for these windows from now on, and for no others."""
        self._windows = {window.symbol: window for window in windows}
        per_symbol: tuple[dict[str, Any], ...] = (
            self._requested,
            self._failed,
            self._join_attempts,
        )
        for entries in per_symbol:
            for symbol in entries.keys() - self._windows.keys():
                del entries[symbol]
        self._unanswered &= self._windows.keys()

    def request(self, symbol: str) -> None:
        """Request a symbol's missing candles; repeated requests count once."""
        if symbol not in self._windows:
            return
        self._requested[symbol] = None
        if not self._exchange_down and symbol not in self._failed:
            self._work_ready.set()

    async def request_overdue(self) -> None:
        """Request overdue candles until cancelled."""
        pause_s = min(_POLL_INTERVAL_S, grace_ms(self._timeframe) / 2e3)
        while True:
            await self._clock.sleep(pause_s)
            for symbol in self._overdue.symbols_due(
                self._windows.values(), self._feed.earliest_ms()
            ):
                self.request(symbol)

    async def run(self) -> None:
        """Serve requests until cancelled; retries slow down while the exchange fails."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._serve(), name="backfill-serve")
            group.create_task(self._retry(), name="backfill-retry")

    async def _serve(self) -> None:
        while True:
            await self._work_ready.wait()
            self._work_ready.clear()
            await self.fetch_requested()

    async def _retry(self) -> None:
        while True:
            await self._retry_needed.wait()
            self._retry_needed.clear()
            await self._clock.sleep(max(self._backoff.next_delay_s(), self._ban_s))
            self._ban_s = 0.0
            self._requested |= self._failed
            self._work_ready.set()

    async def fetch_requested(self) -> None:
        """Fetch what is requested now; what fails or stays incomplete is retried later."""
        self._any_answer = False
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_MAX_CONCURRENT, len(self._requested))):
                group.create_task(self._fetch_until_done())
        # The failure of a single symbol does not mean that the exchange is down.
        self._exchange_down = not self._any_answer and len(self._failed) > 1
        if self._failed:
            self._retry_needed.set()
        else:
            self._backoff.reset()

    async def _fetch_until_done(self) -> None:
        while (symbol := self._take_next()) is not None:
            self._in_flight.add(symbol)
            try:
                complete = await self._fetch(symbol)
            finally:
                self._in_flight.discard(symbol)
            if complete or symbol not in self._windows:
                self._failed.pop(symbol, None)
                continue
            self._failed[symbol] = None
            if not self._any_answer:
                return

    def _take_next(self) -> str | None:
        # A symbol requested again during its own fetch is fetched in the next round.
        symbol = next((s for s in self._requested if s not in self._in_flight), None)
        if symbol is not None:
            del self._requested[symbol]
        return symbol

    async def _fetch(self, symbol: str) -> bool:
        """Fetch one symbol.

        Returns:
            Whether its window has no gap any more.
        """
        window = self._windows[symbol]
        since_ms = self._since_ms(window)
        following_ms = window.next_open_ms
        self._metrics.feed.backfills.inc()
        try:
            candles = await self._feed.history(symbol, since_ms)
        except ExchangeError as error:
            if isinstance(error, Banned):
                self._ban_s = error.seconds
            self._outage.begin("%s; trying again", error)
            self._unanswered.add(symbol)
            return False
        self._any_answer = True
        self._metrics.feed.backfill_candles.inc(len(candles))
        self._unanswered.discard(symbol)
        if not self._unanswered:
            self._outage.end("the exchange's history answers again")
        if len(window) and candles and since_ms < (following_ms or 0) < candles[0].open_ms:
            # The gap would be filled as if nothing had been traded in it.
            self._on_unjoined(window)
            return False
        self._join_attempts.pop(symbol, None)
        self._on_history(symbol, candles)
        return window.gap is None

    def _on_unjoined(self, window: Window) -> None:
        """Count an answer that does not join the window; after some in a row, start it over."""
        attempts = self._join_attempts.pop(window.symbol, 0) + 1
        if attempts < _MAX_JOIN_ATTEMPTS:
            self._join_attempts[window.symbol] = attempts
            return
        log.warning(
            "the exchange's history of %s lacks the candles that follow its window; "
            "the window starts over",
            window.symbol,
        )
        window.start_over()

    def _since_ms(self, window: Window) -> int:
        """First opening time to request: after the window with some overlap, or all of it."""
        frame = self._feed.grid.timeframe
        now_ms = frame.floor(self._clock.wall_ms())
        all_ms = now_ms - (self._capacity + _OVERLAP_CANDLES) * frame.ms
        following_ms = window.next_open_ms
        if following_ms is None or not len(window):
            return all_ms
        since_ms = following_ms - _OVERLAP_CANDLES * frame.ms
        # The exchange must have the first candle that is requested, or nothing shows that its
        # answer joins the window. It has none that was filled here.
        if window.traded_ms is not None:
            since_ms = min(since_ms, window.traded_ms)
        if window.symbol in self._join_attempts:
            # The candles of the overlap may be unusable, so the whole window is requested.
            since_ms = min(since_ms, all_ms)
        # Further back than this the window would start over anyway.
        return since_ms if since_ms > all_ms - self._capacity * frame.ms else all_ms
