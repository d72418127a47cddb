"""Recorded messages of an exchange, and their form: keys in their order and types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from daemon.sandbox.market import Faults, Market
from daemon.sandbox.recording import Playback
from tests.sandbox.scaled import MINUTE, RECORDING

ORIGIN_MS = 1_700_000_040_000


def messages(shared_dir: Path, name: str, direction: str = "recv") -> list[Any]:
    """What a recording holds in one direction."""
    lines = (shared_dir / "fixtures" / "ws" / f"{name}.jsonl").read_text().splitlines()
    found = [line for line in map(json.loads, lines) if line.get("dir") == direction]
    return [line["data"] for line in found]


def form(value: Any) -> Any:
    """Keys in order and types of what is in a message; lists by what kinds of item they hold."""
    if isinstance(value, dict):
        return tuple((key, form(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return frozenset(form(inner) for inner in value)
    # JSON has one kind of number, and writes the whole ones without a point.
    return float if type(value) is int else type(value)


def market_of(symbol: str, faults: Faults | None = None) -> Market:
    """A market of one symbol with the recorded exchange's name for it."""
    playback = Playback(RECORDING, MINUTE, ORIGIN_MS, {symbol: 0}, 3_600)
    return Market(playback, faults or Faults())
