"""MQTT out: one connection that restores itself, the status topic and the outbox's way to it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import aiomqtt
import orjson
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from daemon.groups import expected
from daemon.outbox import Outbox, Outgoing
from daemon.topics import status_topic
from model.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from paho.mqtt import client as paho

    from daemon.clock import Clock
    from daemon.metrics import Metrics

log = logging.getLogger(__name__)

_SENT_TOGETHER = 64
_BACKOFF_S = (0.25, 5.0)
_REFUSED = frozenset({134, 135, 140})
"""Reasons that trying again cannot cure: credentials, authorization, authentication method."""


class Broker(NamedTuple):
    """How to reach the MQTT broker.

    Attributes:
        host: name or address.
        port: TCP port.
        version: "5" or "3.1.1".
        username: None for anonymous.
        password: None for none.
        keepalive_s: seconds between keep-alive packets.
    """

    host: str
    port: int
    version: str
    username: str | None
    password: str | None
    keepalive_s: int


class Publisher:
    """Sends what is offered, as soon as there is a broker to send it to.

    `offer` never waits and never fails; what becomes of a message is in the metrics.

    Attributes:
        retains: whether forecasts are retained by the broker.
        connected: set while there is a connection.
    """

    def __init__(
        self, broker: Broker, instance: str, outbox: Outbox, clock: Clock, metrics: Metrics
    ) -> None:
        """Prepare; `run` connects.

        Args:
            broker: the address and credentials.
            instance: this daemon's name, part of its status topic.
            outbox: bounds what waits while the broker is away.
            clock: the injected clock.
            metrics: latencies and outcomes.
        """
        self._broker = broker
        self._instance = instance
        self._outbox = outbox
        self._clock = clock
        self._metrics = metrics
        self._ready = asyncio.Event()
        self._drained = asyncio.Event()
        self._status: dict[str, Any] = {}
        self._status_is_due = False
        self.announce("starting", (), None)
        # Version 3.1.1 has no message expiry: a retained forecast would outlive its use.
        self.retains = broker.version == "5"
        self.connected = asyncio.Event()

    def offer(self, message: Outgoing) -> None:
        """Queue a message; the outbox decides what gives way when it is full."""
        dropped = self._outbox.offer(message)
        if dropped is not None:
            self._count_dropped([dropped])
        self._wake()

    def _wake(self) -> None:
        self._drained.clear()
        self._ready.set()

    def announce(self, state: str, stale_symbols: Sequence[str], model: str | None) -> None:
        """Publish the instance's state if it is news, retained; repeated after a reconnection."""
        news = {"state": state, "stale_symbols": list(stale_symbols), "model": model}
        if self._status.items() >= news.items():
            return
        if self._status.get("state") != state:
            self._status["since_ms"] = self._clock.wall_ms()
        self._status |= {"schema": 1, "instance": self._instance, **news}
        self._status_is_due = True
        self._wake()

    async def farewell(self, within_s: float) -> None:
        """Say that this instance stops, and that it is gone, if the broker listens in time."""
        model = self._status["model"]
        try:
            async with asyncio.timeout(within_s):
                for state in ("stopping", "offline"):
                    self.announce(state, (), model)
                    await self._drained.wait()
        except TimeoutError:
            log.warning("the MQTT broker did not hear our goodbye within %g s", within_s)

    def _status_message(self) -> Outgoing:
        payload = orjson.dumps(self._status)
        topic = status_topic(self._instance)
        return Outgoing(topic, topic, payload, qos=1, retain=True)

    async def run(self) -> None:
        """Connect, send, and connect again until cancelled.

        Raises:
            BrokerError: the broker refuses these credentials; trying again would not help.
        """
        shortest_s, longest_s = _BACKOFF_S
        delay_s, broken = shortest_s, False
        while True:
            started_s = self._clock.monotonic()
            try:
                async with self._client() as client:
                    if broken:
                        log.info("the MQTT broker is back")
                        broken = False
                    await self._serve(client)
            except aiomqtt.MqttError as error:
                self.connected.clear()
                self._metrics.mqtt_connected.set(0)
                self._refuse(error)
                if not broken:
                    log.warning(
                        "no MQTT broker at %s:%d (%s); forecasts wait in the outbox",
                        self._broker.host,
                        self._broker.port,
                        error,
                    )
                    broken = True
            # A broker that accepts and hangs up again and again is no better than none.
            if self._clock.monotonic() - started_s > longest_s:
                delay_s = shortest_s
            await self._clock.sleep(delay_s)
            delay_s = min(2 * delay_s, longest_s)

    def _refuse(self, error: aiomqtt.MqttError) -> None:
        # Other codes are paho's own, where 4 and 5 mean a lost connection.
        reason = getattr(error, "rc", None)
        if isinstance(reason, ReasonCode) and reason.value in _REFUSED:
            msg = (
                f"the MQTT broker at {self._broker.host}:{self._broker.port} refuses user "
                f"{self._broker.username!r} ({reason}); check mqtt.username, the password and what "
                "the broker lets this user publish"
            )
            raise BrokerError(msg) from None

    async def _serve(self, client: _Client) -> None:
        """Use one connection until it is lost."""
        self._metrics.mqtt_connected.set(1)
        self._metrics.mqtt_connections.inc()
        self._count_dropped(self._outbox.repeat(self._clock.wall_ms()))
        self._status_is_due = True
        self._wake()
        self.connected.set()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._notice_loss(client), name="mqtt-watch")
                group.create_task(self._notice_denial(client), name="mqtt-denial")
                group.create_task(self._drain(client), name="mqtt-drain")
        except ExceptionGroup as group_error:
            raise expected(group_error, aiomqtt.MqttError) from None

    async def _notice_loss(self, client: aiomqtt.Client) -> None:
        async for _ in client.messages:
            log.debug("ignored a message: nothing is subscribed to")

    async def _notice_denial(self, client: _Client) -> None:
        raise aiomqtt.MqttCodeError(await client.denied)

    async def _drain(self, client: aiomqtt.Client) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            while messages := self._take():
                async with asyncio.TaskGroup() as group:
                    for message in messages:
                        group.create_task(self._send(client, message))
            self._drained.set()

    def _take(self) -> list[Outgoing]:
        if self._status_is_due:
            self._status_is_due = False
            return [self._status_message()]
        messages, expired = self._outbox.take(self._clock.wall_ms(), _SENT_TOGETHER)
        self._count_dropped(expired)
        return messages

    def _count_dropped(self, messages: Sequence[Outgoing]) -> None:
        self._metrics.count_dropped(sum(message.is_forecast for message in messages))

    async def _send(self, client: aiomqtt.Client, message: Outgoing) -> None:
        started_s = self._clock.monotonic()
        await client.publish(
            message.topic,
            message.payload,
            qos=message.qos,
            retain=message.retain,
            properties=self._properties(message),
        )
        self._outbox.arrived(message)
        if message.is_forecast:
            now_s = self._clock.monotonic()
            self._metrics.published(now_s - started_s, now_s - message.received_s, message.late)

    def _properties(self, message: Outgoing) -> Properties | None:
        expiry_s = message.expiry_s(self._clock.wall_ms())
        if expiry_s is None or self._broker.version != "5":
            return None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = max(1, expiry_s)
        return properties

    def _client(self) -> _Client:
        broker = self._broker
        farewell = orjson.dumps({**self._status, "state": "offline", "stale_symbols": []})
        client = _Client(
            broker.host,
            broker.port,
            username=broker.username,
            password=broker.password,
            identifier=f"candlecast-{self._instance}",
            keepalive=broker.keepalive_s,
            protocol=(
                aiomqtt.ProtocolVersion.V5
                if broker.version == "5"
                else aiomqtt.ProtocolVersion.V311
            ),
            will=aiomqtt.Will(status_topic(self._instance), farewell, qos=1, retain=True),
        )
        client.pending_calls_threshold = 2 * _SENT_TOGETHER
        return client


class _Client(aiomqtt.Client):
    """aiomqtt's `publish` returns normally when the broker denies it: here the denial is told.

    Attributes:
        denied: why the broker did not take a message, once that has happened.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - handed through
        super().__init__(*args, **kwargs)
        self.denied: asyncio.Future[ReasonCode] = asyncio.Future()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await super().__aexit__(exc_type, exc, tb)
        if self._disconnected.done():
            # Whatever ended this connection has been raised; asyncio would log it once more.
            self._disconnected.exception()

    def _on_publish(
        self,
        client: paho.Client,
        userdata: Any,  # noqa: ANN401 - as in the base class
        mid: int,
        reason_code: ReasonCode,
        properties: Properties,
    ) -> None:
        if not reason_code.is_failure:
            super()._on_publish(client, userdata, mid, reason_code, properties)
        elif not self.denied.done():
            self.denied.set_result(reason_code)
