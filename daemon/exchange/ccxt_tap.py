"""Read candles from ccxt's websocket messages, with the exchange's closed flag.

ccxt parses a candle into a cache without the closed flag and resolves a future for each symbol. Its
handler takes 11.3 µs a closing candle, against 0.99 µs here (docs/performance.md). A subclass made
at run time parses the messages of known exchanges itself. For every other exchange ccxt parses, and
the subclass takes the candles that ccxt resolves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Protocol

from daemon.exchange.ccxt_client import network_errors
from daemon.exchange.message_parsers import CLOSED_FLAGS, MESSAGE_PARSERS, Channel, MarketRefused
from daemon.exchange.resolved_candles import (
    StoreIndex,
    Subscription,
    parse_resolved,
    symbols_by_name,
)
from daemon.exchange.volume_units import volume_corrections
from daemon.runtime.tasks import unwrap_expected

if TYPE_CHECKING:
    from daemon.exchange.message_parsers import MessageParser
    from daemon.exchange.resolved_candles import ResolvedCandles, Row


_BYBIT_BATCH: Final = 10
"""Symbols that one subscription of Bybit's spot accepts."""


class CandleListener(Protocol):
    """Receives candles; called in the message handler, so it must be quick."""

    def on_raw(
        self, symbol: str, open_ms: object, values: tuple[object, ...], *, closed: bool | None
    ) -> None:
        """Receive one update of one candle, unchecked."""

    def on_unusable_message(self, error: Exception) -> None:
        """Receive the error of a message that could not be read."""

    async def wait_turn(self, cost: float | None = None) -> None:
        """Wait until the next subscription may be requested."""


def tapped_class(base: type[Any], listener: CandleListener) -> type[Any]:
    """Make a subclass of a ccxt.pro exchange class that passes every candle to ``listener``.

    Args:
        base: the ccxt.pro class.
        listener: receives candles and unreadable messages.

    Returns:
        The subclass. `watch_candles(symbols)` must be called on its instances once the markets
        are loaded.
    """
    parser = MESSAGE_PARSERS.get(base.__name__)
    body: dict[str, Any] = {"client": _client_method(base, listener)}
    if parser is None:
        body |= {
            "watch_candles": _watch_resolved(listener),
            "handle_message": _ccxt_handler(base, listener),
        }
        body |= volume_corrections(base)
    else:
        body |= {
            "watch_candles": _watch_direct(base, parser),
            "handle_message": _direct_handler(base, parser, listener),
        }
        if (watch := _WATCH_MANY.get(base.__name__)) is not None:
            body["watch_ohlcv_for_symbols"] = watch(base)
    return type(base.__name__, (base,), body)


def _watch_direct(base: type[Any], parser: MessageParser) -> Callable[..., None]:
    """Make a `watch_candles` that stores the subscription in the exchange's names."""

    def watch_candles(exchange: Any, symbols: Iterable[str], timeframe: str) -> None:  # noqa: ANN401
        exchange.timeframes = exchange.timeframes | parser.intervals
        if base.__name__ in _WATCH_MANY:
            exchange.has = exchange.has | {"watchOHLCVForSymbols": True}
        markets = [exchange.market(symbol) for symbol in symbols]
        exchange.candle_channel = Channel(
            str(exchange.timeframes[timeframe]),
            {market[parser.market_field]: market["symbol"] for market in markets},
            contract=any(market.get("contract") for market in markets),
            inverse=any(market.get("inverse") for market in markets),
        )

    return watch_candles


def _subscribe_in_portions(base: type[Any]) -> Callable[..., Any]:
    """Make a `watch_ohlcv_for_symbols` that subscribes to ten symbols at a time.

    Bybit's spot accepts no more, and ccxt requests all of them at once.
    """

    async def watch_ohlcv_for_symbols(exchange: Any, pairs: list[list[str]]) -> None:  # noqa: ANN401
        try:
            async with asyncio.TaskGroup() as group:
                portions = [
                    pairs[at : at + _BYBIT_BATCH] for at in range(0, len(pairs), _BYBIT_BATCH)
                ]
                subscribe = base.watch_ohlcv_for_symbols
                await asyncio.wait([group.create_task(subscribe(exchange, p)) for p in portions])
        except ExceptionGroup as group_error:
            raise unwrap_expected(group_error, network_errors()) from None

    return watch_ohlcv_for_symbols


def _subscribe_together(base: type[Any]) -> Callable[..., Any]:
    """Make the `watch_ohlcv_for_symbols` that ccxt's Kraken lacks.

    ccxt subscribes to one symbol at a time, with a second between two requests.
    """
    del base

    async def watch_ohlcv_for_symbols(exchange: Any, pairs: list[list[str]]) -> None:  # noqa: ANN401
        interval = exchange.timeframes[pairs[0][1]]
        symbols = [symbol for symbol, _ in pairs]
        await exchange.watch_multi_helper("ohlcv", "ohlc", symbols, None, {"interval": interval})

    return watch_ohlcv_for_symbols


_WATCH_MANY: Final[dict[str, Callable[[type[Any]], Callable[..., Any]]]] = {
    "bybit": _subscribe_in_portions,
    "bybiteu": _subscribe_in_portions,
    "bybitid": _subscribe_in_portions,
    "kraken": _subscribe_together,
}
"""Subscriptions to many symbols for exchanges on which ccxt's own one fails or is slow."""


