"""Measure the processor time from ccxt's message handler until a candle waits for its batch.

    python -m benchmarks.daemon.receive

1,000 symbols close at once. Decoded messages are passed to `handle_message`, burst after burst,
with the variants in turns. No sockets are used: what ccxt does before it passes on a message is the
same for all. The time is the processor time of the event loop's thread, so other load does not
count. A message for a candle that has not closed is measured too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.harness.in_process import Path1m, decode
from benchmarks.report import machine, print_machine, print_table, save, spread
from daemon.exchange.ccxt_client import make_exchange
from daemon.exchange.ccxt_tap import tapped_class

_DECODING: Final = "decoding the frame (ccxt)"
_CCXT: Final = "ccxt's own handler, no tap"
_TAP: Final = "our tap alone"
_WHOLE: Final = "our whole receive path"
_UPDATE: Final = "an update, decoded and received"


class _NullListener:
    """A listener of the tap that does nothing."""

    def on_raw(
        self, symbol: str, open_ms: object, values: tuple[object, ...], *, closed: bool | None
    ) -> None:
        """Do nothing."""

    def on_unusable_message(self, error: Exception) -> None:
        """Not called in this benchmark."""
        raise error

    async def wait_turn(self, cost: float | None = None) -> None:
        """Not called in this benchmark."""


async def measure(symbols: int, bursts: int, folder: Path) -> dict[str, list[float]]:
    """Microseconds per candle of each variant, one value per burst."""
    path = Path1m(symbols, folder, None)
    ignoring = make_exchange("binance", wrap=lambda base: tapped_class(base, _NullListener()))
    ignoring.set_markets_from_exchange(path.exchange)
    ignoring.watch_candles(list(path.exchange.markets), "1m")
    client = path.plain.client("ws://127.0.0.1:1/ws")
    found: dict[str, list[float]] = {name: [] for name in (_DECODING, _CCXT, _TAP, _WHOLE, _UPDATE)}

    def timed(name: str, work: Callable[[], object]) -> None:
        started = time.thread_time()
        work()
        found[name].append(1e6 * (time.thread_time() - started) / symbols)

    def hand_to(exchange: Any, messages: list[dict[str, Any]]) -> None:  # noqa: ANN401
        for message in messages:
            exchange.handle_message(client, message)

    async with path.running():
        for _ in range(bursts):
            frames = path.closing_frames()
            messages = decode(frames)
            timed(_DECODING, lambda frames=frames: decode(frames))  # type: ignore[misc]
            for name, exchange in (
                (_CCXT, path.plain),
                (_TAP, ignoring),
                (_WHOLE, path.exchange),
            ):
                timed(name, lambda e=exchange, m=messages: hand_to(e, m))  # type: ignore[misc]
            await path.scheduler.wait_idle()
            forming = path.forming_frames()
            timed(_UPDATE, lambda f=forming: hand_to(path.exchange, decode(f)))  # type: ignore[misc]
        appended = path.metrics.registry.get_sample_value(
            "candlecast_feed_candles_total", {"verdict": "appended"}
        )
        assert appended == symbols * bursts, "not every candle was taken"
    await ignoring.close()
    return {name: values[2:] for name, values in found.items()}


def main() -> None:
    """Measure, print the table, write it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--symbols", type=int, default=1_000, help="closing at once")
    parser.add_argument("--bursts", type=int, default=60, help="how often")
    args = parser.parse_args()
    report: dict[str, Any] = {"machine": machine("ccxt", "orjson", "uvloop")}
    print_machine(report["machine"])
    with tempfile.TemporaryDirectory() as folder:
        found = uvloop.run(measure(args.symbols, args.bursts, Path(folder)))
    report["us_per_update"] = spread(found.pop(_UPDATE))._asdict()
    report["us_per_candle"] = {name: spread(values)._asdict() for name, values in found.items()}
    print_table(
        ("µs a closing candle", "p50", "p99", "max"),
        ((name, *row.values()) for name, row in report["us_per_candle"].items()),
    )
    print(f"{_UPDATE}: {report['us_per_update']['p50']:.2f} µs\n")
    save("receive", report)


if __name__ == "__main__":
    main()
