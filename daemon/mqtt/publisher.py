"""MQTT out: one connection that restores itself, the status topic and the outbox's way to it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

import orjson

from daemon.mqtt.broker import Broker
from daemon.mqtt.codec import Codec, Codec5, Codec311, Login
from daemon.mqtt.connection import (
    HungUpError,
    LackingError,
    LinkLostError,
    LoginRefusedError,
    MqttConnection,
    open_link,
)
from daemon.mqtt.limits import EVERYTHING, Limits, Negotiation
from daemon.mqtt.outbox import Outbox, Outgoing
from daemon.mqtt.refusals import NOT_AUTHORIZED, TOO_LARGE, denial_advice
from daemon.mqtt.topics import ROOT, status_topic
from daemon.runtime.address import host_port
from daemon.runtime.tasks import unwrap_expected
from model.core.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.metrics.metrics import Metrics
    from daemon.runtime.clock import Clock

log = logging.getLogger("candlecast.mqtt")

_BACKOFF_S = (0.25, 2.5)
"""A broker that is back has the latest forecasts again within five seconds."""

_STEADY_S = 1.0
_MUTED_S = 60.0
_REPEAT_S = 10.0
"""How often the status is published again where the broker does not keep it."""


_NO_SYMBOLS: Final[dict[str, list[str]]] = {"stale_symbols": [], "rest_only_symbols": []}


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
        self._status_is_denied = False
        self._negotiation = Negotiation()
        self._limits_told = EVERYTHING
        self._muted: dict[str, float] = {}
        self._broken = False
        self._fatal: BrokerError | None = None
        self.announce("starting", (), None)
        # Version 3.1.1 has no message expiry: a retained forecast would outlive its use.
        self._codec: Codec = Codec5() if broker.version == "5" else Codec311()
        self.retains = self._codec.expires
        self.connected = asyncio.Event()

    def offer(self, message: Outgoing) -> None:
        """Queue a message; the outbox decides what gives way when it is full."""
        if not message.qos and not self.connected.is_set():
            # Nobody is promised these, and hours of them would fill the memory.
            return
        if self._muted and self._is_muted(message.topic):
            self._count_dropped([message])
            return
        dropped = self._outbox.offer(message)
        if dropped is not None:
            self._count_dropped([dropped])
        self._wake()

    def _is_muted(self, topic: str) -> bool:
        if self._clock.monotonic() >= self._muted.get(topic, 0.0):
            self._muted.pop(topic, None)
        return topic in self._muted

    def _wake(self) -> None:
        self._drained.clear()
        self._ready.set()

    def announce(
        self,
        state: str,
        stale_symbols: Sequence[str],
        model: str | None,
        rest_only_symbols: Sequence[str] = (),
    ) -> None:
        """Publish the instance's state if it is news, retained; repeated after a reconnection."""
        news = {
            "state": state,
            "stale_symbols": list(stale_symbols),
            "rest_only_symbols": list(rest_only_symbols),
            "model": model,
        }
        if self._status.items() >= news.items():
            return
        if self._status.get("state") != state:
            self._status["since_ms"] = self._clock.wall_ms()
        self._status |= {"schema": 1, "instance": self._instance, **news}
        self._status_is_due = True
        self._wake()

    async def shutdown(self, within_s: float) -> None:
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
            BrokerError: the broker refuses these credentials, or the status that they would write;
                trying again would not help.
        """
        shortest_s, longest_s = _BACKOFF_S
        delay_s = shortest_s
        while True:
            started_s = self._clock.monotonic()
            try:
                await self._connect()
            except LackingError as error:
                if self._negotiation.refused(error.without):
                    continue
                self._note_loss(error)
            except LinkLostError as error:
                if self._fatal is not None:
                    raise self._fatal from None
                self._note_loss(error)
            # A broker that accepts and hangs up again and again is no better than none.
            if self._clock.monotonic() - started_s > longest_s:
                delay_s = shortest_s
                self._negotiation.start_over()
            await self._clock.sleep(delay_s)
            delay_s = min(2 * delay_s, longest_s)

    async def _connect(self) -> None:
        """Open one connection and use it until it is lost.

        Raises:
            BrokerError: the broker refuses the login for good.
            LinkLostError: the connection is lost or cannot be made.
        """
        broker = self._broker
        link = MqttConnection(self._codec, self._taken, self._denied, self._ready.set)
        try:
            await open_link((broker.host, broker.port), self._login(), link, broker.tls)
            await self._serve(link)
        except HungUpError:
            if link.answered:
                self._negotiation.took()
                self._negotiation.start_over()
            else:
                self._negotiation.hung_up()
            raise
        except LoginRefusedError as error:
            msg = (
                f"the MQTT broker at {self._address} refuses user {broker.username!r} "
                f"({error}); {error.advice}"
            )
            raise BrokerError(msg) from None
        finally:
            self.connected.clear()
            self._metrics.mqtt_connected.set(0)
            link.close()

    @property
    def _address(self) -> str:
        return host_port(self._broker.host, self._broker.port)

    def _note_loss(self, error: LinkLostError) -> None:
        if not self._broken:
            log.warning(
                "no MQTT broker at %s (%s); forecasts wait in the outbox", self._address, error
            )
            self._broken = True

    async def _serve(self, link: MqttConnection) -> None:
        """Use one connection until it is lost."""
        self._metrics.mqtt_connected.set(1)
        self._metrics.mqtt_connections.inc()
        self._count_dropped(self._outbox.repeat(self._clock.wall_ms()))
        self._status_is_due = True
        self._wake()
        self.connected.set()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._drain(link), name="mqtt-drain")
                group.create_task(self._keep_alive(link), name="mqtt-keep-alive")
                group.create_task(self._note_return(link.limits), name="mqtt-return")
                group.create_task(self._repeat_status(link.limits), name="mqtt-status")
                await link.lost
        except ExceptionGroup as group_error:
            raise unwrap_expected(group_error, (LinkLostError, BrokerError)) from None

    async def _note_return(self, limits: Limits) -> None:
        # A broker that accepts and hangs up at once is not back, and not worth a line each time.
        await self._clock.sleep(_STEADY_S)
        if self._broken:
            log.info("the MQTT broker is back")
        self._broken = False
        if limits not in (EVERYTHING, self._limits_told):
            log.warning("the MQTT broker at %s %s", self._address, limits.in_words())
            self._limits_told = limits

    async def _repeat_status(self, limits: Limits) -> None:
        """Publish the status again and again where it is not kept, or was denied."""
        while True:
            await self._clock.sleep(_REPEAT_S)
            if self._status_is_denied or not limits.retains:
                self._status_is_due = True
                self._wake()

    async def _keep_alive(self, link: MqttConnection) -> None:
        """Ask for a sign of life twice per keep-alive interval; a silent broker is a lost one.

        So is one that answers pings alone: what it never acknowledges would fill `Link.room`.
        """
        while True:
            await self._clock.sleep(link.keepalive_s / 2)
            if not link.heard:
                link.abort("it does not answer any more")
            elif link.stuck:
                link.abort("it acknowledges nothing any more")
            link.ping()

    async def _drain(self, link: MqttConnection) -> None:
        if not link.limits.qos and self._negotiation.is_guessing:
            # Without acknowledgements, that the connection lasts shows that messages are taken.
            self._send(link, [self._status_message()])
            await self._clock.sleep(_STEADY_S)
        while True:
            await self._ready.wait()
            self._ready.clear()
            if self._fatal is not None:
                raise self._fatal
            while link.room > 0 and (messages := self._take(link.room)):
                self._send(link, messages)
            self._note_drained()

    def _send(self, link: MqttConnection, messages: Sequence[Outgoing]) -> None:
        now_ms, now_s = self._clock.wall_ms(), self._clock.monotonic()
        link.send([(m, self._expiry_s(m, now_ms)) for m in messages], now_s)

    def _take(self, most: int) -> list[Outgoing]:
        if self._status_is_due:
            self._status_is_due = self._status_is_denied = False
            return [self._status_message()]
        messages, expired = self._outbox.take(self._clock.wall_ms(), most)
        self._count_dropped(expired)
        return messages

    def _taken(self, messages: Sequence[tuple[Outgoing, float]]) -> None:
        now_s = self._clock.monotonic()
        for message, sent_s in messages:
            self._outbox.arrived(message)
            if message.is_forecast:
                self._metrics.published(now_s - sent_s, now_s - message.received_s, message.late)
        self._note_drained()

    def _denied(self, message: Outgoing, reason: str) -> None:
        """Spare the broker a denied topic for a while; some end the connection over it."""
        self._outbox.arrived(message, taken=False)
        self._metrics.mqtt_denied.inc()
        self._count_dropped([message])
        who = f"user {self._broker.username!r}"
        advice = denial_advice(reason, who, ROOT, len(message.payload))
        line = f"the MQTT broker denies publishing to {message.topic} ({reason}); {advice}"
        is_status = message.key == status_topic(self._instance)
        self._status_is_denied |= is_status and reason != TOO_LARGE
        if is_status and reason == NOT_AUTHORIZED:
            # Not every broker ends the connection over it.
            self._fatal = BrokerError(line)
            self._ready.set()
        elif not self._muted:
            log.error("%s", line)
        self._muted[message.topic] = self._clock.monotonic() + _MUTED_S
        self._note_drained()

    def _note_drained(self) -> None:
        if self._outbox.is_settled and not self._status_is_due:
            self._drained.set()

    def _count_dropped(self, messages: Sequence[Outgoing]) -> None:
        if messages:
            self._metrics.count_dropped(sum(message.is_forecast for message in messages))

    def _expiry_s(self, message: Outgoing, now_ms: int) -> int | None:
        expiry_s = message.expiry_s(now_ms)
        return None if expiry_s is None else max(1, expiry_s)

    def _login(self) -> Login:
        broker = self._broker
        return Login(
            client_id=f"candlecast-{self._instance}",
            username=broker.username,
            password=broker.password,
            keepalive_s=broker.keepalive_s,
            will_topic=status_topic(self._instance),
            will=orjson.dumps(self._status | {"state": "offline", **_NO_SYMBOLS}),
            limits=self._negotiation.limits,
        )