def _direct_handler(
    base: type[Any], parser: MessageParser, listener: CandleListener
) -> Callable[..., None]:
    """Make a `handle_message` that parses candles and leaves other messages to ccxt."""
    import ccxt

    def handle_message(exchange: Any, client: Any, message: Any) -> None:  # noqa: ANN401
        # An exception would end ccxt's receive loop silently, with the socket open.
        try:
            channel = exchange.candle_channel
            candles = parser.parse(message, channel) if isinstance(message, dict) else None
            if candles is None:
                base.handle_message(exchange, client, message)
                return
            for raw in candles:
                symbol = channel.symbols[raw.market_id]
                listener.on_raw(symbol, raw.open_ms, raw.values, closed=raw.closed)
        except MarketRefused as error:
            # ccxt would drop it, and the missing market would not be noticed.
            client.reject(ccxt.ExchangeError(str(error)))
        except Exception as error:  # noqa: BLE001
            listener.on_unusable_message(error)

    return handle_message


class _ParsedCandles:
    """Passes the candles that ccxt has parsed to a listener, message by message.

    The first message about a symbol may hold past candles. Only its newest row is passed on: a past
    candle must not be taken for one that has just closed.
    """

    def __init__(self, exchange: Any, subscription: Subscription, listener: CandleListener) -> None:  # noqa: ANN401
        self._exchange = exchange
        self._subscription = subscription
        self._listener = listener
        self._index = StoreIndex()
        # Candles of the current message, by the identity of their list.
        self._resolved: dict[int, ResolvedCandles] = {}
        # Symbols whose first message has been handled.
        self._primed: set[str] = set()

    def note(self, value: object, message_hash: object) -> None:
        """Keep a resolved value until its message has been handled."""
        found = parse_resolved(
            value, message_hash, self._index, self._exchange.ohlcvs, self._subscription
        )
        if found is not None:
            self._resolved[id(found.rows)] = found

    def report(self, flag: Callable[[], bool | None]) -> None:
        """Pass on the candles of the message that has been handled.

        Args:
            flag: returns whether the newest of them is closed; None without a closed flag.
        """
        resolved, self._resolved = self._resolved, {}
        for found in resolved.values():
            rows = [tuple(row) for row in found.rows]
            # Emptied, the list holds only the rows of the next message; ccxt does not read it.
            found.rows.clear()
            try:
                market = self._exchange.markets.get(found.symbol, {})
                self._report_rows(self._subscription.check(found, market.get("id")), rows, flag())
            except Exception as error:  # noqa: BLE001 - see `_direct_handler`
                self._listener.on_unusable_message(error)

    def _report_rows(self, symbol: str, rows: list[Row], closed: bool | None) -> None:  # noqa: FBT001
        rows.sort(key=itemgetter(0))
        if symbol not in self._primed:
            del rows[:-1]
            self._primed.update([symbol] if rows else [])
        for row in rows:
            flag = closed if row is rows[-1] else None
            self._listener.on_raw(symbol, row[0], row[1:6], closed=flag)


def _ccxt_handler(base: type[Any], listener: CandleListener) -> Callable[..., None]:
    """Make a `handle_message` that lets ccxt parse and catches its errors."""
    flag = CLOSED_FLAGS.get(base.__name__, _without_flag)

    def handle_message(exchange: Any, client: Any, message: Any) -> None:  # noqa: ANN401
        parsed = exchange.parsed_candles
        if "resolve" not in vars(client):
            client.resolve = _resolve_and_note(client.resolve, parsed)
        try:
            try:
                base.handle_message(exchange, client, message)
            finally:
                parsed.report(lambda: flag(message))
        except Exception as error:  # noqa: BLE001 - see `_direct_handler`
            listener.on_unusable_message(error)

    return handle_message


def _resolve_and_note(resolve: Callable[..., Any], parsed: _ParsedCandles) -> Callable[..., Any]:
    """Make a `resolve` of a client that also notes candles."""

    def resolve_and_note(value: Any, message_hash: Any = None) -> Any:  # noqa: ANN401
        parsed.note(value, message_hash)
        return resolve(value, message_hash)

    return resolve_and_note


def _without_flag(message: object) -> None:
    """Return None: the exchange sends no closed flag."""
    del message


def _watch_resolved(listener: CandleListener) -> Callable[..., None]:
    """Make a `watch_candles` that takes the candles that ccxt resolves."""

    def watch_candles(exchange: Any, symbols: Iterable[str], timeframe: str) -> None:  # noqa: ANN401
        names = symbols_by_name([exchange.market(symbol) for symbol in symbols])
        subscription = Subscription(names, timeframe, exchange.timeframes or {})
        exchange.parsed_candles = _ParsedCandles(exchange, subscription, listener)

    return watch_candles


def _client_method(base: type[Any], listener: CandleListener) -> Callable[..., Any]:
    """Make a `client` whose connections use our pace and survive frames that cannot be decoded."""

    def client(exchange: Any, url: str) -> Any:  # noqa: ANN401
        connection = base.client(exchange, url)
        if "handle_message" not in vars(connection):
            handle = connection.handle_message

            def handle_message(frame: Any) -> None:  # noqa: ANN401
                try:
                    handle(frame)
                except Exception as error:  # noqa: BLE001 - see `_direct_handler`
                    listener.on_unusable_message(error)

            connection.handle_message = handle_message
            connection.throttle = listener.wait_turn
        return connection

    return client
