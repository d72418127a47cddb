"""Poll the HTTP pages of a daemon from outside."""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Final

from benchmarks.harness.processes import HOST

_READY_TIMEOUT_S: Final = 240.0
_POLL_INTERVAL_S: Final = 0.02
_SCRAPE_INTERVAL_S: Final = 1.037
_SERIES: Final = re.compile(r'candlecast_(\w+?)(?:\{\w+="(\w+)"\})? (\S+)')


class Scraper:
    """Scrape the metrics as Prometheus does."""

    def __init__(self, port: int) -> None:
        self._url = f"http://{HOST}:{port}/metrics"

    def scrape(self) -> dict[tuple[str, str], float]:
        """Every series, by name and the value of its label."""
        with urllib.request.urlopen(self._url, timeout=10) as answer:  # noqa: S310 - loopback
            text = answer.read().decode()
        return {
            (found[1], found[2] or ""): float(found[3])
            for line in text.splitlines()
            if (found := _SERIES.fullmatch(line))
        }

    @contextlib.contextmanager
    def scraping(self) -> Iterator[None]:
        """Scrape in a thread, about once a second, at varying distances from the bursts."""
        ended = threading.Event()

        def scrape() -> None:
            while not ended.wait(_SCRAPE_INTERVAL_S):
                self.scrape()

        thread = threading.Thread(target=scrape)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def wait_ready(port: int, daemon: subprocess.Popen[str]) -> None:
    """Wait until a daemon reports that it forecasts.

    Raises:
        AssertionError: it ended, or took too long.
    """
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://{HOST}:{port}/readyz", timeout=5).close()
            return
        assert daemon.poll() is None, "the daemon ended"
        assert time.monotonic() < deadline, "the daemon did not get ready"
        time.sleep(_POLL_INTERVAL_S)
