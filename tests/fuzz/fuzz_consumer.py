"""Fuzz what `candlecast watch` reads from the broker and draws."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from daemon.watch.board import Board
from daemon.watch.keyboard import TableView
from daemon.watch.messages import parse_forecast, parse_status
from daemon.watch.table import render
from tests.fuzz.target import Target

_SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "prediction.schema.json"
_FORECASTS = [
    json.dumps(example).encode()
    for example in json.loads(_SCHEMA.read_text(encoding="utf-8"))["examples"]
]
_STATUS = b'{"schema":1,"instance":"trader-1","state":"online","stale_symbols":["A/B"]}'
_NOW_MS = 1_776_859_650_000


def shown(data: bytes) -> None:
    """Take in one message a line, and draw the table after the last."""
    board = Board("fuzz")
    for payload in data.split(b"\n"):
        if (forecast := parse_forecast(payload)) is not None:
            board.on_forecast(forecast)
        if (status := parse_status(payload)) is not None:
            board.on_status(status)
    console = Console(file=io.StringIO(), width=100, height=20)
    console.print(render(board, (100, 20), _NOW_MS, TableView()))


TARGETS = {
    "consumer": Target(shown, (*_FORECASTS, _STATUS, b"\n".join([*_FORECASTS, _STATUS, b"[]"])))
}
