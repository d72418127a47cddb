"""A tap on ccxt: candles straight from the exchange's messages, with its own closed flag.

ccxt parses a kline into a cache that has no room for the exchange's "this candle is closed" flag,
and resolves one future a symbol, which costs most of the time of a burst. A subclass made at run
time reads the known exchanges' messages directly; for every other exchange it lets ccxt parse
and listens to the cache that ccxt fills.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Message = dict[str, Any]


class RawCandle(NamedTuple):
    """A candle as the exchange sent it; nothing in it is checked yet.

    Attributes:
        market_id: the exchange's own name of the market.
        open_ms: opening time.
        values: open, high, low, close, volume.
        closed: the exchange's flag; None where it has none.
    """

    market_id: Any
    open_ms: Any
    values: tuple[Any, ...]
    closed: bool | None


class Listener(Protocol):
    """Who receives what the tap reads; called in the message handler, so it must be quick."""

    def on_raw(
        self, symbol: str, open_ms: object, values: tuple[object, ...], *, closed: bool | None
    ) -> None:
        """One update of one candle."""

    def on_garbage(self, error: Exception) -> None:
        """A message that could not be read."""


def read_binance(message: Message) -> Iterable[RawCandle] | None:
    """Read a Binance kline event, raw or from a combined stream; None if it is something else."""
    data = message.get("data", message)
    kline = data.get("k") if isinstance(data, dict) else None
    if kline is None:
        return None
    values = (kline["o"], kline["h"], kline["l"], kline["c"], kline["v"])
    return (RawCandle(kline["s"], kline["t"], values, kline["x"] is True),)


_READERS: dict[str, Callable[[Message], Iterable[RawCandle] | None]] = {
    "binance": read_binance,
    "binanceus": read_binance,
    "binanceusdm": read_binance,
    "binancecoinm": read_binance,
}


def tapped(base: type[Any], listener: Listener) -> type[Any]:
    """Make a subclass of a ccxt.pro exchange class that tells ``listener`` of every candle.

    Args:
        base: the ccxt.pro class.
        listener: receives candles and unreadable messages.

    Returns:
        The subclass. `watch_candles(symbols)` must be called on its instances once the markets
        are loaded.
    """
    reader = _READERS.get(base.__name__)
    body: dict[str, Any] = {"client": _guarded_client(base, listener)}
    if reader is None:
        body |= {"watch_candles": _watch_cache(listener), "handle_ohlcv": _heard(base, listener)}
    else:
        body |= {
            "watch_candles": _name_markets,
            "handle_message": _direct(base, reader, listener),
        }
    return type(base.__name__, (base,), body)


def _name_markets(exchange: Any, symbols: Iterable[str], timeframe: str) -> None:  # noqa: ANN401
    """Remember which of the exchange's market names mean which of our symbols."""
    del timeframe
    exchange.candle_symbols = {exchange.market(symbol)["id"]: symbol for symbol in symbols}


def _direct(
    base: type[Any], reader: Callable[[Message], Iterable[RawCandle] | None], listener: Listener
) -> Callable[..., None]:
    """A `handle_message` that reads candles itself and leaves the rest to ccxt."""

    def handle_message(exchange: Any, client: Any, message: Any) -> None:  # noqa: ANN401
        # An exception would end ccxt's receive loop silently, with the socket open.
        try:
            candles = reader(message) if isinstance(message, dict) else None
            if candles is None:
                base.handle_message(exchange, client, message)
                return
            for raw in candles:
                symbol = exchange.candle_symbols[raw.market_id]
                listener.on_raw(symbol, raw.open_ms, raw.values, closed=raw.closed)
        except Exception as error:  # noqa: BLE001
            listener.on_garbage(error)

    return handle_message


def _heard(base: type[Any], listener: Listener) -> Callable[..., None]:
    """A `handle_ohlcv` that lets ccxt parse, but nothing escape."""

    def handle_ohlcv(exchange: Any, client: Any, message: Any) -> None:  # noqa: ANN401
        try:
            base.handle_ohlcv(exchange, client, message)
        except Exception as error:  # noqa: BLE001
            listener.on_garbage(error)

    return handle_ohlcv


def _watch_cache(listener: Listener) -> Callable[..., None]:
    """Seed ccxt's caches with ones that pass each parsed candle on."""
    from ccxt.async_support.base.ws.cache import ArrayCacheByTimestamp

    class TappedCache(ArrayCacheByTimestamp):  # type: ignore[misc]
        def __init__(self, symbol: str) -> None:
            super().__init__(16)
            self.symbol = symbol

        def append(self, item: list[Any]) -> None:
            super().append(item)
            listener.on_raw(self.symbol, item[0], tuple(item[1:6]), closed=None)

    def watch_candles(exchange: Any, symbols: Iterable[str], timeframe: str) -> None:  # noqa: ANN401
        for symbol in symbols:
            exchange.ohlcvs[symbol] = {timeframe: TappedCache(symbol)}

    return watch_candles


def _guarded_client(base: type[Any], listener: Listener) -> Callable[..., Any]:
    """A `client` whose connections survive frames that cannot be decoded."""

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
        return connection

    return client
