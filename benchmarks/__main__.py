"""Run the benchmarks one after the other and write their tables; `make bench` runs this.

    python -m benchmarks                    all of them, at most an hour
    python -m benchmarks engine soak        only these
    python -m benchmarks --quick            a few repetitions each, to check that all of them run

A benchmark that fails or exceeds its time limit is ended and reported at the end; the others still
run. Results are written to `benchmarks/results`, and from them the tables of `docs/performance.md`.
Quick runs write to a separate folder in it, with a copy of the page.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.harness.processes import mosquitto_program, python
from benchmarks.report import RESULTS, RESULTS_VARIABLE

_STOP_TIMEOUT_S: Final = 30.0


_LIMIT: Final = 1.2
"""A part may take so many times its expected minutes."""


class Part(NamedTuple):
    """A benchmark.

    Attributes:
        module: below `benchmarks`.
        minutes: expected on two idle cores.
        quick: arguments for a short run.
    """

    module: str
    minutes: float
    quick: str

    @property
    def limit_s(self) -> float:
        """Time limit, seconds."""
        return 60 * _LIMIT * self.minutes


PARTS: Final = {
    "pipeline": Part("daemon.pipeline", 22.4, "--sizes 20,200 --bursts 3 --rounds 1"),
    "engine": Part("network.engine", 3.7, "--sizes 1,32 --rounds 1"),
    "startup": Part("daemon.startup", 4, "--sizes 20 --starts 2"),
    "publishers": Part("daemon.publishers", 0.5, "--messages 200 --rounds 2"),
    "receive": Part("daemon.receive", 0.8, "--bursts 5"),
    "swap": Part("daemon.hot_swap", 1.7, "--symbols 20 --swaps 3"),
    "beside": Part("daemon.retrain_interference", 2.8, "--symbols 20 --pairs 1"),
    "soak": Part("daemon.soak", 3, "--days 0.1 --bursts 5"),
    "flamegraph": Part("daemon.flamegraph", 1.1, "--seconds 5 --symbols 200"),
    "training": Part("network.training", 6, "--windows 1000 --backends jax"),
}
"""Together at most 50 minutes, and so an hour at their limits."""


def run_part(name: str, results: Path, *, quick: bool) -> str | None:
    """Run one benchmark.

    Args:
        name: of the part.
        results: folder that it writes to.
        quick: a short run.

    Returns:
        Why it failed; None if it did not.
    """
    part = PARTS[name]
    arguments = part.quick.split() if quick else []
    # The tables must not show the result of an earlier run.
    (results / f"{name}.json").unlink(missing_ok=True)
    # A separate process group, which exchange, broker and daemon belong to and are ended with.
    child = subprocess.Popen(  # noqa: S603 - this project's own programs
        python(f"benchmarks.{part.module}", *arguments), start_new_session=True
    )
    try:
        code = child.wait(part.limit_s)
    except subprocess.TimeoutExpired:
        return f"ended after {part.limit_s:.0f} s"
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
    results = RESULTS / "quick" if args.quick else RESULTS
    if args.quick:
        os.environ[RESULTS_VARIABLE] = str(results)
    failed = {}
    for name in args.parts or PARTS:
        print(f"== {name}", flush=True)
        began_s = time.monotonic()
        reason = run_part(name, results, quick=args.quick)
        print(f"{name} took {time.monotonic() - began_s:.0f} s\n", flush=True)
        if reason is not None:
            failed[name] = reason
    written = subprocess.run(python("benchmarks.tables"), check=False)  # noqa: S603 - our own
    if written.returncode:
        failed["tables"] = f"exit code {written.returncode}"
    for name, reason in failed.items():
        print(f"{name} failed: {reason}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
