"""Reads candles out of the values that ccxt resolves, whatever shape they have. No I/O.

ccxt parses a candle message, stores the rows, and resolves the future that waits for them.
Where it stores them differs by exchange: under the symbol, under the symbol and its own name of
the timeframe, in a new cache for each message, or nowhere. What it resolves differs too: the
cache, the cache with its symbol and timeframe, or the row.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from model.core.errors import BadCandle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Row = tuple[Any, ...]
"""Opening time (Unix ms), open, high, low, close, volume, as ccxt has parsed them."""


class Resolved(NamedTuple):
    """Candles of one market in a value that ccxt resolved.

    Attributes:
        symbol: of the market, as ccxt calls it.
        timeframe: where ccxt stores them; None where it does not say.
        rows: the list or cache that ccxt keeps them in.
    """

    symbol: str
    timeframe: str | None
    rows: list[Any]


class Asked(NamedTuple):
    """What a connection watches.

    Attributes:
        symbols: ccxt symbol by symbol and by the exchange's own name of the market. All are of
            one kind, so that a name that a spot and a swap market share means the watched one.
        timeframe: ccxt timeframe.
        timeframes: the exchange's name of each by ccxt's.
    """

    symbols: Mapping[str, str]
    timeframe: str
    timeframes: Mapping[str | None, Any]

    def check(self, found: Resolved, market_id: object) -> str:
        """Check that candles are of a watched market and timeframe.

        Args:
            found: the candles.
            market_id: what the exchange calls ``found.symbol``; None if there is no such market.

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
        # Two names of one timeframe are told apart by neither the exchange nor us.
        if named is not None and named != self.timeframes.get(self.timeframe):
            msg = f"candle of timeframe {found.timeframe} instead of {self.timeframe}"
            raise BadCandle(msg)
        return symbol


def names_of(markets: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The symbols of watched markets by every name that a message may have for them.

    Besides its symbol and its id that is base and quote without a separator, where only one of
    the markets has that name.
    """
    symbols: dict[str, str] = {}
    pairs: dict[str, list[str]] = {}
    for market in markets:
        symbol = market["symbol"]
        symbols |= {symbol: symbol, str(market["id"]): symbol}
        pair = f"{market.get('baseId') or ''}{market.get('quoteId') or ''}"
        pairs.setdefault(pair, []).append(symbol)
    return {pair: of[0] for pair, of in pairs.items() if pair and len(of) == 1} | symbols


class Places:
    """Where ccxt stores candles: symbol and timeframe by the identity of the list."""

    def __init__(self) -> None:
        self._known: dict[int, Resolved] = {}

    def find(self, value: object, stored: Mapping[str, Any]) -> Resolved | None:
        """Find a list in ccxt's ``ohlcvs``; None if it is not there.

        Args:
            value: what was resolved.
            stored: lists by symbol, or by symbol and timeframe.
        """
        found = self._known.get(id(value))
        if found is None or found.rows is not value:
            self._known = {id(place.rows): place for place in _places(stored)}
            found = self._known.get(id(value))
        return found


def _places(stored: Mapping[str, Any]) -> Iterable[Resolved]:
    for symbol, kept in stored.items():
        inner = kept.items() if isinstance(kept, dict) else [(None, kept)]
        yield from (Resolved(symbol, key, rows) for key, rows in inner if isinstance(rows, list))


def read_resolved(
    value: object, message_hash: object, places: Places, stored: Mapping[str, Any], asked: Asked
) -> Resolved | None:
    """Read a value that ccxt resolved; None if it holds no candles.

    Args:
        value: what was resolved.
        message_hash: under which name.
        places: where ccxt stores candles.
        stored: ccxt's ``ohlcvs``.
        asked: what is watched.
    """
    if not isinstance(value, list):
        return None
    match value[:4]:
        case [str(symbol), str() | None as timeframe, list(rows)]:
            return Resolved(symbol, timeframe, rows)
    if (found := places.find(value, stored)) is not None:
        return found
    rows = value if value and isinstance(value[0], list) else [value]
    if not _is_row(rows[0]):
        return None
    named = {symbol for name, symbol in asked.symbols.items() if _is_named(name, message_hash)}
    return Resolved(named.pop(), None, rows) if len(named) == 1 else None


def _is_row(row: list[Any]) -> bool:
    least = 6
    return len(row) >= least and not any(isinstance(field, (list, dict)) for field in row)


def _is_named(name: str, message_hash: object) -> bool:
    """Whether a market is named, not only as a part of another one's name."""
    return re.search(rf"(?<![\w/-]){re.escape(name)}(?![\w/-])", str(message_hash)) is not None
