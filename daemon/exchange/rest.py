"""The exchange by REST: markets, history, the time; one client, one budget, no word in a ban."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from daemon.candles.closing import newest_traded, quiet_until_ms, read_rest, without_holes
from daemon.candles.grid import Grid
from daemon.exchange.capabilities import check_offer
from daemon.exchange.ccxt_client import check_market, exchange_error, make_exchange, network_errors
from daemon.exchange.exchange_clock import ExchangeClock, Reading
from daemon.exchange.rate_limits import BANNING, Banned, BanTimer, ban_s
from daemon.exchange.request_pacer import RequestPacer
from daemon.runtime.forward_proxy import note_proxies
from model.core.candle import EARLIEST_MS, LATEST_MS
from model.core.errors import BadCandle, ExchangeError, NotOffered

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from daemon.candles.closing import Answer, LastTrade
    from daemon.exchange.source import MarketSource
    from daemon.metrics.metrics import Metrics
    from model.core.candle import Candle

log = logging.getLogger("candlecast.exchange")

_PAGE: Final = 1000
_HOLE_ROWS: Final = 200
"""How far to step over an empty page: less than any exchange's page, so that nothing is missed."""

_UNREADABLE: Final = (TypeError, ValueError, LookupError, AttributeError)
"""What comes out of ccxt for an answer of another shape than it expects."""

_NEWEST: Final = 3
"""Candles asked for to see whether anything was traded lately."""

_READINGS: Final = 3
_MEASURE_S: Final = 180.0
_RETRY_S: Final = 10.0
_LOOK_S: Final = 2.0
_OFF_S: Final = 1.0
"""A wall clock that is off by more is worth a line in the log."""


