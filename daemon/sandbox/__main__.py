"""Run the simulated exchange as a process of its own.

It prints its addresses as one line of JSON when it is ready, and ends on SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import orjson

from daemon.runtime.clock import SystemClock
from daemon.sandbox import EXCHANGES
from daemon.sandbox.exchange import Behaviour, SandboxExchange, shortest_timeframe
from daemon.sandbox.market import Faults
from daemon.sandbox.recording import RECORDING_15M, Playback, build_playback, load_recording
from model.core.candle import Timeframe
from model.core.errors import CandlecastError
from model.files.csv_reader import FileRules


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m daemon.sandbox", description=__doc__)
    default = Behaviour()
    add = parser.add_argument
    add("--exchange", choices=EXCHANGES, default=EXCHANGES[0], help="ccxt id (default: binance)")
    add("--timeframe", help="timeframe of the candles (default: the exchange's shortest)")
    add("--symbols", type=int, default=4, help="number of symbols: S00/USDT, S01/USDT …")
    add("--history", type=int, default=1_500, help="number of candles before the start")
    add("--origin-ms", type=int, help="opening of the first candle; replaces --history")
    add("--data", type=Path, default=RECORDING_15M, help="CSV file of recorded candles")
    add("--slice-rows", type=int, default=3_600, help="candles before a symbol repeats")
    add("--updates", type=int, default=default.updates, help="forming updates per candle")
    add(
        "--close-delay-ms",
        type=float,
        default=default.close_delay_s * 1e3,
        help="from the boundary to the closing messages",
    )
    add(
        "--close-jitter-ms",
        type=float,
        default=default.close_jitter_s * 1e3,
        help="largest random addition to that delay",
    )
    add(
        "--encode-ahead-ms",
        type=float,
        default=default.encode_ahead_s * 1e3,
        help="encode the closing messages so long before, and send them with one write",
    )
    add("--seed", type=int, default=default.seed, help="of the random delay")
    add("--max-streams", type=int, default=default.max_streams, help="streams per connection")
    add("--every", type=int, default=1, metavar="N", help="stream only every Nth candle")
    add(
        "--ping-interval-s",
        type=float,
        default=default.ping_interval_s,
        help="seconds between ping frames",
    )
    add("--rest-port", type=int, default=0, help="default: a free port")
    add("--ws-port", type=int, default=0, help="default: a free port")
    add(
        "--bursts",
        type=Path,
        metavar="FILE",
        help="write a line per burst of closing messages: opening (Unix ms), monotonic time (ns)",
    )
    return parser.parse_args()


def _playback(args: argparse.Namespace) -> Playback:
    timeframe = Timeframe.parse(args.timeframe or shortest_timeframe(args.exchange))
    origin_ms = args.origin_ms
    if origin_ms is None:
        origin_ms = timeframe.floor(SystemClock().wall_ms()) - args.history * timeframe.ms
    return build_playback(
        args.symbols,
        timeframe,
        origin_ms,
        recording=load_recording(args.data, FileRules(report=_print_error)),
        slice_rows=args.slice_rows,
    )


def _print_error(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _stream_every(
    faults: Faults, log_burst: Callable[[int], None], step_ms: int, every: int
) -> Callable[[int], None]:
    """Return an ``on_closing`` that logs streamed candles and silences all but every Nth one."""

    def on_closing(open_ms: int) -> None:
        if not faults.silent:
            log_burst(open_ms)
        faults.silent = (open_ms // step_ms + 1) % every > 0

    return on_closing


@contextmanager
def _burst_log(path: Path | None) -> Iterator[Callable[[int], None]]:
    """Open a log of when each burst of closing messages begins; do nothing without a path."""
    if path is None:
        yield lambda open_ms: None  # noqa: ARG005
        return
    clock = SystemClock()
    with path.open("w", buffering=1, encoding="ascii") as file:
        yield lambda open_ms: print(open_ms, round(clock.monotonic() * 1e9), file=file)


async def _run(args: argparse.Namespace, playback: Playback) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    behaviour = Behaviour(
        updates=args.updates,
        close_delay_s=args.close_delay_ms / 1e3,
        close_jitter_s=args.close_jitter_ms / 1e3,
        encode_ahead_s=args.encode_ahead_ms / 1e3,
        seed=args.seed,
        max_streams=args.max_streams,
        ping_interval_s=args.ping_interval_s,
        rest_port=args.rest_port,
        ws_port=args.ws_port,
    )
    async with AsyncExitStack() as stack:
        faults, log_burst = Faults(), stack.enter_context(_burst_log(args.bursts))
        exchange = await stack.enter_async_context(
            SandboxExchange(
                playback,
                name=args.exchange,
                behaviour=behaviour,
                faults=faults,
                on_closing=_stream_every(faults, log_burst, playback.timeframe.ms, args.every),
            )
        )
        ready = {
            "rest_url": exchange.rest_url,
            "ws_url": exchange.ws_url,
            "timeframe": playback.timeframe.text,
            "origin_ms": playback.origin_ms,
            "slice_rows": playback.slice_rows,
            "symbols": playback.symbols,
        }
        # A garbage collection of the permanent objects would delay a burst, and measurements would
        # attribute the delay to the client.
        gc.collect()
        gc.freeze()
        sys.stdout.write(orjson.dumps(ready).decode() + "\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> int:
    """Run until SIGTERM or SIGINT; return the exit code, 0 or 1."""
    try:
        args = _arguments()
        asyncio.run(_run(args, _playback(args)))
    except CandlecastError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
