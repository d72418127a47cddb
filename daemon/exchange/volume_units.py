"""The unit of a candle's volume by exchange and kind of market, and corrections of ccxt. No I/O.

The history by REST decides: models are trained on it. Where ccxt reads another unit from an
exchange's stream, the stream is read otherwise.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Kind = Literal["spot", "linear", "inverse"]
"""Linear and inverse hold perpetuals and dated futures: no exchange tells them apart here."""


class Unit(Enum):
    """What a volume counts."""

    BASE = "base currency"
    QUOTE = "quote currency"
    CONTRACTS = "contracts"


class Done(Enum):
    """How both ways come to the same unit."""

    NOTHING = "both ways say the same"
    READ = "the stream's field that has the history's unit is read"
    ASKED = "the history is asked for in the stream's unit"
    MEASURED = "not documented; candles of the history are used until both ways were compared"
    NO_HISTORY = "no history by REST without a key or a further choice"


class VolumeUnit(NamedTuple):
    """What is known of one exchange and one kind of market.

    Attributes:
        exchange: ccxt id.
        kind: spot, linear or inverse.
        stream: unit of the field that ccxt reads from the stream; None where it is not known.
        rest: unit of ccxt's REST rows; None where it is not known.
        done: how the two are made equal.
    """

    exchange: str
    kind: Kind
    stream: Unit | None
    rest: Unit | None
    done: Done


_BASE: Final[Mapping[Kind, str]] = {
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

_CONTRACTS: Final[Mapping[Kind, str]] = {
    "linear": "bydfi deepcoin gate hashkey kucoin kucoinfutures mexc toobit xt",
    "inverse": "bingx bydfi deepcoin gate kucoin kucoinfutures mexc phemex",
}
"""Exchanges whose stream and REST both count contracts."""

_OTHERS: Final = (
    # The kline event has contracts in `v` and base currency in `q`.
    VolumeUnit("binance", "inverse", Unit.CONTRACTS, Unit.BASE, Done.READ),
    VolumeUnit("binancecoinm", "inverse", Unit.CONTRACTS, Unit.BASE, Done.READ),
    # ccxt multiplies the stream's contracts by their size, but not those of REST.
    VolumeUnit("bitrue", "linear", Unit.BASE, Unit.CONTRACTS, Done.READ),
    VolumeUnit("bitrue", "inverse", Unit.QUOTE, Unit.CONTRACTS, Done.READ),
    # The stream has quote currency in `v` and base currency in `a`.
    VolumeUnit("gate", "spot", Unit.QUOTE, Unit.BASE, Done.READ),
    VolumeUnit("gateeu", "spot", Unit.QUOTE, Unit.BASE, Done.READ),
    # The stream has no other volume than the turnover.
    VolumeUnit("onetrading", "spot", Unit.QUOTE, Unit.BASE, Done.ASKED),
    VolumeUnit("onetrading", "linear", Unit.QUOTE, Unit.BASE, Done.ASKED),
    VolumeUnit("mudrex", "linear", None, None, Done.MEASURED),
    # ccxt adds up the volumes of all messages about one candle.
    VolumeUnit("ndax", "spot", None, Unit.BASE, Done.MEASURED),
    VolumeUnit("blockchaincom", "spot", Unit.BASE, None, Done.NO_HISTORY),
    VolumeUnit("cex", "spot", None, Unit.BASE, Done.NO_HISTORY),
)


def _rows() -> Iterator[VolumeUnit]:
    for unit, names in ((Unit.BASE, _BASE), (Unit.CONTRACTS, _CONTRACTS)):
        for kind, exchanges in names.items():
            for exchange in exchanges.split():
                yield VolumeUnit(exchange, kind, unit, unit, Done.NOTHING)
    yield from _OTHERS


VOLUME_UNITS: Final = tuple(sorted(_rows(), key=lambda row: (row.exchange, row.kind)))
"""Every exchange and kind of market whose candles ccxt can watch and that is known."""

_KNOWN: Final = {
    (row.exchange, row.kind)
    for row in VOLUME_UNITS
    if row.done in {Done.NOTHING, Done.READ, Done.ASKED}
}


def kind_of(symbol: str) -> Kind:
    """The kind of market of a ccxt symbol.

    >>> kind_of("BTC/USDT"), kind_of("BTC/USDT:USDT"), kind_of("BTC/USD:BTC-271231")
    ('spot', 'linear', 'inverse')
    """
    pair, _, settle = symbol.partition(":")
    if not settle:
        return "spot"
    return "inverse" if settle.partition("-")[0] == pair.partition("/")[0] else "linear"


def is_known(exchange: str, symbol: str) -> bool:
    """Whether the stream's volume is known to be in the unit of the history.

    Args:
        exchange: ccxt id.
        symbol: ccxt symbol.
    """
    return (exchange, kind_of(symbol)) in _KNOWN


def corrections(base: type[Any]) -> dict[str, Callable[..., Any]]:
    """Methods for a subclass of a ccxt.pro class, so that it reads the volume as REST counts it.

    Args:
        base: the ccxt.pro class.
    """
    make = _CORRECTIONS.get(base.__name__)
    return {} if make is None else make(base)


def choose_rest_volume(exchange: Any) -> None:  # noqa: ANN401 - ccxt's classes are untyped
    """Have ccxt read the REST volume that the exchange's stream has, where it leaves the choice."""
    if exchange.id == "onetrading":
        exchange.options["fetchOHLCV"] = {"volume": "volume"}


def _of_gate(base: type[Any]) -> dict[str, Callable[..., Any]]:
    def handle_ohlcv(exchange: Any, client: Any, message: dict[str, Any]) -> None:  # noqa: ANN401
        if message["channel"] == "spot.candlesticks":
            result = message["result"]
            rows = result if isinstance(result, list) else [result]
            message = message | {"result": [row | {"v": row["a"]} for row in rows]}
        base.handle_ohlcv(exchange, client, message)

    return {"handle_ohlcv": handle_ohlcv}


def _of_bitrue(base: type[Any]) -> dict[str, Callable[..., Any]]:
    def parse_ws_ohlcv(exchange: Any, tick: Any, market: Any = None) -> list[Any]:  # noqa: ANN401
        row: list[Any] = base.parse_ws_ohlcv(exchange, tick, market)
        return [*row[:5], exchange.safe_number(tick, "vol")]

    return {"parse_ws_ohlcv": parse_ws_ohlcv}


_CORRECTIONS: Final[Mapping[str, Callable[[type[Any]], dict[str, Callable[..., Any]]]]] = {
    "bitrue": _of_bitrue,
    "gate": _of_gate,
    "gateeu": _of_gate,
}
