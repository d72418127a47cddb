"""Every benchmark, one after the other; `make bench` runs this.

    python -m benchmarks                    all of them, about an hour
    python -m benchmarks engine soak        these
    python -m benchmarks --quick            a few repetitions each, to see that all of them run

One that fails or takes too long is ended and named at the end, and the others are run. Results go
to `benchmarks/results`, from where `python -m benchmarks.tables` puts them into
`docs/performance.md`; those of quick runs go to a folder of their own in it.
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

_ENDED_S: Final = 30.0


class Part(NamedTuple):
    """A benchmark.

    Attributes:
        limit_min: it is ended after so many minutes; twice what it takes on two idle cores.
        quick: arguments for a short run.
    """

    limit_min: float
    quick: str


PARTS: Final = {
    "engine": Part(20, "--sizes 1,32 --rounds 1"),
    "pipeline": Part(70, "--sizes 20,200 --bursts 3 --rounds 1"),
    "startup": Part(15, "--sizes 20 --starts 2"),
    "publishers": Part(5, "--messages 200 --rounds 2"),
    "receive": Part(5, "--bursts 5"),
    "swap": Part(20, "--symbols 20 --swaps 3"),
    "beside": Part(15, "--symbols 20 --pairs 1"),
    "soak": Part(15, "--days 0.1 --bursts 5"),
    "flamegraph": Part(5, "--seconds 5 --symbols 200"),
}


def run(name: str, arguments: list[str], limit_s: float) -> str | None:
    """Run one; what went wrong, if anything did."""
    # A group of its own, so that exchange, broker and daemon end with it.
    child = subprocess.Popen(  # noqa: S603 - this project's own programs
        python(f"benchmarks.{name}", *arguments), start_new_session=True
    )
    try:
        code = child.wait(limit_s)
    except subprocess.TimeoutExpired:
        return f"ended after {limit_s / 60:.0f} minutes"
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
            child.wait(_ENDED_S)


def main() -> int:
    """Run them; 1 when one failed, 2 when something that they need is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default: all")
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
        part = PARTS[name]
        print(f"== {name}", flush=True)
        began_s = time.monotonic()
        what = run(name, part.quick.split() if args.quick else [], 60 * part.limit_min)
        print(f"{name} took {time.monotonic() - began_s:.0f} s\n", flush=True)
        if what is not None:
            failed[name] = what
    for name, what in failed.items():
        print(f"{name} failed: {what}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
