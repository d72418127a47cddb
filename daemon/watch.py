"""Read published forecasts from a broker and show them, as any other consumer could."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiomqtt
import orjson
from rich.live import Live

from daemon.topics import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from rich.console import Console

    from daemon.board import Board, Row

_REFRESH_PER_S = 4


async def forecasts(host: str, port: int) -> AsyncIterator[Mapping[str, Any]]:
    """Subscribe to every forecast of a broker.

    Raises:
        aiomqtt.MqttError: the broker cannot be reached or was lost.
    """
    async with aiomqtt.Client(host, port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe(f"{ROOT}/+/+/+/prediction", qos=1)
        async for message in client.messages:
            yield orjson.loads(message.payload)


async def watch(host: str, port: int, board: Board, console: Console) -> None:
    """Show forecasts until cancelled: a live table on a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        async for message in forecasts(host, port):
            console.print(line(message, board.update(message)), soft_wrap=True, highlight=False)
        return
    with Live(
        get_renderable=lambda: board.render(console.width, console.height),
        console=console,
        refresh_per_second=_REFRESH_PER_S,
    ):
        async for message in forecasts(host, port):
            board.update(message)


def line(message: Mapping[str, Any], row: Row) -> str:
    """One forecast as a plain line."""
    outcome = "" if row.outcome is None else f" · before: {row.outcome.realised:+.3%}"
    ratio = "" if row.mae_ratio is None else f" · error ÷ last value's {row.mae_ratio:.3f}"
    return (
        f"{message['symbol']} seq {message['seq']} close {message['last_close']:.8g} → "
        f"{message['predicted_close']:.8g} ({message['predicted_return']:+.4%})"
        f"{outcome}{ratio} · ready {message['latency_ms']['ready']:.2f} ms"
    )
