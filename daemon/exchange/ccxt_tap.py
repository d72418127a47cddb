"""A tap on ccxt: candles straight from the exchange's messages, with its own closed flag.

ccxt parses a kline into a cache that has no room for the exchange's "this candle is closed" flag,
and resolves one future a symbol, which costs most of the time of a burst. A subclass made at run
time reads the known exchanges' messages directly; for every other exchange it lets ccxt parse
and listens to what ccxt resolves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Protocol

from daemon.exchange.ccxt_client import network_errors
from daemon.exchange.message_parsers import FLAGS, MESSAGE_PARSERS, Channel, RefusedMarket
from daemon.exchange.resolved_candles import Asked, Places, names_of, read_resolved
from daemon.exchange.volume_units import corrections
from daemon.runtime.tasks import unwrap_expected

if TYPE_CHECKING:
    from daemon.exchange.message_parsers import MessageParser
    from daemon.exchange.resolved_candles import Resolved, Row


class Listener(Protocol):
    """Who receives what the tap reads; called in the message handler, so it must be quick."""

    def on_raw(
        self, symbol: str, open_ms: object, values: tuple[object, ...], *, closed: bool | None
    ) -> None:
        """One update of one candle."""

    def on_garbage(self, error: Exception) -> None:
        """A message that could not be read."""

    async def turn(self, cost: float | None = None) -> None:
        """Wait until the next request may be sent."""


def tapped(base: type[Any], listener: Listener) -> type[Any]:
    """Make a subclass of a ccxt.pro exchange class that tells ``listener`` of every candle.

    Args:
        base: the ccxt.pro class.
        listener: receives candles and unreadable messages.

    Returns:
        The subclass. `watch_candles(symbols)` must be called on its instances once the markets
        are loaded.
    """
    reader = MESSAGE_PARSERS.get(base.__name__)
    body: dict[str, Any] = {"client": _guarded_client(base, listener)}
    if reader is None:
        body |= {
            "watch_candles": _watch_resolved(listener),
            "handle_message": _parsed(base, listener),
        }
        body |= corrections(base)
    else:
        body |= {
            "watch_candles": _open_channel(base, reader),
            "handle_message": _direct(base, reader, listener),
        }
        if (watch := _WATCH_MANY.get(base.__name__)) is not None:
            body["watch_ohlcv_for_symbols"] = watch(base)
    return type(base.__name__, (base,), body)


def _open_channel(base: type[Any], reader: MessageParser) -> Callable[..., None]:
    """A `watch_candles` that remembers what was asked for, in the exchange's own words."""

    def watch_candles(exchange: Any, symbols: Iterable[str], timeframe: str) -> None:  # noqa: ANN401
        exchange.timeframes = exchange.timeframes | reader.intervals
        if base.__name__ in _WATCH_MANY:
            exchange.has = exchange.has | {"watchOHLCVForSymbols": True}
        markets = [exchange.market(symbol) for symbol in symbols]
        exchange.candle_channel = Channel(
            str(exchange.timeframes[timeframe]),
            {market[reader.named_by]: market["symbol"] for market in markets},
            contract=any(market.get("contract") for market in markets),
            inverse=any(market.get("inverse") for market in markets),
        )

    return watch_candles


def _in_portions(base: type[Any]) -> Callable[..., Any]:
    """A `watch_ohlcv_for_symbols` that asks for ten symbols at a time: Bybit's spot takes no more.

    ccxt asks for all of them at once.
    """

    async def watch_ohlcv_for_symbols(exchange: Any, pairs: list[list[str]]) -> None:  # noqa: ANN401
        try:
            async with asyncio.TaskGroup() as group:
                portions = [pairs[at : at + 10] for at in range(0, len(pairs), 10)]
                ask = base.watch_ohlcv_for_symbols
                await asyncio.wait([group.create_task(ask(exchange, p)) for p in portions])
        except ExceptionGroup as group_error:
            raise unwrap_expected(group_error, network_errors()) from None

    return watch_ohlcv_for_symbols


def _at_once(base: type[Any]) -> Callable[..., Any]:
    """The `watch_ohlcv_for_symbols` that ccxt's Kraken lacks.

    It can ask for one symbol at a time only, and lets a second pass between two requests.
    """
    del base

    async def watch_ohlcv_for_symbols(exchange: Any, pairs: list[list[str]]) -> None:  # noqa: ANN401
        interval = exchange.timeframes[pairs[0][1]]
        symbols = [symbol for symbol, _ in pairs]
        await exchange.watch_multi_helper("ohlcv", "ohlc", symbols, None, {"interval": interval})

    return watch_ohlcv_for_symbols


_WATCH_MANY: Final[dict[str, Callable[[type[Any]], Callable[..., Any]]]] = {
    "bybit": _in_portions,
    "bybiteu": _in_portions,
    "bybitid": _in_portions,
    "kraken": _at_once,
}
"""How to subscribe to many symbols where ccxt's own way does not do."""


