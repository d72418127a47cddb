"""Types that describe the candle messages of exchanges: a candle, a market, a stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import ccxt

from daemon.exchange.source import market_fields


class Bar(NamedTuple):
    """A candle with its volume in every unit.

    Attributes:
        open_ms: opening time.
        open: opening price; the others follow.
        high: highest price.
        low: lowest price.
        close: newest price.
        base: volume in base currency.
        quote: volume in quote currency.
        contracts: volume in contracts.
        closed: whether the exchange calls it closed.
        step_ms: its length.
    """

    open_ms: int
    open: float
    high: float
    low: float
    close: float
    base: float
    quote: float
    contracts: float
    closed: bool = False
    step_ms: int = 60_000

    @property
    def open_s(self) -> int:
        """Opening time, seconds."""
        return self.open_ms // 1_000

    @property
    def end_ms(self) -> int:
        """When it closes."""
        return self.open_ms + self.step_ms

    @property
    def prices(self) -> tuple[str, str, str, str]:
        """Open, high, low, close as text."""
        return str(self.open), str(self.high), str(self.low), str(self.close)


Message = Any
"""Text, bytes, or a value that is sent as JSON."""


class Stream(NamedTuple):
    """How an exchange streams candles of one kind of market, by its documentation.

    Attributes:
        exchange: ccxt id.
        market: the market that is watched, as ccxt lists it.
        channel: the exchange's name of the stream, part of the request that ccxt sends.
        update: the message of one candle.
        snapshot: the message of several, ascending, that comes first; None if none does.
        before: messages that precede the first candle.
        twins: other listed markets that ccxt could confuse with it.
        timeframe: ccxt timeframe; 1m where there is one.
        volume: which volume of the candle is sent: ``base``, ``quote`` or ``contracts``.
        flag: whether its messages have a closed flag.
        greets: whether it sends without a request, because the address names the stream.
        packed: turns a message into a binary frame.
        host: the name of its server, where ccxt reads the kind of market from it.
        options: what ccxt stores when it loads the markets.
        refused: how many of the messages ccxt cannot read.
        needs: what is missing to receive candles; empty if nothing is.
        note: remarks.
    """

    exchange: str
    market: Mapping[str, Any]
    channel: str
    update: Callable[[Bar], Message]
    snapshot: Callable[[Sequence[Bar]], Message] | None = None
    before: tuple[Message, ...] = ()
    twins: tuple[Mapping[str, Any], ...] = ()
    timeframe: str = "1m"
    volume: str = "base"
    flag: bool = False
    greets: bool = False
    packed: Callable[[Message], bytes] | None = None
    host: str = ""
    options: Mapping[str, Any] = {}
    refused: int = 0
    needs: str = ""
    note: str = ""

    @property
    def kind(self) -> str:
        """``spot``, ``linear`` or ``inverse``."""
        return str(self.market["subType"] or "spot")

    @property
    def name(self) -> str:
        """Unique name."""
        return f"{self.exchange}-{self.kind}"

    def of_litecoin(self) -> Stream:
        """The same stream of another currency."""
        listed = _as_litecoin(self.market)
        if listed["id"] == self.market["id"]:
            listed["id"] += "9"
        return self._replace(market=listed, channel=_as_litecoin(self.channel))


def _as_litecoin(value: Any) -> Any:
    """Replace Bitcoin by Litecoin."""
    if isinstance(value, dict):
        return {key: _as_litecoin(item) for key, item in value.items()}
    for bitcoin, litecoin in (("BTC", "LTC"), ("btc", "ltc"), ("XBT", "LTC"), ("PURR", "LTC")):
        value = value.replace(bitcoin, litecoin) if isinstance(value, str) else value
    return value


def market(symbol: str, market_id: str, **more: Any) -> dict[str, Any]:
    """A market as ccxt lists it; base and quote are called as in its symbol."""
    names = {"id": market_id, "lowercaseId": market_id.lower()}
    fields = market_fields(symbol) | names | more
    structure: dict[str, Any] = ccxt.Exchange().safe_market_structure(fields)
    return structure


def one(rows: Callable[[Sequence[Bar]], Message]) -> Callable[[Bar], Message]:
    """The message of one candle, of an exchange that sends several in the same form."""
    return lambda bar: rows([bar])


def iso(at_ms: int, form: str = "%Y-%m-%dT%H:%M:%S") -> str:
    """A time as text, UTC."""
    return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime(form)
