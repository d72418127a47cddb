"""Draw the event loop's time during bursts of closing candles as a flame graph.

    python -m benchmarks.daemon.flamegraph
    python -m benchmarks.daemon.flamegraph --symbols 200 --seconds 5

Runs exchange, broker, subscriber and daemon like `benchmarks.daemon.pipeline`. Austin samples the
daemon's main thread from outside while it works. The worker threads, which prepare the next candles
and write the history, are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.harness.pipeline_run import DAEMONS
from benchmarks.harness.processes import exchange, free_port, mosquitto, python, running
from benchmarks.harness.scraper import wait_ready
from benchmarks.harness.tiny_champion import HISTORY, prepare
from benchmarks.report import save_text

_ROOMS: Final = ("config", "daemon", "model")
_COLOURS: Final = {
    "candlecast": "#f3b562",
    "ccxt and the websocket": "#e98074",
    "numpy and ONNX Runtime": "#8fb8de",
    "other libraries": "#cfcfcf",
}
_PACKAGES: Final = {
    "ccxt": "ccxt and the websocket",
    "aiohttp": "ccxt and the websocket",
    "numpy": "numpy and ONNX Runtime",
    "onnxruntime": "numpy and ONNX Runtime",
}
_WIDTH: Final = 1_000
_ROW: Final = 19
_HEAD: Final = 44
_CHAR: Final = 6.7
_MIN_SHARE: Final = 0.003
"""Frames with a smaller share are not drawn."""

_MIN_LABEL_CHARS: Final = 4
_TRUNK_SHARE: Final = 0.9
"""Outer functions with at least this share of their caller's time are not drawn."""

_SAMPLE_INTERVAL_US: Final = 250
_WARM_UP_S: Final = 5.0
_ATTACH_TIMEOUT_S: Final = 30.0


class Function(NamedTuple):
    """A function: its name as drawn, and its author."""

    name: str
    author: str


LOOP: Final = Function("uvloop: sockets and scheduling", "other libraries")


class Frame:
    """A function in one call path, with its time and its callees."""

    def __init__(self) -> None:
        self.time_us = 0
        self.callees: dict[Function, Frame] = {}

    def add(self, stack: list[Function], time_us: int) -> None:
        """Count a sample of a stack, outermost function first."""
        frame = self
        frame.time_us += time_us
        for function in stack:
            frame = frame.callees.setdefault(function, Frame())
            frame.time_us += time_us

    def depth(self, least_us: float) -> int:
        """Number of levels that are drawn."""
        drawn = [c.depth(least_us) for c in self.callees.values() if c.time_us >= least_us]
        return 1 + max(drawn, default=0)


def read(text: str) -> Frame:
    """Stacks of the main thread, one a line: ``Ppid;Tinterpreter:thread;file:function:line;… µs``.

    Functions that the whole program runs in, from the interpreter's start to the loop, are left
    out, and so are incomplete stacks, which sampling a running thread from outside can give. Time
    of the loop outside any Python function counts as the loop's: uvloop is compiled.
    """
    root = Frame()
    for line in text.splitlines():
        stack, _, time_us = line.rpartition(" ")
        process, _, rest = stack.partition(";")
        thread, _, frames = rest.partition(";")
        if process.startswith("P") and thread.rpartition(":")[2] == process[1:] and frames:
            root.add([_function(frame) for frame in frames.split(";")], int(time_us))
    while root.callees:
        largest = max(root.callees.values(), key=lambda frame: frame.time_us)
        if largest.time_us < _TRUNK_SHARE * root.time_us:
            break
        root = largest
    own_us = root.time_us - sum(callee.time_us for callee in root.callees.values())
    root.callees.setdefault(LOOP, Frame()).time_us += own_us
    return root


def _function(frame: str) -> Function:
    path, name, _ = frame.rsplit(":", 2)
    parts = Path(path).parts
    author = "other libraries"
    if "site-packages" in parts:
        author = _PACKAGES.get(parts[parts.index("site-packages") + 1], author)
    elif Path(path).is_absolute() and parts[-2:-1] and _is_ours(Path(path)):
        author = "candlecast"
    name = name.replace(".<locals>", "")
    return Function(name if "." in name else f"{Path(path).stem}.{name}", author)


def _is_ours(path: Path) -> bool:
    repository = Path(__file__).parents[2]
    return path.is_relative_to(repository) and path.relative_to(repository).parts[0] in _ROOMS


