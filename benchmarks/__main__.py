"""Run the benchmarks one after the other; `make bench` runs this.

    python -m benchmarks                    all of them, about an hour
    python -m benchmarks engine soak        only these
    python -m benchmarks --quick            a few repetitions each, to check that all of them run

A benchmark that fails or exceeds its time limit is ended and reported at the end; the others still
run. Results are written to `benchmarks/results`, and `python -m benchmarks.tables` puts them into
`docs/performance.md`. Quick runs write to a separate folder in it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import Final, NamedTuple

from benchmarks.harness.processes import mosquitto_program, python
from benchmarks.report import RESULTS, RESULTS_VARIABLE

_STOP_TIMEOUT_S: Final = 30.0


class Part(NamedTuple):
    """A benchmark.

    Attributes:
        module: below `benchmarks`.
        limit_min: time limit in minutes, twice the duration on two idle cores.
        quick: arguments for a short run.
    """

    module: str
    limit_min: float
    quick: str


PARTS: Final = {
    "engine": Part("network.engine", 20, "--sizes 1,32 --rounds 1"),
    "pipeline": Part("daemon.pipeline", 70, "--sizes 20,200 --bursts 3 --rounds 1"),
    "startup": Part("daemon.startup", 15, "--sizes 20 --starts 2"),
    "publishers": Part("daemon.publishers", 5, "--messages 200 --rounds 2"),
    "receive": Part("daemon.receive", 5, "--bursts 5"),
    "swap": Part("daemon.hot_swap", 20, "--symbols 20 --swaps 3"),
    "beside": Part("daemon.retrain_interference", 15, "--symbols 20 --pairs 1"),
    "soak": Part("daemon.soak", 15, "--days 0.1 --bursts 5"),
    "flamegraph": Part("daemon.flamegraph", 5, "--seconds 5 --symbols 200"),
}


def run_part(name: str, *, quick: bool) -> str | None:
    """Run one benchmark.

    Args:
        name: of the part.
        quick: a short run.

    Returns:
        Why it failed; None if it did not.
    """
    part = PARTS[name]
    arguments = part.quick.split() if quick else []
    # A separate process group, which exchange, broker and daemon belong to and are ended with.
    child = subprocess.Popen(  # noqa: S603 - this project's own programs
        python(f"benchmarks.{part.module}", *arguments), start_new_session=True
    )
    try:
        code = child.wait(60 * part.limit_min)
    except subprocess.TimeoutExpired:
        return f"ended after {part.limit_min:.0f} minutes"
    except KeyboardInterrupt:
        sys.exit(f"interrupted in {name}")
    finally:
        _end(child)
    return None if code == 0 else f"exit code {code}"


def _end(child: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_STOP_TIMEOUT_S)


def main() -> int:
    """Run the chosen parts; exit code 1 if one failed, 2 if mosquitto is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", help=f"parts to run: {', '.join(PARTS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="few repetitions, small sizes")
    args = parser.parse_args()
    if unknown := [name for name in args.parts if name not in PARTS]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if mosquitto_program() is None:
        print("the benchmarks need mosquitto; install it first", file=sys.stderr)
        return 2
    if args.quick:
        os.environ[RESULTS_VARIABLE] = str(RESULTS / "quick")
    failed = {}
    for name in args.parts or PARTS:
        print(f"== {name}", flush=True)
        began_s = time.monotonic()
        reason = run_part(name, quick=args.quick)
        print(f"{name} took {time.monotonic() - began_s:.0f} s\n", flush=True)
        if reason is not None:
            failed[name] = reason
    for name, reason in failed.items():
        print(f"{name} failed: {reason}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
