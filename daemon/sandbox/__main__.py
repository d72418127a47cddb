"""The sandbox exchange as its own process.

Prints its addresses as one JSON line when it is ready, and ends on SIGTERM or SIGINT.
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
from daemon.sandbox.exchange import Behaviour, SandboxExchange, finest
from daemon.sandbox.market import Faults
from daemon.sandbox.recording import RECORDING_15M, Tape, build_tape, load_recording
from model.core.candle import Timeframe
from model.core.errors import CandlecastError
from model.files.csv_reader import FileRules


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m daemon.sandbox", description=__doc__)
    default = Behaviour()
    parser.add_argument("--exchange", choices=EXCHANGES, default=EXCHANGES[0])
    parser.add_argument("--timeframe", help="grid of the candles (default: the exchange's finest)")
    parser.add_argument("--symbols", type=int, default=4, help="S00/USDT, S01/USDT …")
    parser.add_argument("--history", type=int, default=1_500, help="candles before the start")
    parser.add_argument("--origin-ms", type=int, help="opening of the first candle, instead")
    parser.add_argument("--data", type=Path, default=RECORDING_15M, help="recorded candles, CSV")
    parser.add_argument("--slice-rows", type=int, default=3_600, help="candles until it repeats")
    parser.add_argument("--updates", type=int, default=default.updates)
    parser.add_argument("--close-delay-ms", type=float, default=default.close_delay_s * 1e3)
    parser.add_argument("--close-jitter-ms", type=float, default=default.close_jitter_s * 1e3)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--max-streams", type=int, default=default.max_streams)
    parser.add_argument("--every", type=int, default=1, help="candles, of which one is streamed")
    parser.add_argument("--ping-interval-s", type=float, default=default.ping_interval_s)
    parser.add_argument("--rest-port", type=int, default=0)
    parser.add_argument("--ws-port", type=int, default=0)
    parser.add_argument(
        "--bursts", type=Path, help="file for a line per closing burst: open ms, monotonic ns"
    )
    return parser.parse_args()


def _tape(args: argparse.Namespace) -> Tape:
    timeframe = Timeframe.parse(args.timeframe or finest(args.exchange))
    origin_ms = args.origin_ms
    if origin_ms is None:
        origin_ms = timeframe.floor(SystemClock().wall_ms()) - args.history * timeframe.ms
    return build_tape(
        args.symbols,
        timeframe,
        origin_ms,
        recording=load_recording(args.data, FileRules(report=_note)),
        slice_rows=args.slice_rows,
    )


def _note(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _sparing(
    faults: Faults, note: Callable[[int], None], step_ms: int, every: int
) -> Callable[[int], None]:
    """Notes the candles that are streamed, and keeps the exchange silent between them."""

    def on_closing(open_ms: int) -> None:
        if not faults.silent:
            note(open_ms)
        faults.silent = (open_ms // step_ms + 1) % every > 0

    return on_closing


@contextmanager
def _noting(path: Path | None) -> Iterator[Callable[[int], None]]:
    """Writes down when each closing burst begins, where somebody wants to know."""
    if path is None:
        yield lambda open_ms: None  # noqa: ARG005
        return
    clock = SystemClock()
    with path.open("w", buffering=1, encoding="ascii") as file:
        yield lambda open_ms: print(open_ms, round(clock.monotonic() * 1e9), file=file)


async def _run(args: argparse.Namespace, tape: Tape) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    behaviour = Behaviour(
        updates=args.updates,
        close_delay_s=args.close_delay_ms / 1e3,
        close_jitter_s=args.close_jitter_ms / 1e3,
        seed=args.seed,
        max_streams=args.max_streams,
        ping_interval_s=args.ping_interval_s,
        rest_port=args.rest_port,
        ws_port=args.ws_port,
    )
    async with AsyncExitStack() as stack:
        faults, note = Faults(), stack.enter_context(_noting(args.bursts))
        exchange = await stack.enter_async_context(
            SandboxExchange(
                tape,
                name=args.exchange,
                behaviour=behaviour,
                faults=faults,
                on_closing=_sparing(faults, note, tape.timeframe.ms, args.every),
            )
        )
        ready = {
            "rest_url": exchange.rest_url,
            "ws_url": exchange.ws_url,
            "timeframe": tape.timeframe.text,
            "origin_ms": tape.origin_ms,
            "slice_rows": tape.slice_rows,
            "symbols": tape.symbols,
        }
        # Looking for garbage among all that stays would hold up a burst, which a client is then
        # thought to be slow in.
        gc.collect()
        gc.freeze()
        sys.stdout.write(orjson.dumps(ready).decode() + "\n")
        sys.stdout.flush()
        await ended.wait()


def main() -> int:
    """Run until told to stop; 0 after a clean end, 1 after a refusal."""
    try:
        args = _arguments()
        asyncio.run(_run(args, _tape(args)))
    except CandlecastError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