def draw(root: Frame, title: str) -> str:
    """The graph as SVG: callers above, callees below, width by time."""
    least_us = _MIN_SHARE * root.time_us
    height = _HEAD + _ROW * root.depth(least_us)
    boxes: list[str] = []

    def box(function: Function, frame: Frame, left: float, level: int) -> None:
        width = _WIDTH * frame.time_us / root.time_us
        top = _HEAD + level * _ROW
        name = f"{function.name} {100 * frame.time_us / root.time_us:.1f} %"
        room = int((width - 4) / _CHAR)
        text = function.name
        if len(text) > room:
            text = text.rpartition(".")[2]
        if len(text) > room:
            text = text[: room - 1] + "…"
        label = f'<text x="{left + 3:.1f}" y="{top + 13}">{escape(text)}</text>'
        boxes.append(
            f'<g><title>{escape(name)}</title><rect x="{left:.1f}" y="{top}" '
            f'width="{max(0.5, width - 0.6):.1f}" height="{_ROW - 1}" '
            f'fill="{_COLOURS[function.author]}"/>{label if room >= _MIN_LABEL_CHARS else ""}</g>'
        )
        below(frame, left, level + 1)

    def below(frame: Frame, left: float, level: int) -> None:
        for function, callee in sorted(frame.callees.items(), key=lambda pair: -pair[1].time_us):
            if callee.time_us >= least_us:
                box(function, callee, left, level)
            left += _WIDTH * callee.time_us / root.time_us

    below(root, 0.0, 0)
    legend = "".join(
        f'<rect x="{245 * number}" y="24" width="12" height="12" fill="{colour}"/>'
        f'<text x="{245 * number + 17}" y="34">{who}</text>'
        for number, (who, colour) in enumerate(_COLOURS.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}">'
        "<style>text{font:11px monospace;fill:#111}</style>"
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>'
        f'<text x="0" y="13">{escape(title)}</text>{legend}\n' + "\n".join(boxes) + "\n</svg>\n"
    )


def sampler() -> Path:
    """Path of Austin's program; exits with one line if it is not installed."""
    for folder in (*map(Path, sys.path), Path(sys.executable).parent):
        for program in (folder / "bin" / "austin", folder / "austin"):
            if program.is_file() and os.access(program, os.X_OK):
                return program
    sys.exit("this benchmark needs austin-dist (benchmarks/requirements.in)")


def record(symbols: int, seconds: int) -> str:
    """Sample a daemon during bursts; returns Austin's stacks."""
    austin = sampler()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        market = stack.enter_context(exchange(folder, symbols, HISTORY))
        port, http_port = stack.enter_context(mosquitto(folder)).port, free_port()
        config = prepare(folder, market, port, http_port)
        words = str(port), str(folder / "received")
        stack.enter_context(
            running(*python("benchmarks.harness.subscriber", *words), log=folder / "log")
        )
        command = (*DAEMONS["ours"].command, str(config))
        daemon = stack.enter_context(running(*command, log=folder / "daemon.log"))
        wait_ready(http_port, daemon)
        time.sleep(_WARM_UP_S)
        stacks = folder / "stacks"
        options = {"-p": daemon.pid, "-i": _SAMPLE_INTERVAL_US, "-x": seconds, "-o": stacks}
        arguments = [str(word) for pair in options.items() for word in pair]
        subprocess.run(  # noqa: S603 - a tool of these benchmarks
            [austin, "-s", *arguments],
            check=True,
            capture_output=True,
            timeout=seconds + _ATTACH_TIMEOUT_S,
        )
        return stacks.read_text(encoding="utf-8")


def main() -> None:
    """Record stacks and draw the graph."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--symbols", type=int, default=1_000, help="closing at once")
    parser.add_argument("--seconds", type=int, default=20, help="of sampling")
    args = parser.parse_args()
    root = read(record(args.symbols, args.seconds))
    if not root.time_us:
        sys.exit("Austin sampled no stack of the daemon's main thread")
    title = (
        f"{args.symbols:,} symbols closing in the same instant, once a second, for "
        f"{args.seconds} s: {root.time_us / 1e3 / args.seconds:.0f} ms of the event loop a second"
    )
    save_text("burst.svg", draw(root, title))


if __name__ == "__main__":
    main()
