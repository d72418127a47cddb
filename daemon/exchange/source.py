"""Describe where candles come from: exchange, symbols and timeframe. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from model.core.candle import Timeframe

VolumeKind = Literal["spot", "linear", "inverse"]
"""Linear and inverse include perpetuals and dated futures: exchanges count their volumes alike."""

MarketType = Literal["spot", "swap", "future", "option"]

DERIVATIVES: Final = ("swap", "future", "option")

_MAX_STREAMS: Final = {"binance": 200, "kucoin": 300, "mexc": 30, "bitget": 50}
"""Streams of one connection as exchanges allow or advise, by the beginning of their ccxt ids."""

_DEFAULT_MAX_STREAMS: Final = 100
"""Every other exchange is known to allow more."""


class MarketSource(NamedTuple):
    """Where candles come from.

    Attributes:
        name: ccxt exchange id.
        endpoint_rest: replaces scheme, host and port of REST addresses; None keeps them.
        endpoint_ws: the same for websocket addresses.
        symbols: ccxt symbols.
        timeframe: length of the candles.
    """

    name: str
    endpoint_rest: str | None
    endpoint_ws: str | None
    symbols: tuple[str, ...]
    timeframe: Timeframe


def streams_per_connection(name: str) -> int:
    """Return how many symbols to watch on one connection of an exchange.

    Args:
        name: ccxt id; relatives of an exchange (binanceusdm) share its limit.
    """
    return next(
        (most for known, most in _MAX_STREAMS.items() if name.startswith(known)),
        _DEFAULT_MAX_STREAMS,
    )


class SymbolParts(NamedTuple):
    """What a ccxt symbol tells about its market.

    Attributes:
        base: base currency.
        quote: quote currency.
        settle: settlement currency of a derivative; empty for spot.
        type: of the market.
    """

    base: str
    quote: str
    settle: str
    type: MarketType

    @property
    def volume_kind(self) -> VolumeKind:
        """``spot``, or whether a derivative is settled in the quote or the base currency."""
        if not self.settle:
            return "spot"
        return "inverse" if self.settle == self.base else "linear"


def parse_symbol(symbol: str) -> SymbolParts:
    """Split a ccxt symbol: BASE/QUOTE, BASE/QUOTE:SETTLE or BASE/QUOTE:SETTLE-EXPIRY.

    An option has its strike and C or P after the expiry.

    >>> [parse_symbol(symbol).type for symbol in ("A/B", "A/B:B", "A/B:A-271231")]
    ['spot', 'swap', 'future']
    >>> [parse_symbol(symbol).volume_kind for symbol in ("A/B", "A/B:B", "A/B:A-271231")]
    ['spot', 'linear', 'inverse']
    """
    pair, _, contract = symbol.partition(":")
    base, _, quote = pair.partition("/")
    settle, *terms = contract.split("-")
    types: dict[int, MarketType] = {0: "swap", 1: "future"}
    return SymbolParts(base, quote, settle, types.get(len(terms), "option") if settle else "spot")


def market_fields(symbol: str) -> dict[str, Any]:
    """Return the fields of a market as ccxt would list them, as far as the symbol tells."""
    base, quote, settle, kind = parse_symbol(symbol)
    derivative, linear = kind != "spot", settle == quote
    market_id = f"{base}{quote}"
    return {
        "id": market_id,
        "lowercaseId": market_id.lower(),
        "symbol": symbol,
        "base": base,
        "quote": quote,
        "settle": settle or None,
        "baseId": base,
        "quoteId": quote,
        "settleId": settle or None,
        "type": kind,
        **{each: each == kind for each in ("spot", *DERIVATIVES)},
        "active": True,
        "contract": derivative,
        "linear": linear if derivative else None,
        "inverse": not linear if derivative else None,
        "subType": ("linear" if linear else "inverse") if derivative else None,
        "contractSize": 1.0 if derivative else None,
    }
