"""Subscribe to published forecasts and show them in a terminal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import aiomqtt
from rich.live import Live

from daemon.mqtt.topics import ROOT
from daemon.runtime.address import host_port
from daemon.runtime.backoff import Backoff
from daemon.runtime.tasks import unwrap_expected
from daemon.watch.keyboard import TableView, read_keys
from daemon.watch.messages import parse_forecast, parse_status
from daemon.watch.table import render
from model.core.errors import BrokerError, CandlecastError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import Console, ConsoleRenderable

    from daemon.mqtt.broker import Broker
    from daemon.runtime.clock import Clock
    from daemon.watch.board import Board, Row

_REFRESH_PER_S: Final = 4
_RECONNECT_MIN_S: Final = 0.5
_RECONNECT_MAX_S: Final = 5.0
_FORECASTS: Final = f"{ROOT}/+/+/+/prediction"
_STATUSES: Final = f"{ROOT}/status/+"
_MAX_QUEUED: Final = 10_000
"""Messages that wait to be shown; further ones are dropped, since newer ones follow."""

_KEY_HELP: Final = "q quits · / filters · s sorts · ↑ ↓ scroll"


async def watch(
    broker: Broker,
    board: Board,
    console: Console,
    clock: Clock,
    on_quit: Callable[[], None],
) -> None:
    """Show forecasts until cancelled: a live table on a terminal, plain lines elsewhere.

    Args:
        broker: the broker to subscribe to.
        board: receives the forecasts.
        console: where they are shown.
        clock: determines which forecasts have expired.
        on_quit: called when q is pressed.

    Raises:
        BrokerError: the first connection fails; a lost one is restored.
    """
    if not console.is_terminal:

        def write(message: Mapping[str, Any], row: Row) -> None:
            # Rich would end the process when the reader of a pipe has closed it.
            console.file.write(f"{format_line(message, row)}\n")
            console.file.flush()

        await _receive(broker, board, clock, write)
        return
    view = TableView()

    def draw() -> ConsoleRenderable:
        return render(board, (console.width, console.height), clock.wall_ms(), view, _KEY_HELP)

    with Live(get_renderable=draw, console=console, refresh_per_second=_REFRESH_PER_S) as live:

        def on_key(key: str) -> None:
            if view.press(key):
                on_quit()
            live.refresh()

        with read_keys(asyncio.get_running_loop(), on_key):
            await _receive(broker, board, clock, lambda message, row: None)  # noqa: ARG005


async def watch_until(
    stop: asyncio.Event, broker: Broker, board: Board, console: Console, clock: Clock
) -> None:
    """`candlecast watch`: show forecasts until ``stop`` is set.

    Raises:
        BrokerError: the broker cannot be reached.
        BrokenPipeError: the reader of the output has closed it.
    """
    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch(broker, board, console, clock, stop.set))
            await stop.wait()
            watching.cancel()
    except ExceptionGroup as group_error:
        raise unwrap_expected(group_error, (CandlecastError, BrokenPipeError)) from None


async def _receive(
    broker: Broker,
    board: Board,
    clock: Clock,
    on_forecast: Callable[[Mapping[str, Any], Row], None],
) -> None:
    """Receive messages; restore a lost connection, but fail if the first one cannot be made."""
    backoff, met = Backoff(_RECONNECT_MIN_S, _RECONNECT_MAX_S), False
    address = host_port(broker.host, broker.port)
    while True:
        try:
            async with connect(broker) as client:
                for topic in (_STATUSES, _FORECASTS):
                    await _subscribe(client, topic, address)
                board.error, met = None, True
                backoff.reset()
                async for message in client.messages:
                    _on_message(message, board, on_forecast)
        except aiomqtt.MqttError as error:
            if not met:
                msg = f"cannot read from the MQTT broker at {address}: {error}"
                raise BrokerError(msg) from None
            board.error = f"no broker at {address} ({error}); trying again"
        await clock.sleep(backoff.next_delay_s())


async def _subscribe(client: aiomqtt.Client, topic: str, address: str) -> None:
    """Subscribe to a topic.

    Raises:
        BrokerError: the broker does not allow it.
    """
    for code in await client.subscribe(topic, qos=1):
        if not isinstance(code, int) and code.is_failure:
            msg = f"the MQTT broker at {address} denies reading {topic} ({code})"
            raise BrokerError(msg)


def connect(broker: Broker) -> aiomqtt.Client:
    """Return a client of the broker; enter it to connect."""
    version = aiomqtt.ProtocolVersion.V5 if broker.version == "5" else aiomqtt.ProtocolVersion.V311
    return aiomqtt.Client(
        broker.host,
        broker.port,
        username=broker.username,
        password=broker.password,
        keepalive=broker.keepalive_s,
        protocol=version,
        tls_context=broker.tls,
        max_queued_incoming_messages=_MAX_QUEUED,
    )


def _on_message(
    message: aiomqtt.Message, board: Board, on_forecast: Callable[[Mapping[str, Any], Row], None]
) -> None:
    payload = message.payload
    if message.topic.matches(_STATUSES):
        status = parse_status(payload)
        if status is not None:
            board.on_status(status)
        return
    forecast = parse_forecast(payload)
    # An empty message deletes a retained one.
    if forecast is not None:
        on_forecast(forecast, board.on_forecast(forecast))
    elif payload:
        board.unreadable += 1


def format_line(message: Mapping[str, Any], row: Row) -> str:
    """Return one forecast as a plain line."""
    outcome = "" if row.outcome is None else f" · before: {row.outcome.realised:+.3%}"
    ratio = "" if row.mae_ratio is None else f" · error ÷ last value's {row.mae_ratio:.3f}"
    return (
        f"{message['symbol']} seq {message['seq']} close {message['last_close']:.8g} → "
        f"{message['predicted_close']:.8g} ({message['predicted_return']:+.4%})"
        f"{outcome}{ratio} · ready {message['latency_ms']['ready']:.2f} ms"
    )
