"""Where the event loop's time goes while bursts of closing candles pass, as a flame graph.

    python -m benchmarks.flamegraph docs/burst.svg

Runs exchange, broker, subscriber and daemon like `benchmarks.pipeline` and samples the daemon's
main thread with py-spy; the worker threads, which prepare the next candles, are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from html import escape
from pathlib import Path
from typing import Final

from benchmarks.market import HISTORY, prepare
from benchmarks.pipeline_run import DAEMONS, wait_ready
from benchmarks.processes import exchange, free_port, mosquitto, python, running

_WIDTH: Final = 1_000
_HEIGHT: Final = 16
_LEAST: Final = 0.004
"""Frames with a smaller share are not drawn."""

_CHAR: Final = 6.2
_SETTLE_S: Final = 5.0


class Frame:
    """A function under its callers, with its samples and callees."""

    def __init__(self) -> None:
        self.samples = 0
        self.callees: dict[str, Frame] = {}

    def add(self, stack: list[str], samples: int) -> None:
        """Count samples of a stack, outermost function first."""
        frame = self
        frame.samples += samples
        for name in stack:
            frame = frame.callees.setdefault(name, Frame())
            frame.samples += samples

    def depth(self, least: float) -> int:
        """Levels that are drawn."""
        drawn = [c.depth(least) for c in self.callees.values() if c.samples >= least]
        return 1 + max(drawn, default=0)


def read(raw: str) -> Frame:
    """Stacks of the main thread, one a line: ``frame;frame;… samples``."""
    root = Frame()
    for line in raw.splitlines():
        stack, _, samples = line.rpartition(" ")
        thread, *names = stack.split(";")
        if "MainThread" in thread:
            root.add([_short(name) for name in names], int(samples))
    return root


def _short(name: str) -> str:
    """``function (path/file.py:7)`` as ``function file.py``."""
    function, _, place = name.partition(" (")
    return f"{function} {place.rpartition('/')[2].partition(':')[0].rstrip(')')}".strip()


def draw(root: Frame) -> str:
    """The graph as SVG: callers above, callees below, width by samples."""
    least = _LEAST * root.samples
    height = _HEIGHT * (root.depth(least) + 1)
    boxes: list[str] = []

    def box(name: str, frame: Frame, left: float, level: int) -> None:
        width = _WIDTH * frame.samples / root.samples
        share = f"{100 * frame.samples / root.samples:.1f} %"
        hue = 20 + sum(map(ord, name)) % 35
        top = level * _HEIGHT
        text = escape(name[: int(width / _CHAR)]) if width > 4 * _CHAR else ""
        boxes.append(
            f'<g><title>{escape(name)}: {share}</title><rect x="{left:.1f}" y="{top}" '
            f'width="{width:.1f}" height="{_HEIGHT - 1}" fill="hsl({hue},85%,66%)"/>'
            f'<text x="{left + 2:.1f}" y="{top + 11}">{text}</text></g>'
        )
        for callee, inner in sorted(frame.callees.items(), key=lambda item: -item[1].samples):
            if inner.samples >= least:
                box(callee, inner, left, level + 1)
            left += _WIDTH * inner.samples / root.samples

    box("event loop", root, 0.0, 0)
    style = "text{font:10px monospace}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}">'
        f"<style>{style}</style>\n" + "\n".join(boxes) + "\n</svg>\n"
    )


def record(symbols: int, seconds: int) -> str:
    """Sample a daemon under bursts; py-spy's raw stacks."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        market = stack.enter_context(exchange(folder, symbols, HISTORY))
        port, http_port = stack.enter_context(mosquitto(folder)), free_port()
        config = prepare(folder, market, port, http_port)
        words = str(port), str(folder / "received")
        stack.enter_context(running(*python("benchmarks.subscriber", *words), log=folder / "log"))
        command = (*DAEMONS["ours"].command, str(config))
        daemon = stack.enter_context(running(*command, log=folder / "daemon.log"))
        wait_ready(http_port, daemon)
        time.sleep(_SETTLE_S)
        raw = folder / "raw"
        options = {
            "--pid": daemon.pid,
            "--rate": 500,
            "--duration": seconds,
            "--format": "raw",
            "--output": raw,
        }
        arguments = [str(word) for pair in options.items() for word in pair]
        spy = Path(sys.executable).with_name("py-spy")
        subprocess.run(  # noqa: S603 - a tool of these benchmarks
            [spy, "record", "--threads", "--nonblocking", *arguments],
            check=True,
            capture_output=True,
        )
        return raw.read_text(encoding="utf-8")


def main() -> None:
    """Record and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("svg", type=Path, help="where to draw")
    parser.add_argument("--symbols", type=int, default=1_000, help="closing at once")
    parser.add_argument("--seconds", type=int, default=30, help="of sampling")
    args = parser.parse_args()
    root = read(record(args.symbols, args.seconds))
    args.svg.write_text(draw(root), encoding="utf-8")
    print(f"{root.samples} samples: {args.svg}")


if __name__ == "__main__":
    main()
