"""One websocket connection of some symbols: subscribed, listened to, replaced when it goes deaf."""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol

from daemon.closing import ClosingRule
from daemon.exchange import make_exchange, network_errors
from daemon.groups import expected
from daemon.tap import tapped
from daemon.vigil import Vigil
from model.errors import BadCandle, ExchangeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.clock import Clock
    from daemon.rest import Rest
    from daemon.source import Source
    from model.candle import Candle

log = logging.getLogger(__name__)

_MAX_SKEW_MS: Final = 1_000
_LOOKS: Final = 10
"""The connection is looked at so often per expected interval."""

_PATIENCE: Final = 1 / 10
"""Of the expected interval: the stream may tell of a trade a little later than REST does."""


class Ear(Protocol):
    """Who is told what comes over a connection; called in the message handler."""

    def on_message(self) -> None:
        """One update of one candle has come."""

    def on_final(self, candle: Candle) -> None:
        """A candle is final."""

    def on_forming(self, candle: Candle) -> None:
        """A candle that has not closed, as it is now."""

    def on_first(self, symbol: str, forming_ms: int) -> None:
        """A symbol is heard for the first time, its forming candle opened at ``forming_ms``."""

    def on_garbage(self, error: Exception) -> None:
        """Something came that cannot be used."""

    def on_bug(self, error: Exception) -> None:
        """One of the above failed."""


class Connection:
    """Candles of some symbols; `run` it once.

    Attributes:
        complete: set when every symbol has been heard of.
        deaf: set when the exchange knows of trades that this connection has not told.
    """

    def __init__(
        self,
        source: Source,
        shard: Sequence[str],
        rest: Rest,
        clock: Clock,
        ear: Ear,
        interval_s: float,
    ) -> None:
        """Prepare; `run` connects.

        Args:
            source: the exchange and the timeframe.
            shard: symbols of one kind, not more than the exchange allows.
            rest: its markets are shared, and it is asked whether silence is suspicious.
            clock: the injected clock.
            ear: told of everything.
            interval_s: how often a symbol should be heard of.
        """
        self.complete = asyncio.Event()
        self.deaf = asyncio.Event()
        self._source = source
        self._shard = shard
        self._rest = rest
        self._clock = clock
        self._ear = ear
        self._closing = ClosingRule(source.timeframe, _MAX_SKEW_MS)
        self._new = set(shard)
        self._interval_s = interval_s
        self._vigil = Vigil(shard, interval_s, clock.monotonic())

    async def run(self) -> None:
        """Subscribe and stay; ends only by raising one of `network_errors` or cancelled."""
        source = self._source
        exchange = make_exchange(
            source.name, source.endpoint_rest, source.endpoint_ws, wrap=lambda c: tapped(c, self)
        )
        # ccxt counts missing pongs by the wall clock, which jumps; the vigil is kept here instead.
        exchange.streaming = exchange.streaming | {"maxPingPongMisses": inf}
        try:
            exchange.set_markets_from_exchange(self._rest.exchange)
            exchange.watch_candles(self._shard, source.timeframe.text)
            async with asyncio.TaskGroup() as group:
                topics = _topics(exchange, self._shard, source.timeframe.text)
                tasks = [group.create_task(_watch(exchange, topic)) for topic in topics]
                tasks.append(group.create_task(self._keep_vigil()))
                await asyncio.wait(tasks)
        except ExceptionGroup as group_error:
            raise expected(group_error, network_errors()) from None
        finally:
            await _close(exchange)

    def on_raw(
        self, symbol: str, open_ms: object, values: tuple[object, ...], *, closed: bool | None
    ) -> None:
        """Take in one update from the tap."""
        try:
            self._take(symbol, open_ms, values, closed=closed)
        except BadCandle as error:
            self._ear.on_garbage(error)
        except Exception as error:  # noqa: BLE001 - the tap would take a bug of ours for garbage
            self._ear.on_bug(error)

    def on_garbage(self, error: Exception) -> None:
        """Take in what the tap could not read."""
        self._ear.on_garbage(error)

    def _take(
        self, symbol: str, open_ms: object, values: tuple[object, ...], *, closed: bool | None
    ) -> None:
        now_ms, now_s = self._clock.wall_ms(), self._clock.monotonic()
        self._ear.on_message()
        final = self._closing.update(
            symbol, open_ms, values, closed=closed, now_ms=now_ms, now_s=now_s
        )
        forming = self._closing.forming(symbol)
        newest = forming or final
        if newest is not None:
            self._vigil.heard(symbol, newest.open_ms, now_s)
        if symbol in self._new and forming is not None:
            self._new.discard(symbol)
            self._ear.on_first(symbol, forming.open_ms)
            if not self._new:
                self.complete.set()
        if final is not None:
            self._ear.on_final(final)
        if forming is not None:
            self._ear.on_forming(forming)

    async def _keep_vigil(self) -> None:
        """Look for suspicious silence until it proves to be deafness."""
        while not self.deaf.is_set():
            await self._clock.sleep(self._interval_s / _LOOKS)
            for symbol in self._vigil.suspects(self._clock.monotonic()):
                if await self._is_deaf_to(symbol):
                    silent_s = self._clock.monotonic() - self._vigil.heard_s(symbol)
                    log.warning("the stream keeps silent about %s since %.0f s", symbol, silent_s)
                    self.deaf.set()
                    break

    async def _is_deaf_to(self, symbol: str) -> bool:
        heard_s = self._vigil.heard_s(symbol)
        try:
            seen = await self._rest.newest(symbol)
        except ExchangeError:
            seen = None
        if not self._vigil.probed(symbol, seen, self._clock.monotonic()):
            return False
        await self._clock.sleep(self._interval_s * _PATIENCE)
        return self._vigil.heard_s(symbol) == heard_s


def _topics(exchange: Any, shard: Sequence[str], timeframe: str) -> list[list[list[str]]]:  # noqa: ANN401
    """How to subscribe: all in one call where the exchange can, else one call a symbol."""
    pairs = [[symbol, timeframe] for symbol in shard]
    return [pairs] if exchange.has.get("watchOHLCVForSymbols") else [[pair] for pair in pairs]


async def _close(exchange: Any) -> None:  # noqa: ANN401
    """Close ccxt's client, all of it, even when cancelled meanwhile."""
    try:
        await exchange.close()
    except asyncio.CancelledError:
        # The goodbye to a peer that does not answer takes seconds. The second attempt does not wait
        # for it; without one the sockets would stay.
        await exchange.close()
        raise


async def _watch(exchange: Any, pairs: list[list[str]]) -> None:  # noqa: ANN401
    """Subscribe and stay subscribed; what arrives goes through the tap, not through here."""
    while True:
        if exchange.has.get("watchOHLCVForSymbols"):
            await exchange.watch_ohlcv_for_symbols(pairs)
        else:
            await exchange.watch_ohlcv(*pairs[0])