class RestClient:
    """What is asked of the exchange by request and answer.

    Attributes:
        grid: when the exchange's candles begin, as far as they have shown it.
    """

    def __init__(
        self,
        source: MarketSource,
        clock: ExchangeClock,
        metrics: Metrics,
        on_garbage: Callable[[Exception], None],
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            source: exchange, symbols and timeframe.
            clock: learns the exchange's time.
            metrics: bans and the state of the clock.
            on_garbage: told of what cannot be true.
        """
        self._source = source
        self.grid: Final = Grid(source.name, source.timeframe)
        self._clock = clock
        self._metrics = metrics
        self._on_garbage = on_garbage
        self._bans = BanTimer()
        self._pace = RequestPacer(0.0)
        self._timing = 0.0, 0.0
        self._trusted: bool | None = None
        self._off = False
        self.exchange: Any = None

    async def open(self) -> None:
        """Load the exchange's markets, check that it can do what is asked, ask for the time.

        Its newest candles show when its weeks, days and other candles begin. While it has none,
        or does not answer that, the usual grid is assumed.

        A ban is waited for: to end and be started again would be to ask again within it.

        Raises:
            ExchangeError: unreachable, or without the symbol, timeframe or candle stream.
        """
        source = self._source
        self.exchange = make_exchange(
            source.name,
            source.endpoint_rest,
            source.endpoint_ws,
            symbols=source.symbols,
            wrap=lambda base: rate_limited(base, self),
        )
        self._pace = RequestPacer(self.exchange.rateLimit / 1e3)
        check_offer(self.exchange, source.symbols, source.timeframe.text, ability="watchOHLCV")
        note_proxies(self.exchange)
        await self._load_markets(self.exchange)
        check_market(self.exchange, source.symbols, source.timeframe.text, ability="watchOHLCV")
        await self.measure()
        try:
            await self.grid.learn(self._rows, source.symbols, self._clock.wall_ms())
        except NotOffered:
            raise
        except ExchangeError as error:
            log.warning("%s; it is not known yet when its candles begin", error)

    async def know(self, symbols: Sequence[str]) -> None:
        """Check that the exchange offers further symbols, loading its markets anew if need be.

        Raises:
            ExchangeError: unreachable, or without one of them.
        """
        source = self._source
        if any(symbol not in self.exchange.markets for symbol in symbols):
            # New listings, or of a kind that was not loaded.
            fresh = make_exchange(
                source.name,
                source.endpoint_rest,
                source.endpoint_ws,
                symbols=(*source.symbols, *symbols),
                wrap=lambda base: rate_limited(base, self),
            )
            try:
                await self._load_markets(fresh)
                # What is not listed any more is watched until somebody takes it out.
                for name in ("markets", "markets_by_id"):
                    known = getattr(self.exchange, name)
                    setattr(fresh, name, {**known, **getattr(fresh, name)})
                self.exchange.set_markets_from_exchange(fresh)
            finally:
                await fresh.close()
        check_market(self.exchange, symbols, source.timeframe.text, ability="watchOHLCV")

    async def _load_markets(self, exchange: Any) -> None:  # noqa: ANN401 - ccxt's
        while True:
            try:
                await exchange.load_markets()
            except Banned as ban:
                await self._clock.sleep(ban.seconds)
            except network_errors() as error:
                raise exchange_error(self._source.name, "loading its markets", error) from None
            else:
                return

    async def close(self) -> None:
        """Close the client."""
        if self.exchange is not None:
            await self.exchange.close()

    def earliest_ms(self) -> int:
        """The exchange's clock shows at least this, or as best known while it is not trusted."""
        known_ms = self._clock.earliest_ms()
        return self._clock.wall_ms() if known_ms is None else known_ms

    async def history(self, symbol: str, since_ms: int) -> list[Candle]:
        """Fetch the closed candles of a symbol that opened at ``since_ms`` or later.

        Periods that the exchange leaves out because nothing was traded are filled, and so are those
        of which it tells, twice, nothing but what cannot be true. Every such row is counted.

        Raises:
            ExchangeError: the exchange did not answer.
        """
        candles: list[Candle] = []
        while True:
            answer, earliest_ms, arrived_ms = await self._confirmed(symbol, since_ms)
            frame = self.grid.timeframe
            fresh = [candle for candle in answer.final if candle.open_ms >= since_ms]
            candles += fresh
            doubtful_ms = [at for at in answer.unusable if candles and at > candles[0].open_ms]
            if doubtful_ms:
                sure = [candle for candle in candles if candle.open_ms < min(doubtful_ms)]
                return without_holes(sure, None, frame)
            # How long a page may be is the exchange's affair: a short one need not be the last.
            since_ms = fresh[-1].close_ms if fresh else since_ms + _HOLE_ROWS * frame.ms
            if since_ms + frame.ms > (arrived_ms if earliest_ms is None else earliest_ms):
                until_ms = quiet_until_ms(answer.pending_ms, frame, earliest_ms)
                return without_holes(candles, until_ms, frame)

    async def _confirmed(self, symbol: str, since_ms: int) -> tuple[Answer, int | None, int]:
        """A page of history; what of it cannot be used is asked for once more.

        Returns:
            The answer, ``unusable`` being what only the second one held; what the exchange's clock
            showed at least when it was asked; and the wall clock when it came.
        """
        answer, earliest_ms, arrived_ms = await self._answer(symbol, since_ms)
        if answer.unusable:
            before = answer.unusable
            answer, earliest_ms, arrived_ms = await self._answer(symbol, since_ms)
            answer = answer._replace(unusable=answer.unusable - before)
        return answer, earliest_ms, arrived_ms

    async def _answer(self, symbol: str, since_ms: int) -> tuple[Answer, int | None, int]:
        earliest_ms = self._clock.earliest_ms()
        rows = await self._rows(symbol, since_ms, _PAGE)
        self.grid.take(rows)
        arrived = self._clock.wall_ms(), self._clock.monotonic()
        answer = read_rest(symbol, rows, self.grid.timeframe, earliest_ms, arrived)
        for reason in answer.impossible:
            self._on_garbage(reason)
        return answer, earliest_ms, arrived[0]

    async def newest(self, symbol: str) -> LastTrade | None:
        """Opening time and volume of the newest candle that has trades; None if there is none.

        Raises:
            ExchangeError: the exchange did not answer.
        """
        frame = self.grid.timeframe
        since_ms = frame.floor(self._clock.wall_ms()) - frame.ms
        rows = await self._rows(symbol, since_ms, _NEWEST)
        return newest_traded(rows, frame, self._clock.wall_ms())

    async def _rows(self, symbol: str, since_ms: int, limit: int) -> Sequence[Sequence[Any]]:
        name, doing = self._source.name, f"fetching {symbol} candles"
        try:
            rows: Sequence[Sequence[Any]] = await self.exchange.fetch_ohlcv(
                symbol, self._source.timeframe.text, since_ms, limit
            )
        except network_errors() as error:
            raise exchange_error(name, doing, error) from None
        except _UNREADABLE as error:
            self._on_garbage(error)
            msg = f"{name}: {doing}: the answer cannot be read ({error!r})"
            raise ExchangeError(msg) from None
        return rows

    async def keep_time(self) -> None:
        """Ask the exchange for the time every few minutes, and at once when a clock jumped."""
        due_s = self._clock.monotonic() + _MEASURE_S
        while True:
            await self._clock.sleep(_LOOK_S)
            now_s = self._clock.monotonic()
            if now_s >= due_s or (self._clock.jumped and now_s >= due_s - _MEASURE_S + _RETRY_S):
                due_s = now_s + (_MEASURE_S if await self.measure() else _RETRY_S)
            self._show_time()

    async def measure(self) -> bool:
        """Ask the exchange for the time; whether it told."""
        if not self.exchange.has.get("fetchTime"):
            if self._trusted is None:
                log.warning("%s does not tell its time", self._source.name)
            self._show_time()
            return False
        told = True
        for _ in range(_READINGS):
            told = told and await self._read_time()
        self._show_time()
        return told

    async def _read_time(self) -> bool:
        try:
            exchange_ms = await self.exchange.fetch_time()
        except network_errors():
            return False
        except (Banned, *_UNREADABLE):
            return False
        if isinstance(exchange_ms, int) and EARLIEST_MS < exchange_ms < LATEST_MS:
            self._clock.take(Reading(*self._timing, exchange_ms))
            return True
        self._on_garbage(BadCandle(f"the exchange's time is said to be {exchange_ms!r}"))
        return False

    def _show_time(self) -> None:
        clock, metrics, name = self._clock, self._metrics, self._source.name
        trusted = clock.trusted
        metrics.clock.trusted.set(trusted)
        if clock.measured:
            metrics.clock.offset.set(clock.offset_s)
            metrics.clock.error.set(clock.error_ms / 1e3)
        if trusted != self._trusted:
            self._trusted = trusted
            if trusted:
                log.info("the time of %s is known to %.0f ms", name, clock.error_ms)
            else:
                log.warning("the time of %s is not known: no candle is closed by it", name)
        off = clock.measured and abs(clock.offset_s) > _OFF_S
        if off != self._off:
            self._off = off
            told = "%s is %.1f s ahead of this machine's clock%s"
            log.warning(told, name, clock.offset_s, "; its time is used" if off else ", as it was")

    async def _turn(self, cost: float | None) -> None:
        """Wait for this request's turn."""
        if wait_s := self._pace.wait_s(self._clock.monotonic(), cost):
            await self._clock.sleep(wait_s)

    def _check_ban(self) -> float:
        """The time of sending a request.

        Raises:
            Banned: it must not be sent.
        """
        if left_s := self.ban_left_s():
            raise Banned(self._source.name, left_s)
        return self._clock.monotonic()

    @property
    def pause_s(self) -> float:
        """Between two requests of ordinary cost, as ccxt knows the exchange's limit, seconds."""
        return self._pace.pause_s

    def ban_left_s(self) -> float:
        """Seconds until the exchange may be asked; 0 when it may now."""
        return self._bans.left_s(self._clock.monotonic())

    def _answered(self, sent_s: float) -> None:
        self._timing = sent_s, self._clock.monotonic()

    def note_ban(self, headers: Mapping[str, Any], body: str) -> Banned:
        """Ask nothing for as long as an answer with one of the `BANNING` codes demands."""
        seconds = ban_s(headers or {}, body or "", self._clock.wall_ms())
        self._bans.begin(seconds, self._clock.monotonic())
        self._metrics.feed.bans.inc()
        self._metrics.feed.ban_end.set(self._clock.wall_ms() / 1e3 + seconds)
        ban = Banned(self._source.name, seconds)
        log.warning("%s", ban)
        return ban


def rate_limited(base: type[Any], rest: RestClient) -> type[Any]:
    """Make a subclass of a ccxt class that keeps to the budget and to bans."""
    import ccxt

    async def throttle(_exchange: Any, cost: float | None = None) -> None:  # noqa: ANN401
        await rest._turn(cost)  # noqa: SLF001 - one thing in two classes

    async def fetch(exchange: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        sent_s = rest._check_ban()  # noqa: SLF001
        answer = await base.fetch(exchange, *args, **kwargs)
        rest._answered(sent_s)  # noqa: SLF001
        return answer

    def handle_errors(exchange: Any, code: int, *details: Any) -> Any:  # noqa: ANN401
        headers, body = details[3], details[4]
        if code in BANNING:
            raise rest.note_ban(headers, body)
        try:
            return base.handle_errors(exchange, code, *details)
        except (ccxt.DDoSProtection, ccxt.RateLimitExceeded):
            raise rest.note_ban(headers, body) from None

    body = {"throttle": throttle, "fetch": fetch, "handle_errors": handle_errors}
    return type(base.__name__, (base,), body)
