"""What sets one exchange's protocol apart from another's; a sandbox exchange speaks one of them.

Pure: text in, text out, and every answer takes the time as an argument.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from decimal import Decimal
from itertools import count
from typing import ClassVar, Final, NamedTuple

import orjson

from daemon.sandbox.market import Kline, Market
from model.core.errors import CandlecastError

_NUMBER: Final = re.compile(r"\d{1,20}")

_EIGHT_PLACES: Final = 0.01
"""Smaller numbers need more places than 8."""

Messages = Callable[[str], list[bytes]]
"""What a burst says of one topic; empty when there is nothing to say."""

Route = Callable[[Mapping[str, str], int], object]
"""A REST address: takes the query and the time (Unix ms), gives the JSON body."""


class RestRefusal(Exception):  # noqa: N818 - an answer of the protocol, not a mishap
    """A request that is answered with an error of the exchange's own."""

    def __init__(self, body: object, status: int = 200) -> None:
        super().__init__(str(body))
        self.body = body
        self.status = status


class Update(NamedTuple):
    """What happens to one candle at one instant.

    Attributes:
        states: what it is now, in the order of sending; several only where faults ask for it.
        closed: whether it has just closed.
        following: the next candle as it begins, when this one has closed and the protocol
            goes on to it in the same breath.
        now_ms: the instant, Unix milliseconds.
    """

    states: tuple[Kline, ...]
    closed: bool
    following: Kline | None
    now_ms: int


class Session(ABC):
    """One client's subscriptions.

    Attributes:
        topics: what it is subscribed to, in order.
    """

    def __init__(self) -> None:
        """Start without a subscription."""
        self.topics: dict[str, None] = {}

    def on_connect(self, now_ms: int) -> list[bytes]:
        """What the exchange says as soon as the connection is open."""
        del now_ms
        return []

    @abstractmethod
    def reply(self, text: str | bytes, now_ms: int) -> list[bytes]:
        """Carry out one request and answer it."""

    def select(self, messages: Messages) -> list[bytes]:
        """This session's part of a burst, in the order of its subscriptions."""
        return [raw for topic in self.topics for raw in messages(topic)]


class ExchangeProtocol(ABC):
    """An exchange's names, messages and addresses, over one market.

    Attributes:
        market: what it speaks about.
        max_streams: topics of one connection, where the exchange limits them.
        session_numbers: for exchanges that number their connections.
        name: ccxt id of the exchange.
        intervals: its names of the timeframes that it has.
        heartbeat: what it sends every second to subscribed clients, if anything.
        ping_frames: whether it sends pings of the websocket protocol.
        sends_next_on_close: whether a closing message is sent with the next candle's first one.
        interval: its name of the market's timeframe.
        symbol_of_id: ccxt symbols by market name.
        symbol_of_topic: ccxt symbols by topic.
    """

    name: ClassVar[str]
    intervals: ClassVar[Mapping[str, str]]
    heartbeat: ClassVar[bytes | None] = None
    ping_frames: ClassVar[bool] = False
    sends_next_on_close: ClassVar[bool] = False

    def __init__(self, market: Market, max_streams: int = 1_024) -> None:
        """Speak about ``market``.

        Raises:
            CandlecastError: the exchange has no candles of that length.
        """
        self.market = market
        self.max_streams = max_streams
        self.session_numbers = count(1)
        timeframe = market.playback.timeframe.text
        if timeframe not in self.intervals:
            allowed = ", ".join(self.intervals)
            msg = f"{self.name} has no candles of {timeframe}; allowed: {allowed}"
            raise CandlecastError(msg)
        self.interval = self.intervals[timeframe]
        self.symbol_of_id = {self.market_id(symbol): symbol for symbol in market.playback.symbols}
        self.symbol_of_topic = {
            self.topic(market_id): symbol for market_id, symbol in self.symbol_of_id.items()
        }

    @abstractmethod
    def market_id(self, symbol: str) -> str:
        """The exchange's name of a ccxt symbol."""

    @abstractmethod
    def topic(self, market_id: str) -> str:
        """The topic of a market's candles."""

    @abstractmethod
    def session(self, target: str) -> Session | None:
        """A new client of a websocket address (path and query); None if there is no such one."""

    @abstractmethod
    def events(self, symbol: str, update: Update) -> list[bytes]:
        """What the stream says about one candle."""

    @property
    @abstractmethod
    def routes(self) -> Mapping[str, Route]:
        """The REST side: what answers a GET of each path."""

    @abstractmethod
    def banned(self, status: int, until_ms: int) -> object:
        """The body of every REST answer during a ban."""

    def subscribable(self, topic: object) -> str | None:
        """The ccxt symbol of a topic that clients may subscribe to; None of another."""
        symbol = self.symbol_of_topic.get(topic) if isinstance(topic, str) else None
        return None if symbol in self.market.faults.delisted else symbol

    def now(self, symbol: str, now_ms: int) -> Kline:
        """A market's forming candle."""
        frame = self.market.playback.timeframe
        open_ms = frame.floor(now_ms)
        return self.market.kline(symbol, open_ms, (now_ms - open_ms) / frame.ms, revised=False)


def json_object(text: str | bytes) -> dict[str, object] | None:
    """A request that is a JSON object, or None."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def named(pairs: str) -> dict[str, str]:
    """An exchange's names of timeframes, from ``ccxt's=its own`` pairs."""
    return dict(pair.split("=") for pair in pairs.split())


def decimals(value: float) -> str:
    """A number as exchanges write it into strings; reads back as the same one up to 8 places.

    Numbers below 0.01 have as many places as they need.

    >>> decimals(97123.4), decimals(0.0), decimals(1.2345e-10)
    ('97123.40000000', '0.00000000', '0.00000000012345')
    """
    if value == 0.0 or value >= _EIGHT_PLACES:
        return f"{value:.8f}"
    return f"{Decimal(repr(value)):f}"


def optional_int(query: Mapping[str, str], name: str, wrong: RestRefusal) -> int | None:
    """A whole number of a query, None when it is absent.

    Raises:
        RestRefusal: ``wrong``, when it is something else.
    """
    value = query.get(name)
    if value is not None and _NUMBER.fullmatch(value) is None:
        raise wrong
    return None if value is None else int(value)
