"""Read recorded messages of an exchange, and describe their structure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from daemon.sandbox.market import Faults, Market
from daemon.sandbox.recording import Playback
from tests.sandbox.scaled import MINUTE, RECORDING

ORIGIN_MS = 1_700_000_040_000


def messages(shared_dir: Path, name: str, direction: str = "recv") -> list[Any]:
    """The messages of a recording in one direction."""
    lines = (shared_dir / "fixtures" / "ws" / f"{name}.jsonl").read_text().splitlines()
    found = [line for line in map(json.loads, lines) if line.get("dir") == direction]
    return [line["data"] for line in found]


def form(value: Any) -> Any:
    """The keys of a message in order, with the types of its values; lists as sets of item types."""
    if isinstance(value, dict):
        return tuple((key, form(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return frozenset(form(inner) for inner in value)
    # JSON has one number type; integers are written without a decimal point.
    return float if type(value) is int else type(value)


def market_of(symbol: str, faults: Faults | None = None) -> Market:
    """A market of one symbol."""
    playback = Playback(RECORDING, MINUTE, ORIGIN_MS, {symbol: 0}, 3_600)
    return Market(playback, faults or Faults())
