"""Extract candles from the values that ccxt resolves, in all their shapes. No I/O.

ccxt parses a candle message, stores the rows, and resolves the future of the subscription. Where it
stores them differs by exchange: under the symbol, under the symbol and the exchange's name of the
timeframe, in a new cache for each message, or nowhere. The resolved value differs too: the cache,
the cache with its symbol and timeframe, or the row. One `watch_ohlcv` task per symbol, ccxt's
own way, took 41 ms for 1,000 closing candles; a subclass that takes them in the handler took 2 ms.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from model.core.errors import BadCandle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Row = tuple[Any, ...]
"""Opening time (Unix ms), open, high, low, close, volume, as ccxt has parsed them."""


class ResolvedCandles(NamedTuple):
    """Candles of one market, from a value that ccxt resolved.

    Attributes:
        symbol: of the market, as ccxt calls it.
        timeframe: under which ccxt stores them; None if unknown.
        rows: the list or cache in which ccxt stores them.
    """

    symbol: str
    timeframe: str | None
    rows: list[Any]


class Subscription(NamedTuple):
    """The candles that a connection watches.

    Attributes:
        symbols: ccxt symbols by each name of the market. All are of one kind: a name that a spot
            and a swap market share means the watched one.
        timeframe: ccxt timeframe.
        timeframes: the exchange's names of timeframes by ccxt's.
    """

    symbols: Mapping[str, str]
    timeframe: str
    timeframes: Mapping[str | None, Any]

    def check(self, found: ResolvedCandles, market_id: object) -> str:
        """Check that candles are of a watched market and timeframe.

        Args:
            found: the candles.
            market_id: the exchange's name of ``found.symbol``; None if there is no such market.

        Returns:
            The watched symbol.

        Raises:
            BadCandle: they are not.
        """
        symbol = self.symbols.get(found.symbol) or self.symbols.get(str(market_id))
        if symbol is None:
            msg = f"candle of {found.symbol}, which is not watched"
            raise BadCandle(msg)
        named = self.timeframes.get(found.timeframe)
        # Two ccxt timeframes may have the same name at the exchange, such as 7d and 1w.
        if named is not None and named != self.timeframes.get(self.timeframe):
            msg = f"candle of timeframe {found.timeframe} instead of {self.timeframe}"
            raise BadCandle(msg)
        return symbol


def symbols_by_name(markets: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the symbols of watched markets by every name that a message may use for them.

    The names are the symbol, the id, and base and quote without a separator if that is unique.
    """
    symbols: dict[str, str] = {}
    pairs: dict[str, list[str]] = {}
    for market in markets:
        symbol = market["symbol"]
        symbols |= {symbol: symbol, str(market["id"]): symbol}
        pair = f"{market.get('baseId') or ''}{market.get('quoteId') or ''}"
        pairs.setdefault(pair, []).append(symbol)
    return {pair: of[0] for pair, of in pairs.items() if pair and len(of) == 1} | symbols


class StoreIndex:
    """Finds symbol and timeframe of the lists in which ccxt stores candles."""

    def __init__(self) -> None:
        # By the identity of the list.
        self._entries: dict[int, ResolvedCandles] = {}

    def find(self, value: object, stored: Mapping[str, Any]) -> ResolvedCandles | None:
        """Return the entry of a list in ccxt's ``ohlcvs``; None if it is not there.

        Args:
            value: the resolved value.
            stored: lists by symbol, or by symbol and timeframe.
        """
        found = self._entries.get(id(value))
        if found is None or found.rows is not value:
            self._entries = {id(entry.rows): entry for entry in _entries(stored)}
            found = self._entries.get(id(value))
        return found


def _entries(stored: Mapping[str, Any]) -> Iterable[ResolvedCandles]:
    for symbol, value in stored.items():
        inner = value.items() if isinstance(value, dict) else [(None, value)]
        yield from (
            ResolvedCandles(symbol, key, rows) for key, rows in inner if isinstance(rows, list)
        )


def parse_resolved(
    value: object,
    message_hash: object,
    index: StoreIndex,
    stored: Mapping[str, Any],
    subscription: Subscription,
) -> ResolvedCandles | None:
    """Extract the candles of a resolved value; None if it holds none.

    Args:
        value: the resolved value.
        message_hash: the name under which ccxt resolved it.
        index: finds the lists of ``stored``.
        stored: ccxt's ``ohlcvs``.
        subscription: the watched candles.
    """
    if not isinstance(value, list):
        return None
    match value[:4]:
        case [str(symbol), str() | None as timeframe, list(rows)]:
            return ResolvedCandles(symbol, timeframe, rows)
    if (found := index.find(value, stored)) is not None:
        return found
    rows = value if value and isinstance(value[0], list) else [value]
    if not _is_candle_row(rows[0]):
        return None
    named = {
        symbol for name, symbol in subscription.symbols.items() if _is_named(name, message_hash)
    }
    return ResolvedCandles(named.pop(), None, rows) if len(named) == 1 else None


def _is_candle_row(row: list[Any]) -> bool:
    min_fields = 6
    return len(row) >= min_fields and not any(isinstance(field, (list, dict)) for field in row)


def _is_named(name: str, message_hash: object) -> bool:
    """Whether a name occurs on its own, not as a part of another one."""
    return re.search(rf"(?<![\w/-]){re.escape(name)}(?![\w/-])", str(message_hash)) is not None
