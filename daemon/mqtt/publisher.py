"""Keep a connection to the MQTT broker and publish queued messages and the status over it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from daemon.mqtt.broker import Broker
from daemon.mqtt.codec import Codec, Codec5, Codec311, Login
from daemon.mqtt.connection import MqttConnection, open_connection
from daemon.mqtt.errors import (
    ClosedByBrokerError,
    ConnectionLostError,
    LoginRefusedError,
    UnsupportedFeatureError,
)
from daemon.mqtt.limits import NO_LIMITS, Limits, Negotiation
from daemon.mqtt.outbox import Outbox, Outgoing
from daemon.mqtt.send_queue import SendQueue
from daemon.runtime.address import host_port
from daemon.runtime.backoff import Backoff
from daemon.runtime.outage import Outage
from daemon.runtime.tasks import unwrap_expected
from model.core.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.metrics.metrics import Metrics
    from daemon.runtime.clock import Clock

log = logging.getLogger("candlecast.mqtt")

_RECONNECT_MIN_S = 0.25
_RECONNECT_MAX_S = 2.5
"""A broker that is back has the latest forecasts again within five seconds."""

_STABLE_S: Final = 1.0
"""A connection that lasts this long counts as restored."""

_STATUS_INTERVAL_S: Final = 10.0
"""How often the status is published again where the broker does not keep it."""


class Publisher:
    """Sends queued messages whenever there is a connection to the broker.

    `offer` never waits and never fails. The metrics count published and dropped messages.

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
            outbox: holds the waiting messages.
            clock: the injected clock.
            metrics: latencies and outcomes.
        """
        self._broker = broker
        self._instance = instance
        self._clock = clock
        self._metrics = metrics
        self._queue = SendQueue(
            user=f"user {broker.username!r}",
            instance=instance,
            outbox=outbox,
            clock=clock,
            metrics=metrics,
        )
        self._negotiation = Negotiation()
        # The limits of the broker that were logged last.
        self._logged_limits = NO_LIMITS
        self._outage = Outage(log)
        self.announce("starting", (), None)
        # Version 3.1.1 has no message expiry: a retained forecast would stay after it has expired.
        self._codec: Codec = Codec5() if broker.version == "5" else Codec311()
        self.retains = self._codec.expires
        self.connected = asyncio.Event()

    def offer(self, message: Outgoing) -> None:
        """Queue a message; a full outbox drops the oldest one."""
        # QoS 0 promises no delivery; queued through an outage, such messages would fill the outbox.
        if message.qos or self.connected.is_set():
            self._queue.offer(message)

    def announce(
        self,
        state: str,
        stale_symbols: Sequence[str],
        model: str | None,
        rest_only_symbols: Sequence[str] = (),
    ) -> None:
        """Publish the instance's state if it has changed; every new connection publishes it too.

        Args:
            state: such as ``online``.
            stale_symbols: symbols without forecasts.
            model: version of the served model; None before one serves.
            rest_only_symbols: symbols whose candles come by REST only.
        """
        if self._queue.status.update(
            state,
            stale_symbols=stale_symbols,
            rest_only_symbols=rest_only_symbols,
            model=model,
            now_ms=self._clock.wall_ms(),
        ):
            self._queue.wake()

    async def shutdown(self, within_s: float) -> None:
        """Publish that this instance is stopping and then offline, waiting ``within_s`` at most."""
        model = self._queue.status.model
        try:
            async with asyncio.timeout(within_s):
                for state in ("stopping", "offline"):
                    self.announce(state, (), model)
                    await self._queue.drained.wait()
        except TimeoutError:
            log.warning("the status offline was not published within %g s", within_s)

    async def run(self) -> None:
        """Connect, send, and connect again until cancelled.

        Raises:
            BrokerError: the broker refuses the credentials or denies them the status topic; trying
                again would not help.
        """
        backoff = Backoff(_RECONNECT_MIN_S, _RECONNECT_MAX_S)
        while True:
            started_s = self._clock.monotonic()
            try:
                await self._connect()
            except UnsupportedFeatureError as error:
                if self._negotiation.on_unsupported(error.supported):
                    continue
                self._note_loss(error)
            except ConnectionLostError as error:
                if self._queue.fatal is not None:
                    raise self._queue.fatal from None
                self._note_loss(error)
            # A broker that accepts and closes again and again counts as absent.
            if backoff.reset_if_steady(self._clock.monotonic() - started_s):
                self._negotiation.reset()
            await self._clock.sleep(backoff.next_delay_s())

    async def _connect(self) -> None:
        """Open one connection and use it until it is lost.

        Raises:
            BrokerError: the broker refuses the login permanently.
            ConnectionLostError: the connection is lost or cannot be made.
        """
        broker, queue = self._broker, self._queue
        connection = MqttConnection(
            self._codec, queue.on_acknowledged, queue.on_denied, queue.wakeup.set
        )
        try:
            await open_connection((broker.host, broker.port), self._login(), connection, broker.tls)
            await self._serve(connection)
        except UnsupportedFeatureError:
            raise
        except ConnectionLostError as error:
            if connection.answered:
                self._negotiation.on_acknowledged()
                self._negotiation.reset()
            elif isinstance(error, ClosedByBrokerError):
                self._negotiation.on_closed_early()
            raise
        except LoginRefusedError as error:
            msg = (
                f"the MQTT broker at {self._address} refuses user {broker.username!r} "
                f"({error}); {error.advice}"
            )
            raise BrokerError(msg) from None
        finally:
            self.connected.clear()
            self._metrics.broker.connected.set(0)
            connection.close()

    @property
    def _address(self) -> str:
        return host_port(self._broker.host, self._broker.port)

    def _note_loss(self, error: ConnectionLostError) -> None:
        self._outage.begin(
            "no MQTT broker at %s (%s); forecasts wait in the outbox", self._address, error
        )

    async def _serve(self, connection: MqttConnection) -> None:
        """Send over one connection until it is lost."""
        self._metrics.broker.connected.set(1)
        self._metrics.broker.connections.inc()
        self._queue.on_connected()
        self.connected.set()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send_waiting(connection), name="mqtt-send")
                group.create_task(self._keep_alive(connection), name="mqtt-keep-alive")
                group.create_task(self._note_return(connection.limits), name="mqtt-return")
                group.create_task(self._repeat_status(connection.limits), name="mqtt-status")
                await connection.lost
        except ExceptionGroup as group_error:
            raise unwrap_expected(group_error, (ConnectionLostError, BrokerError)) from None

    async def _note_return(self, limits: Limits) -> None:
        # A broker that accepts and closes at once is not back; it would add a line each time.
        await self._clock.sleep(_STABLE_S)
        self._outage.end("the MQTT broker is back")
        if limits not in (NO_LIMITS, self._logged_limits):
            log.warning("the MQTT broker at %s %s", self._address, limits.describe())
            self._logged_limits = limits

    async def _repeat_status(self, limits: Limits) -> None:
        """Publish the status at an interval where the broker does not keep it or has denied it."""
        while True:
            await self._clock.sleep(_STATUS_INTERVAL_S)
            if self._queue.status.is_denied or not limits.retains:
                self._queue.send_status()

    async def _keep_alive(self, connection: MqttConnection) -> None:
        """Ping twice per keep-alive interval and drop a connection without answers.

        A broker that answers pings but no messages is dropped too: unacknowledged messages use up
        `MqttConnection.send_quota`.
        """
        while True:
            await self._clock.sleep(connection.keepalive_s / 2)
            if not connection.received_since_ping:
                connection.abort("it has stopped answering")
            elif connection.stalled:
                connection.abort("it has stopped acknowledging messages")
            connection.ping()

    async def _send_waiting(self, connection: MqttConnection) -> None:
        queue = self._queue
        if not connection.limits.qos and self._negotiation.is_guessing:
            # Without acknowledgements, only a lasting connection shows that messages are accepted.
            self._send(connection, [queue.status.message()])
            await self._clock.sleep(_STABLE_S)
        while True:
            await queue.wakeup.wait()
            queue.wakeup.clear()
            if queue.fatal is not None:
                raise queue.fatal
            while connection.send_quota > 0 and (
                messages := queue.take_batch(connection.send_quota)
            ):
                self._send(connection, messages)
            queue.set_drained()

    def _send(self, connection: MqttConnection, messages: Sequence[Outgoing]) -> None:
        now_ms, now_s = self._clock.wall_ms(), self._clock.monotonic()
        connection.send([(m, self._expiry_s(m, now_ms)) for m in messages], now_s)

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
            will_topic=self._queue.status.topic,
            will=self._queue.status.will(),
            limits=self._negotiation.limits,
        )
