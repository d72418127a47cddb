"""Writes docs/exchanges.md from the candle messages that the tests hold every exchange to."""

from __future__ import annotations

from daemon.exchange.message_parsers import MESSAGE_PARSERS
from daemon.exchange.volume_units import VOLUME_UNITS, Alignment, VolumeUnit
from tests.exchange_messages.descriptions import Stream
from tests.exchange_messages.streams import STREAMS
from tests.exchange_messages.subscriptions import lacking, many

_INTRODUCTION = """\
# Exchanges

Written by `make docs` from the messages in `tests/candles`.

candlecast watches candles of every exchange that ccxt can watch candles of. The table lists them.
For each row a test opens a real connection of the daemon to a server on this machine. The server
waits for the subscription that ccxt sends and answers with the candle message that the exchange
documents. The test passes if the daemon tells the right symbol, times, prices, volume and closed
flag. A test fails if ccxt can watch an exchange that is not listed here. No exchange itself was
asked.

- **Heard by**: what stands in the subscription.
- **Read**: *direct*: by candlecast itself. *ccxt*: ccxt parses the message, and candlecast takes
  what ccxt resolves.
- **Closed by**: *flag*: the exchange says that a candle is closed. *successor*: a candle is closed
  when the next one begins, or when the exchange's history has it.
- **Volume**: what websocket and REST count, by their documentation: base currency, quote currency
  or contracts. Where they differ, the column says what candlecast does. The daemon also compares
  both ways at work; see [operations.md](operations.md).
- **Several symbols**: how ccxt subscribes to them.
- **Not by websocket**: timeframes that ccxt knows of the exchange and cannot subscribe to. The
  connection fails, and the log and `candlecast doctor` say so.

`candlecast doctor` fails for an exchange that is not heard though its market is traded. In a
running daemon its symbols are stale, the status is `degraded`, and the log says of which symbol the
stream keeps silent.
"""

_UNITS: dict[tuple[str, str], VolumeUnit] = {
    (unit.exchange, unit.kind): unit for unit in VOLUME_UNITS
}

_COLUMNS = (
    "Exchange",
    "Market",
    "Heard by",
    "Read",
    "Closed by",
    "Volume",
    "Several symbols",
    "Not by websocket",
    "Remarks",
)


def exchanges() -> str:
    """docs/exchanges.md."""
    streams = sorted(STREAMS, key=lambda stream: stream.exchange)
    lines = [
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|---" * len(_COLUMNS) + "|",
        *(_row(stream) for stream in streams if not stream.needs),
        "",
        "## What is not heard",
        "",
        "| Exchange | Needs | Remarks |",
        "|---|---|---|",
        *(
            f"| {stream.exchange} | {stream.needs} | {stream.note} |"
            for stream in streams
            if stream.needs
        ),
    ]
    return _INTRODUCTION + "\n".join(lines) + "\n"


def _volume(stream: Stream) -> str:
    """The units of a stream's volumes, and what is done where REST has another."""
    known = _UNITS.get((stream.exchange, stream.kind))
    if known is None or known.stream is None or known.rest is None:
        return "not documented" if known is None else known.alignment.value
    if known.alignment is Alignment.SAME:
        return known.stream.value
    return f"websocket {known.stream.value}, REST {known.rest.value}: {known.alignment.value}"


def _row(stream: Stream) -> str:
    cells = (
        stream.exchange,
        stream.kind,
        f"`{stream.channel}`",
        "direct" if stream.exchange in MESSAGE_PARSERS else "ccxt",
        "flag" if stream.flag else "successor",
        _volume(stream),
        many(stream.exchange),
        ", ".join(lacking(stream.exchange)),
        stream.note,
    )
    return f"| {' | '.join(cells)} |"
