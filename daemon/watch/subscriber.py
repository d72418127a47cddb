"""Read published forecasts from a broker and show them, as any other consumer could."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final

import aiomqtt
import orjson
from rich.live import Live

from daemon.mqtt.topics import ROOT
from daemon.runtime.address import host_port
from daemon.runtime.backoff import Backoff
from daemon.runtime.tasks import unwrap_expected
from daemon.watch.keyboard import TableView, pressed
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
_PREDICTIONS: Final = f"{ROOT}/+/+/+/prediction"
_STATES: Final = f"{ROOT}/status/+"
_LONGEST_BYTES: Final = 65_536
_LONGEST_TEXT: Final = 80
_QUEUED: Final = 10_000
"""Messages that wait to be shown; what comes on top is dropped, since newer ones follow."""

_KEYS: Final = "q quits · / filters · s sorts · ↑ ↓ scroll"

_TEXTS: Final = ("symbol", "exchange", "timeframe")
_NUMBERS: Final = ("seq", "candle_close_ms", "target_close_ms", "valid_until_ms")
_PRICES: Final = ("last_close", "predicted_close")


def forecast_of(payload: bytes) -> dict[str, Any] | None:
    """Decode a published forecast; None for what cannot be shown: anybody may write to a broker."""
    message = _mapping(payload)
    if message is None:
        return None
    interval, latency = message.get("interval"), message.get("latency_ms")
    good = (
        all(_is_text(message.get(name)) for name in _TEXTS)
        and all(_is_number(message.get(name)) for name in (*_NUMBERS, "predicted_return"))
        and all(_is_price(message.get(name)) for name in _PRICES)
        and "interval" in message
        and (interval is None or _is_interval(interval))
        and isinstance(latency, dict)
        and _is_number(latency.get("ready"))
        and isinstance(message.get("late"), bool)
    )
    return message if good else None


def status_of(payload: bytes) -> dict[str, Any] | None:
    """Decode the state of an instance; None for what cannot be shown."""
    status = _mapping(payload)
    if status is None or not all(_is_text(status.get(name)) for name in ("instance", "state")):
        return None
    return status


def _mapping(payload: bytes) -> dict[str, Any] | None:
    if len(payload) > _LONGEST_BYTES:
        return None
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def _is_text(value: object) -> bool:
    # A control character would reach the terminal.
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= _LONGEST_TEXT


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _is_price(value: object) -> bool:
    return _is_number(value) and isinstance(value, int | float) and value > 0


def _is_interval(value: object) -> bool:
    return isinstance(value, dict) and all(_is_price(value.get(end)) for end in ("lower", "upper"))


async def watch(
    broker: Broker,
    board: Board,
    console: Console,
    clock: Clock,
    on_quit: Callable[[], None],
) -> None:
    """Show forecasts until cancelled: a live table on a terminal, plain lines elsewhere.

    Args:
        broker: any broker that carries forecasts.
        board: filled with what is heard.
        console: where it is shown.
        clock: tells what has expired.
        on_quit: called when somebody presses q.

    Raises:
        BrokerError: the broker cannot be reached at first; later it is waited for.
    """
    if not console.is_terminal:

        def tell(message: Mapping[str, Any], row: Row) -> None:
            # Rich would end the process when the reader of a pipe has left.
            console.file.write(f"{line(message, row)}\n")
            console.file.flush()

        await _follow(broker, board, clock, tell)
        return
    look = TableView()

    def drawn() -> ConsoleRenderable:
        return render(board, (console.width, console.height), clock.wall_ms(), look, _KEYS)

    with Live(get_renderable=drawn, console=console, refresh_per_second=_REFRESH_PER_S) as live:

        def on_key(key: str) -> None:
            if look.press(key):
                on_quit()
            live.refresh()

        with pressed(asyncio.get_running_loop(), on_key):
            await _follow(broker, board, clock, lambda message, row: None)  # noqa: ARG005


async def watch_until(
    stop: asyncio.Event, broker: Broker, board: Board, console: Console, clock: Clock
) -> None:
    """`candlecast watch`: show forecasts until ``stop`` is set.

    Raises:
        BrokerError: the broker cannot be reached.
        BrokenPipeError: whoever read along has left.
    """
    try:
        async with asyncio.TaskGroup() as group:
            shown = group.create_task(watch(broker, board, console, clock, stop.set))
            await stop.wait()
            shown.cancel()
    except ExceptionGroup as group_error:
        raise unwrap_expected(group_error, (CandlecastError, BrokenPipeError)) from None


async def _follow(
    broker: Broker, board: Board, clock: Clock, tell: Callable[[Mapping[str, Any], Row], None]
) -> None:
    """Connect again and again, but not if the first time fails."""
    backoff, met = Backoff(_RECONNECT_MIN_S, _RECONNECT_MAX_S), False
    address = host_port(broker.host, broker.port)
    while True:
        try:
            async with connect(broker) as client:
                for topic in (_STATES, _PREDICTIONS):
                    await _subscribe(client, topic, address)
                board.trouble, met = None, True
                backoff.reset()
                async for message in client.messages:
                    _take(message, board, tell)
        except aiomqtt.MqttError as error:
            if not met:
                msg = f"cannot read from the MQTT broker at {address}: {error}"
                raise BrokerError(msg) from None
            board.trouble = f"no broker at {address} ({error}); trying again"
        await clock.sleep(backoff.next_delay_s())


async def _subscribe(client: aiomqtt.Client, topic: str, address: str) -> None:
    """Subscribe to a topic.

    Raises:
        BrokerError: the broker does not allow it.
    """
    for code in await client.subscribe(topic, qos=1):
        if not isinstance(code, int) and code.is_failure:
            msg = f"the MQTT broker at {address} does not let us read {topic} ({code})"
            raise BrokerError(msg)


def connect(broker: Broker) -> aiomqtt.Client:
    """A consumer's client, to be entered."""
    version = aiomqtt.ProtocolVersion.V5 if broker.version == "5" else aiomqtt.ProtocolVersion.V311
    return aiomqtt.Client(
        broker.host,
        broker.port,
        username=broker.username,
        password=broker.password,
        keepalive=broker.keepalive_s,
        protocol=version,
        tls_context=broker.tls,
        max_queued_incoming_messages=_QUEUED,
    )


def _take(
    message: aiomqtt.Message, board: Board, tell: Callable[[Mapping[str, Any], Row], None]
) -> None:
    payload = message.payload
    if message.topic.matches(_STATES):
        status = status_of(payload)
        if status is not None:
            board.hear(status)
        return
    forecast = forecast_of(payload)
    # An empty message is how a retained one is taken back.
    if forecast is not None:
        tell(forecast, board.update(forecast))
    elif payload:
        board.refused += 1


def line(message: Mapping[str, Any], row: Row) -> str:
    """One forecast as a plain line."""
    outcome = "" if row.outcome is None else f" · before: {row.outcome.realised:+.3%}"
    ratio = "" if row.mae_ratio is None else f" · error ÷ last value's {row.mae_ratio:.3f}"
    return (
        f"{message['symbol']} seq {message['seq']} close {message['last_close']:.8g} → "
        f"{message['predicted_close']:.8g} ({message['predicted_return']:+.4%})"
        f"{outcome}{ratio} · ready {message['latency_ms']['ready']:.2f} ms"
    )
