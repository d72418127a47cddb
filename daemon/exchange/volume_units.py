"""Define the unit of volume per exchange and kind of market, and correct ccxt where it differs.

The unit of the history by REST counts, because models are trained on it. Where ccxt reads another
unit from an exchange's stream, another field of the stream is read. ccxt has no such table; this
one is taken from the exchanges' documentation. No I/O.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from daemon.exchange.source import parse_symbol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from daemon.exchange.source import VolumeKind


class Unit(Enum):
    """The unit of a volume."""

    BASE = "base currency"
    QUOTE = "quote currency"
    CONTRACTS = "contracts"


class Alignment(Enum):
    """How stream and history are brought to the same unit."""

    SAME = "both have the same unit"
    STREAM_FIELD = "the stream's field that has the history's unit is read"
    REST_OPTION = "the history is asked for in the stream's unit"
    MEASURED = "not documented; candles of the history are used until both ways were compared"
    NO_HISTORY = "no history by REST without a key or a further choice"


class VolumeUnit(NamedTuple):
    """The volume units of one exchange and one kind of market.

    Attributes:
        exchange: ccxt id.
        kind: spot, linear or inverse.
        stream: unit of the field that ccxt reads from the stream; None if unknown.
        rest: unit of ccxt's REST rows; None if unknown.
        alignment: how the two are brought to the same unit.
    """

    exchange: str
    kind: VolumeKind
    stream: Unit | None
    rest: Unit | None
    alignment: Alignment


_BASE_UNIT: Final[Mapping[VolumeKind, str]] = {
    "spot": """
        alpaca aster backpack bequant binance binanceus bingx bitfinex bitget bittrade bitvavo bybit
        bybiteu bybitid coinbaseinternational cryptocom deepcoin deribit gemini hashkey hitbtc htx
        hyperliquid kraken kucoin lbank mexc myokx nado okx okxus p2b pacifica phemex poloniex
        toobit upbit weex whitebit woo xt
    """,
    "linear": """
        apex aster backpack binance binanceusdm bingx bitfinex bitget blofin bybit bybitid
        coinbaseinternational cryptocom deribit dydx extended gemini grvt hitbtc htx hyperliquid
        modetrade nado okx okxus pacifica phemex polymarket weex whitebit woo woofipro
    """,
    "inverse": "bitget bybit bybitid coinbaseinternational deribit htx okx okxus xt",
}
"""Exchanges whose stream and REST both count base currency."""

_CONTRACT_UNIT: Final[Mapping[VolumeKind, str]] = {
    "linear": "bydfi deepcoin gate hashkey kucoin kucoinfutures mexc toobit xt",
    "inverse": "bingx bydfi deepcoin gate kucoin kucoinfutures mexc phemex",
}
"""Exchanges whose stream and REST both count contracts."""

_MIXED_UNITS: Final = (
    # The kline event has contracts in `v` and base currency in `q`.
    VolumeUnit("binance", "inverse", Unit.CONTRACTS, Unit.BASE, Alignment.STREAM_FIELD),
    VolumeUnit("binancecoinm", "inverse", Unit.CONTRACTS, Unit.BASE, Alignment.STREAM_FIELD),
    # ccxt multiplies the stream's contracts by their size, but not those of REST.
    VolumeUnit("bitrue", "linear", Unit.BASE, Unit.CONTRACTS, Alignment.STREAM_FIELD),
    VolumeUnit("bitrue", "inverse", Unit.QUOTE, Unit.CONTRACTS, Alignment.STREAM_FIELD),
    # The stream has quote currency in `v` and base currency in `a`.
    VolumeUnit("gate", "spot", Unit.QUOTE, Unit.BASE, Alignment.STREAM_FIELD),
    VolumeUnit("gateeu", "spot", Unit.QUOTE, Unit.BASE, Alignment.STREAM_FIELD),
    # The stream has no other volume than the turnover.
    VolumeUnit("onetrading", "spot", Unit.QUOTE, Unit.BASE, Alignment.REST_OPTION),
    VolumeUnit("onetrading", "linear", Unit.QUOTE, Unit.BASE, Alignment.REST_OPTION),
    VolumeUnit("mudrex", "linear", None, None, Alignment.MEASURED),
    # ccxt adds up the volumes of all messages about one candle.
    VolumeUnit("ndax", "spot", None, Unit.BASE, Alignment.MEASURED),
    VolumeUnit("blockchaincom", "spot", Unit.BASE, None, Alignment.NO_HISTORY),
    VolumeUnit("cex", "spot", None, Unit.BASE, Alignment.NO_HISTORY),
)


def _rows() -> Iterator[VolumeUnit]:
    for unit, names in ((Unit.BASE, _BASE_UNIT), (Unit.CONTRACTS, _CONTRACT_UNIT)):
        for kind, exchanges in names.items():
            for exchange in exchanges.split():
                yield VolumeUnit(exchange, kind, unit, unit, Alignment.SAME)
    yield from _MIXED_UNITS


VOLUME_UNITS: Final = tuple(sorted(_rows(), key=lambda row: (row.exchange, row.kind)))
"""The known exchanges and kinds of markets whose candles ccxt can watch."""

_KNOWN: Final = {
    (row.exchange, row.kind)
    for row in VOLUME_UNITS
    if row.alignment in {Alignment.SAME, Alignment.STREAM_FIELD, Alignment.REST_OPTION}
}


def is_unit_known(exchange: str, symbol: str) -> bool:
    """Whether the stream's volume is known to have the unit of the history.

    Args:
        exchange: ccxt id.
        symbol: ccxt symbol.
    """
    return (exchange, parse_symbol(symbol).volume_kind) in _KNOWN


def volume_corrections(base: type[Any]) -> dict[str, Callable[..., Any]]:
    """Return methods for a subclass of a ccxt.pro class that reads the volume in the unit of REST.

    Args:
        base: the ccxt.pro class.
    """
    make = _CORRECTIONS.get(base.__name__)
    return {} if make is None else make(base)


def set_rest_volume_option(exchange: Any) -> None:  # noqa: ANN401 - ccxt's classes are untyped
    """Make ccxt read the REST volume in the unit of the stream, where it has an option for that."""
    if exchange.id == "onetrading":
        exchange.options["fetchOHLCV"] = {"volume": "volume"}


def _gate_methods(base: type[Any]) -> dict[str, Callable[..., Any]]:
    def handle_ohlcv(exchange: Any, client: Any, message: dict[str, Any]) -> None:  # noqa: ANN401
        if message["channel"] == "spot.candlesticks":
            result = message["result"]
            rows = result if isinstance(result, list) else [result]
            message = message | {"result": [row | {"v": row["a"]} for row in rows]}
        base.handle_ohlcv(exchange, client, message)

    return {"handle_ohlcv": handle_ohlcv}


def _bitrue_methods(base: type[Any]) -> dict[str, Callable[..., Any]]:
    def parse_ws_ohlcv(exchange: Any, tick: Any, market: Any = None) -> list[Any]:  # noqa: ANN401
        row: list[Any] = base.parse_ws_ohlcv(exchange, tick, market)
        return [*row[:5], exchange.safe_number(tick, "vol")]

    return {"parse_ws_ohlcv": parse_ws_ohlcv}


_CORRECTIONS: Final[Mapping[str, Callable[[type[Any]], dict[str, Callable[..., Any]]]]] = {
    "bitrue": _bitrue_methods,
    "gate": _gate_methods,
    "gateeu": _gate_methods,
}
