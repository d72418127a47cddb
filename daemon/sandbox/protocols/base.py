"""Define the interface that each simulated exchange's protocol implements.

Pure: requests and responses are text, and every response takes the time as an argument.
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

_MIN_8_DECIMALS: Final = 0.01
"""Smaller numbers need more than 8 decimal places."""

Messages = Callable[[str], list[bytes]]
"""Returns the messages of a burst for one topic; empty when there are none."""

Route = Callable[[Mapping[str, str], int], object]
"""Handles a REST request: takes the query and the time (Unix ms), returns the JSON body."""


class RestRequestError(Exception):
    """A request that the exchange answers with an error of its protocol."""

    def __init__(self, body: object, status: int = 200) -> None:
        """Take the JSON body and the HTTP status of the response."""
        super().__init__(str(body))
        self.body = body
        self.status = status


class CandleUpdate(NamedTuple):
    """One candle's update at one instant.

    Attributes:
        states: states to send, in order; more than one only if faults require it.
        closed: whether the candle has just closed.
        next_kline: the next candle, if the protocol sends it together with the closing message.
        now_ms: the instant, Unix milliseconds.
    """

    states: tuple[Kline, ...]
    closed: bool
    next_kline: Kline | None
    now_ms: int


class Session(ABC):
    """One client's subscriptions.

    Attributes:
        topics: subscribed topics, in order of subscription.
    """

    def __init__(self) -> None:
        """Start without a subscription."""
        self.topics: dict[str, None] = {}

    def on_connect(self, now_ms: int) -> list[bytes]:
        """The messages that the exchange sends when a connection opens."""
        del now_ms
        return []

    @abstractmethod
    def reply(self, text: str | bytes, now_ms: int) -> list[bytes]:
        """Execute one request and return the responses."""

    def select(self, messages: Messages) -> list[bytes]:
        """The messages of a burst for the subscribed topics, in order of subscription."""
        return [raw for topic in self.topics for raw in messages(topic)]


class ExchangeProtocol(ABC):
    """An exchange's names, messages and REST addresses for one market.

    Attributes:
        market: the symbols and candles that are served.
        max_streams: topics per connection, for exchanges that limit them.
        session_numbers: counter for exchanges that number their connections.
        name: ccxt id of the exchange.
        intervals: the exchange's timeframe names by ccxt timeframe.
        heartbeat: message sent every second to subscribed clients; None if there is none.
        ping_frames: whether the exchange sends websocket ping frames.
        sends_next_on_close: whether a closing message is sent with the next candle's first one.
        interval: the exchange's name of the market's timeframe.
        symbol_of_id: ccxt symbols by market name.
        symbol_of_topic: ccxt symbols by topic.
    """

    name: ClassVar[str]
    intervals: ClassVar[Mapping[str, str]]
    heartbeat: ClassVar[bytes | None] = None
    ping_frames: ClassVar[bool] = False
    sends_next_on_close: ClassVar[bool] = False

    def __init__(self, market: Market, max_streams: int = 1_024) -> None:
        """Serve ``market``.

        Raises:
            CandlecastError: the exchange does not have the market's timeframe.
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
        """The exchange's market id of a ccxt symbol."""

    @abstractmethod
    def topic(self, market_id: str) -> str:
        """The topic of a market's candles."""

    @abstractmethod
    def session(self, target: str) -> Session | None:
        """A session for a client of a websocket path and query; None if the path is unknown."""

    @abstractmethod
    def candle_messages(self, symbol: str, update: CandleUpdate) -> list[bytes]:
        """The stream messages for one candle's update."""

    @property
    @abstractmethod
    def routes(self) -> Mapping[str, Route]:
        """The handler of each REST path."""

    @abstractmethod
    def banned(self, status: int, until_ms: int) -> object:
        """The body of every REST answer during a ban."""

    def subscribable(self, topic: object) -> str | None:
        """The ccxt symbol of a topic; None if clients cannot subscribe to it."""
        symbol = self.symbol_of_topic.get(topic) if isinstance(topic, str) else None
        return None if symbol in self.market.faults.delisted else symbol

    def forming_kline(self, symbol: str, now_ms: int) -> Kline:
        """A symbol's forming candle."""
        frame = self.market.playback.timeframe
        open_ms = frame.floor(now_ms)
        return self.market.kline(symbol, open_ms, (now_ms - open_ms) / frame.ms, revised=False)


def json_object(text: str | bytes) -> dict[str, object] | None:
    """Parse a JSON object; None if the text is something else."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def parse_intervals(pairs: str) -> dict[str, str]:
    """Parse ``ccxt timeframe=exchange's name`` pairs."""
    return dict(pair.split("=") for pair in pairs.split())


def decimals(value: float) -> str:
    """Format a number as exchanges do, with 8 decimal places.

    Numbers below 0.01 have as many places as they need to be read back exactly.

    >>> decimals(97123.4), decimals(0.0), decimals(1.2345e-10)
    ('97123.40000000', '0.00000000', '0.00000000012345')
    """
    if value == 0.0 or value >= _MIN_8_DECIMALS:
        return f"{value:.8f}"
    return f"{Decimal(repr(value)):f}"


def optional_int(query: Mapping[str, str], name: str, wrong: RestRequestError) -> int | None:
    """An integer parameter of a query; None if it is absent.

    Args:
        query: the request's parameters.
        name: of the parameter.
        wrong: raised if the value is not an integer.

    Raises:
        RestRequestError: ``wrong``.
    """
    value = query.get(name)
    if value is not None and _NUMBER.fullmatch(value) is None:
        raise wrong
    return None if value is None else int(value)
