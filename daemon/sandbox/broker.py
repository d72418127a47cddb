"""Run an MQTT 5 broker in a child process, for the demo.

The broker is rumqttd from the ``iotcore`` package. It has no access control, and a client of
MQTT 3.1.1 gets no answer. Use Mosquitto in production.
"""

from __future__ import annotations

import signal
import socket
import tempfile
from pathlib import Path
from typing import Final, Self

from iotcore import Broker

from model.core.errors import BrokerError

_HOST: Final = "127.0.0.1"

# The segment settings bound the memory for published messages; the defaults keep 100 segments of
# 100 MiB per topic.
_TOML: Final = """\
id = 0

[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 200
max_segment_size = 1048576
max_segment_count = 4

[v5.1]
name = "v5"
listen = "{host}:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 10000
max_payload_size = 1048576
max_inflight_count = 500
dynamic_filters = true
"""


class EmbeddedBroker:
    """Context manager that runs an MQTT 5 broker on loopback.

    Entering takes some 0.2 s and blocks: call it off the event loop.

    Attributes:
        host: always 127.0.0.1.
        port: chosen by the system unless given.
    """

    def __init__(self, port: int = 0) -> None:
        """Prepare a broker on ``port``; 0 selects a free port."""
        self.host = _HOST
        self.port = port or _free_port()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._broker: Broker | None = None

    @property
    def pid(self) -> int:
        """Process id of the running child."""
        # The package offers no public access to its process.
        return int(self._broker._process.pid)  # type: ignore[union-attr]  # noqa: SLF001

    def __enter__(self) -> Self:
        """Start the child process and wait until it accepts connections.

        Raises:
            BrokerError: the port is taken, or the broker does not start.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="candlecast-broker-")
        config = Path(self._folder.name) / "broker.toml"
        config.write_text(_TOML.format(host=self.host, port=self.port))
        # Ctrl-C signals the whole foreground group, but the broker must still accept the daemon's
        # last messages. The child inherits the blocked signal; it has no option to ignore it.
        previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._broker = Broker(config_path=str(config))
            self._broker.start()
        except (OSError, RuntimeError, ValueError) as error:
            self.__exit__()
            msg = f"the embedded broker did not start on {self.host}:{self.port}: {error}"
            raise BrokerError(msg) from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)
        return self

    def __exit__(self, *error: object) -> None:
        """End the child process."""
        if self._broker is not None:
            self._broker.stop()
        if self._folder is not None:
            self._folder.cleanup()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
