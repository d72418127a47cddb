"""Missing candles, fetched by REST: one budget for the whole daemon."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol

from daemon.candles.closing import grace_ms
from daemon.candles.overdue import Overdue
from daemon.exchange.rate_limits import Banned
from model.core.errors import ExchangeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from daemon.candles.grid import Grid
    from daemon.candles.window import Window
    from daemon.metrics.metrics import Metrics
    from daemon.runtime.clock import Clock
    from model.core.candle import Candle, Timeframe

log = logging.getLogger("candlecast.feed")

_WORKERS = 4
_OVERLAP = 3
"""Closed candles fetched again, so that a late revision of them is seen."""

_BACKOFF_S = (0.5, 15.0)

_JOINING_TRIES = 5
"""So often a history is asked that does not reach back to a window: one answer may lack candles,
but what five in a row lack, the exchange does not keep any more."""

_LOOK_S = 0.5
"""How often to look for candles that should have come; more often where candles are short."""


class History(Protocol):
    """What a backfill needs of the feed."""

    @property
    def grid(self) -> Grid:
        """When its candles begin."""

    def earliest_ms(self) -> int:
        """What the exchange's clock shows at least, Unix milliseconds."""

    async def history(self, symbol: str, since_ms: int) -> list[Candle]:
        """Closed candles that opened at ``since_ms`` or later; ExchangeError if unanswered."""