def _direct(base: type[Any], reader: MessageParser, listener: Listener) -> Callable[..., None]:
    """A `handle_message` that reads candles itself and leaves the rest to ccxt."""
    import ccxt

    def handle_message(exchange: Any, client: Any, message: Any) -> None:  # noqa: ANN401
        # An exception would end ccxt's receive loop silently, with the socket open.
        try:
            channel = exchange.candle_channel
            candles = reader.read(message, channel) if isinstance(message, dict) else None
            if candles is None:
                base.handle_message(exchange, client, message)
                return
            for raw in candles:
                symbol = channel.symbols[raw.market_id]
                listener.on_raw(symbol, raw.open_ms, raw.values, closed=raw.closed)
        except RefusedMarket as error:
            # ccxt would hand it to nobody, and the market would stay silent unnoticed.
            client.reject(ccxt.ExchangeError(str(error)))
        except Exception as error:  # noqa: BLE001
            listener.on_garbage(error)

    return handle_message


class _Parsed:
    """Rows that ccxt has parsed, told to a listener message by message.

    What a connection says first of a symbol may be a piece of its past: of that, only the newest
    row is told, so that nothing old can pass for a candle that has just closed.
    """

    def __init__(self, exchange: Any, asked: Asked, listener: Listener) -> None:  # noqa: ANN401
        self._exchange = exchange
        self._asked = asked
        self._listener = listener
        self._places = Places()
        self._resolved: dict[int, Resolved] = {}
        self._primed: set[str] = set()

    def note(self, value: object, message_hash: object) -> None:
        """Keep what ccxt resolves until its message ends."""
        found = read_resolved(value, message_hash, self._places, self._exchange.ohlcvs, self._asked)
        if found is not None:
            self._resolved[id(found.rows)] = found

    def tell(self, flag: Callable[[], bool | None]) -> None:
        """Pass on the candles of the message that has ended.

        Args:
            flag: says whether the newest of them is closed; None: the exchange does not say.
        """
        resolved, self._resolved = self._resolved, {}
        for found in resolved.values():
            rows = [tuple(row) for row in found.rows]
            # What is left are the rows of the next message. Nobody else reads them.
            found.rows.clear()
            try:
                market = self._exchange.markets.get(found.symbol, {})
                self._tell_rows(self._asked.check(found, market.get("id")), rows, flag())
            except Exception as error:  # noqa: BLE001 - see `_direct`
                self._listener.on_garbage(error)

    def _tell_rows(self, symbol: str, rows: list[Row], closed: bool | None) -> None:  # noqa: FBT001
        rows.sort(key=itemgetter(0))
        if symbol not in self._primed:
            del rows[:-1]
            self._primed.update([symbol] if rows else [])
        for row in rows:
            flag = closed if row is rows[-1] else None
            self._listener.on_raw(symbol, row[0], row[1:6], closed=flag)


def _parsed(base: type[Any], listener: Listener) -> Callable[..., None]:
    """A `handle_message` that lets ccxt parse, but nothing escape."""
    flag = FLAGS.get(base.__name__, _no_flag)

    def handle_message(exchange: Any, client: Any, message: Any) -> None:  # noqa: ANN401
        parsed = exchange.candles_parsed
        if "resolve" not in vars(client):
            client.resolve = _heard(client.resolve, parsed)
        try:
            try:
                base.handle_message(exchange, client, message)
            finally:
                parsed.tell(lambda: flag(message))
        except Exception as error:  # noqa: BLE001 - see `_direct`
            listener.on_garbage(error)

    return handle_message


def _heard(resolve: Callable[..., Any], parsed: _Parsed) -> Callable[..., Any]:
    """A `resolve` that also notes candles."""

    def heard(value: Any, message_hash: Any = None) -> Any:  # noqa: ANN401
        parsed.note(value, message_hash)
        return resolve(value, message_hash)

    return heard


def _no_flag(message: object) -> None:
    """Of an exchange that does not say when a candle is closed."""
    del message


def _watch_resolved(listener: Listener) -> Callable[..., None]:
    """A `watch_candles` that listens to what ccxt resolves."""

    def watch_candles(exchange: Any, symbols: Iterable[str], timeframe: str) -> None:  # noqa: ANN401
        names = names_of([exchange.market(symbol) for symbol in symbols])
        asked = Asked(names, timeframe, exchange.timeframes or {})
        exchange.candles_parsed = _Parsed(exchange, asked, listener)

    return watch_candles


def _guarded_client(base: type[Any], listener: Listener) -> Callable[..., Any]:
    """A `client` whose connections keep to our pace and survive frames that cannot be decoded."""

    def client(exchange: Any, url: str) -> Any:  # noqa: ANN401
        connection = base.client(exchange, url)
        if "handle_message" not in vars(connection):
            handle = connection.handle_message

            def handle_message(frame: Any) -> None:  # noqa: ANN401
                try:
                    handle(frame)
                except Exception as error:  # noqa: BLE001 - see `_direct`
                    listener.on_garbage(error)

            connection.handle_message = handle_message
            connection.throttle = listener.turn
        return connection

    return client
