"""Fuzz websocket frames of exchanges that ccxt parses, one for each way in which it stores candles.

Frames pass through the real ccxt class with the tap in it. No exception may escape, and a candle
reported as final must be a possible candle of the watched market.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ccxt.pro

from daemon.candles.closing import ClosingRule
from daemon.exchange.ccxt_tap import tapped_class
from model.core.candle import Timeframe, check_ohlcv
from model.core.errors import BadCandle
from tests.exchange_messages.descriptions import Bar, Stream
from tests.exchange_messages.streams import STREAMS
from tests.fuzz.target import Target, as_json
from tests.support.ccxt_connection import FakeConnection

OPEN_MS = 1_764_460_800_000
SHAPES = (
    "alpaca-spot",  # a cache under the symbol
    "apex-linear",  # with a flag, under another name of the market
    "backpack-spot",  # read directly
    "bingx-linear",  # a new cache for each message
    "bitfinex-spot",  # by a number that the exchange gives
    "blofin-linear",  # with a flag at the end of the row
    "cex-spot",  # under no timeframe, and a history that ccxt cannot read
    "gate-linear",  # with a flag, in a list
    "hitbtc-spot",  # several markets in a message
    "mexc-spot",  # protobuf
    "ndax-spot",  # lists for all timeframes at once
    "onetrading-spot",  # read directly
    "upbit-spot",  # a row that is stored nowhere
    "whitebit-spot",  # under an unknown timeframe
)


class CandleSink:
    """Does with candles what a connection does."""

    def __init__(self, stream: Stream) -> None:
        self.frame = Timeframe.parse(stream.timeframe)
        self.symbol = stream.market["symbol"]
        self.now_ms = OPEN_MS + 3 * self.frame.ms
        self.rule = ClosingRule(self.frame, 1_000)

    def on_raw(
        self, symbol: str, open_ms: object, values: tuple[object, ...], *, closed: bool | None
    ) -> None:
        try:
            final = self.rule.on_update(
                symbol, open_ms, values, closed=closed, now_ms=self.now_ms, now_s=0.0
            )
        except BadCandle:
            return
        except Exception as error:
            # The tap would take it for the exchange's fault.
            raise SystemError(error) from error
        if final is not None:
            assert final.symbol == symbol == self.symbol
            assert check_ohlcv(final.ohlcv) == final.ohlcv
            assert self.frame.on_grid(final.open_ms)
            assert final.close_ms <= self.now_ms + 1_000

    def on_unusable_message(self, error: Exception) -> None:
        """Counted."""
        if isinstance(error, (SystemError, AssertionError)):
            raise error

    async def wait_turn(self, cost: float | None = None) -> None:
        """Ignore the request."""


def frames(stream: Stream) -> Callable[[bytes], None]:
    """Parse frames of a stream, two of them in a row: the first one only primes."""
    sink = CandleSink(stream)
    made: list[Any] = []

    def make() -> None:
        exchange = tapped_class(getattr(ccxt.pro, stream.exchange), sink)()
        exchange.options |= stream.options
        exchange.set_markets([dict(stream.market), *map(dict, stream.twins)])
        exchange.spawn = _never
        made.append(exchange)

    def one_input(data: bytes) -> None:
        if not made:
            make()
        exchange, line = made[0], FakeConnection()
        sink.rule = ClosingRule(sink.frame, 1_000)
        exchange.ohlcvs = {}
        exchange.watch_candles([sink.symbol], stream.timeframe)
        # What is known of a subscription when its messages come.
        line.subscriptions = {"341527": stream.before[0]} if stream.before else {}
        for seed in (*_seeds(stream)[len(stream.before) :], data):
            exchange.handle_message(line, _decoded(exchange, stream, seed))

    return one_input


def _decoded(exchange: Any, stream: Stream, data: bytes) -> Any:
    if stream.exchange == "mexc":
        return data
    text = data.decode(errors="replace")
    message = exchange.parse_json(text)
    return text if message is None else message


def _bars(stream: Stream) -> list[Bar]:
    step_ms = Timeframe.parse(stream.timeframe).ms
    return [
        Bar(OPEN_MS + at * step_ms, 4.0, 5.0, 2.0, 3.0, 1.0, 4.0, 8.0, closed, step_ms)
        for at, closed in ((0, False), (0, True), (1, False))
    ]


def _never(method: Callable[..., Any], *args: object) -> None:
    """Answers that a message asks ccxt to send: there is no network."""


def _seeds(stream: Stream) -> tuple[bytes, ...]:
    messages = [*stream.before, *map(stream.update, _bars(stream))]
    if stream.exchange == "mexc" and stream.packed is not None:
        return tuple(map(stream.packed, messages))
    return as_json(*messages)


TARGETS = {
    f"stream-{stream.exchange}": Target(frames(stream), _seeds(stream))
    for stream in STREAMS
    if stream.name in SHAPES
}