class Backfill:
    """Fetches the history of symbols whose windows are not whole, each at most once at a time.

    What waits is a set of symbols, so it cannot outgrow their number. A symbol that failed waits
    for the next retry; while the exchange answers nobody, all do, and each retry asks for a few
    symbols only. In a ban nothing is asked until it is over.
    """

    def __init__(
        self,
        feed: History,
        windows: Iterable[Window],
        timeframe: Timeframe,
        clock: Clock,
        metrics: Metrics,
        on_history: Callable[[str, Sequence[Candle]], None],
        capacity: int,
    ) -> None:
        """Prepare; `run` does the fetching.

        Args:
            feed: where history comes from.
            windows: of all symbols.
            timeframe: how long candles are; when they begin, the feed knows.
            clock: the injected clock.
            metrics: counts fetches and failures.
            on_history: receives what was fetched.
            capacity: candles that a window holds.
        """
        self._feed = feed
        self._windows = {window.symbol: window for window in windows}
        self._timeframe = timeframe
        self._clock = clock
        self._metrics = metrics
        self._on_history = on_history
        self._capacity = capacity
        self._wanted: dict[str, None] = {}
        self._under_way: set[str] = set()
        self._failed: dict[str, None] = {}
        self._unanswered: set[str] = set()
        self._unjoined: dict[str, int] = {}
        self._answered = False
        self._down = False
        self._work = asyncio.Event()
        self._trouble = asyncio.Event()
        self._delay = _BACKOFF_S[0]
        self._ban_s = 0.0
        self._overdue = Overdue(timeframe)

    def follow(self, windows: Iterable[Window]) -> None:
        """Take care of these windows from now on, and of no others."""
        self._windows = {window.symbol: window for window in windows}
        bookings: tuple[dict[str, Any], ...] = self._wanted, self._failed, self._unjoined
        for symbols in bookings:
            for symbol in symbols.keys() - self._windows.keys():
                del symbols[symbol]
        self._unanswered &= self._windows.keys()

    def request(self, symbol: str) -> None:
        """Ask for a symbol's missing candles; asking twice is asking once."""
        if symbol not in self._windows:
            return
        self._wanted[symbol] = None
        if not self._down and symbol not in self._failed:
            self._work.set()

    async def ask_for_overdue(self) -> None:
        """Request candles that should have come and have not, until cancelled."""
        pause_s = min(_LOOK_S, grace_ms(self._timeframe) / 2e3)
        while True:
            await self._clock.sleep(pause_s)
            for symbol in self._overdue.due(self._windows.values(), self._feed.earliest_ms()):
                self.request(symbol)

    async def run(self) -> None:
        """Serve requests until cancelled; a failing exchange is asked again ever more slowly."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._serve(), name="backfill-serve")
            group.create_task(self._retry(), name="backfill-retry")

    async def _serve(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            await self.fetch_requested()

    async def _retry(self) -> None:
        while True:
            await self._trouble.wait()
            self._trouble.clear()
            await self._clock.sleep(max(self._delay, self._ban_s))
            self._ban_s = 0.0
            self._delay = min(2 * self._delay, _BACKOFF_S[1])
            self._wanted |= self._failed
            self._work.set()

    async def fetch_requested(self) -> None:
        """Fetch what is asked for now; what fails or stays incomplete is asked for again later."""
        self._answered = False
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_WORKERS, len(self._wanted))):
                group.create_task(self._fetch_wanted())
        # One symbol's trouble says nothing about the exchange.
        self._down = not self._answered and len(self._failed) > 1
        if self._failed:
            self._trouble.set()
        else:
            self._delay = _BACKOFF_S[0]

    async def _fetch_wanted(self) -> None:
        while (symbol := self._next()) is not None:
            self._under_way.add(symbol)
            try:
                whole = await self._fetch(symbol)
            finally:
                self._under_way.discard(symbol)
            if whole or symbol not in self._windows:
                self._failed.pop(symbol, None)
                continue
            self._failed[symbol] = None
            if not self._answered:
                return

    def _next(self) -> str | None:
        # A symbol asked for again during its own fetch has its turn in the next round.
        symbol = next((wanted for wanted in self._wanted if wanted not in self._under_way), None)
        if symbol is not None:
            del self._wanted[symbol]
        return symbol

    async def _fetch(self, symbol: str) -> bool:
        """Fetch one symbol; True when its window has no gap any more."""
        window = self._windows[symbol]
        since_ms = self._since_ms(window)
        following_ms = window.next_open_ms
        self._metrics.feed.backfills.inc()
        try:
            candles = await self._feed.history(symbol, since_ms)
        except ExchangeError as error:
            if isinstance(error, Banned):
                self._ban_s = error.seconds
            if not self._unanswered:
                log.warning("%s; trying again", error)
            self._unanswered.add(symbol)
            return False
        self._answered = True
        self._metrics.feed.backfill_candles.inc(len(candles))
        if symbol in self._unanswered:
            self._unanswered.discard(symbol)
            if not self._unanswered:
                log.info("the exchange's history answers again")
        if len(window) and candles and since_ms < (following_ms or 0) < candles[0].open_ms:
            # The hole would pass for periods without a trade.
            self._note_unjoined(window)
            return False
        self._unjoined.pop(symbol, None)
        self._on_history(symbol, candles)
        return window.gap is None

    def _note_unjoined(self, window: Window) -> None:
        """Note that an answer does not join a window; after some in a row it starts over."""
        tries = self._unjoined.pop(window.symbol, 0) + 1
        if tries < _JOINING_TRIES:
            self._unjoined[window.symbol] = tries
            return
        log.warning(
            "the exchange's history of %s lacks what follows the candles that are known; "
            "its window starts over",
            window.symbol,
        )
        window.start_over()

    def _since_ms(self, window: Window) -> int:
        """From where to ask: what follows the window with some overlap, or all of it."""
        frame = self._feed.grid.timeframe
        now_ms = frame.floor(self._clock.wall_ms())
        all_ms = now_ms - (self._capacity + _OVERLAP) * frame.ms
        following_ms = window.next_open_ms
        if following_ms is None or not len(window):
            return all_ms
        since_ms = following_ms - _OVERLAP * frame.ms
        # The exchange must know the first candle that is asked for, or nothing shows that its
        # answer joins the window; of a filled one it knows nothing.
        if window.traded_ms is not None:
            since_ms = min(since_ms, window.traded_ms)
        if window.symbol in self._unjoined:
            # The candles of the overlap may be unusable, so the whole window is requested.
            since_ms = min(since_ms, all_ms)
        # So far back the window starts over, without a hole being filled.
        return since_ms if since_ms > all_ms - self._capacity * frame.ms else all_ms
