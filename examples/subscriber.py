"""Receive forecasts over MQTT and refuse those that are not valid, by the rules of docs/mqtt.md.

Usage: python examples/subscriber.py [HOST [PORT]], for instance broker.example 1883, or ::1
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import aiomqtt

# Status first: forecasts of an instance without a status are refused.
TOPICS = ("candlecast/v1/status/+", "candlecast/v1/+/+/+/prediction")
ALIVE = ("online", "degraded")


class Guard:
    """Decide whether a forecast is valid. Uses no MQTT, files or clocks."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}  # by instance
        # Newest target close of each exchange, symbol and timeframe, Unix milliseconds.
        self._newest: dict[tuple[str, str, str], int] = {}

    def on_status(self, status: dict[str, Any]) -> None:
        """Store the state of an instance; the broker publishes "offline" when it dies."""
        self._states[status["instance"]] = status["state"]

    def on_disconnected(self) -> None:
        """Forget all states: without a broker no instance is known to be alive."""
        self._states.clear()

    def refusal(self, forecast: dict[str, Any], now_ms: int) -> str | None:
        """Why the forecast is not valid; None if it is, and then it counts as received."""
        state = self._states.get(forecast["instance"], "absent")
        series = (forecast["exchange"], forecast["symbol"], forecast["timeframe"])
        if state not in ALIVE:
            return f"its instance is {state}"
        if forecast["late"]:
            return "late"
        if now_ms >= forecast["valid_until_ms"]:
            return "expired"
        # QoS 1 can deliver a message twice, and the broker retains the newest for new connections.
        if forecast["target_close_ms"] <= self._newest.get(series, 0):
            return "duplicate"
        self._newest[series] = forecast["target_close_ms"]
        return None


async def follow(host: str, port: int, guard: Guard) -> None:
    """Print accepted forecasts until the connection is lost."""
    async with aiomqtt.Client(host, port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        for topic in TOPICS:
            for code in await client.subscribe(topic, qos=1):
                if not isinstance(code, int) and code.is_failure:
                    msg = f"it refuses the subscription to {topic} ({code})"
                    raise aiomqtt.MqttError(msg)
        async for message in client.messages:
            content = json.loads(message.payload)
            if message.topic.matches(TOPICS[0]):
                guard.on_status(content)
                print(f"{content['instance']} is {content['state']}", flush=True)
                continue
            name = f"{content['symbol']} {content['timeframe']} #{content['seq']}"
            refusal = guard.refusal(content, time.time_ns() // 1_000_000)  # noqa: TID251 - the bot's own clock
            if refusal is None:
                print(f"{name}: {content['predicted_close']:.8g}", flush=True)
            else:
                print(f"{name}: refused, {refusal}", flush=True)


async def main(host: str = "127.0.0.1", port: str = "1883") -> None:
    """Print forecasts, and reconnect after a lost connection."""
    guard = Guard()
    while True:
        try:
            await follow(host, int(port), guard)
        except aiomqtt.MqttError as error:
            print(f"no broker: {error}", file=sys.stderr, flush=True)
            guard.on_disconnected()
        await asyncio.sleep(1)  # noqa: TID251 - a script of its own


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
