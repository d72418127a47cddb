"""Parse websocket and MQTT traffic in a proxy, to reorder messages and record publications."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import mqtt5

_SYMBOL = re.compile(rb'"s":"([A-Z0-9]+)"')


class Shuffler:
    """Lets a server's websocket messages overtake those of other symbols, never of their own."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._upgraded = False
        self._rest = b""
        self._held: list[bytes] = []

    def feed(self, data: bytes, *, shuffle: bool) -> bytes:
        """Take incoming bytes and return those to forward. Some messages wait for the next call."""
        self._rest += data
        if not self._upgraded:
            head, end, self._rest = self._rest.partition(b"\r\n\r\n")
            if not end:
                self._rest, head = head, b""
            self._upgraded = bool(end)
            return head + end + (self.feed(b"", shuffle=shuffle) if end else b"")
        frames = self._held + list(self._frames())
        if not shuffle:
            self._held = []
            return b"".join(frames)
        frames = self._mixed(frames)
        keep = self._draw.randint(0, len(frames) // 2)
        self._held = frames[len(frames) - keep :]
        return b"".join(frames[: len(frames) - keep])

    def _mixed(self, frames: list[bytes]) -> list[bytes]:
        queues: dict[bytes, list[bytes]] = {}
        for frame in frames:
            found = _SYMBOL.search(frame)
            queues.setdefault(found[1] if found else b"", []).append(frame)
        order = [symbol for symbol, queue in queues.items() for _ in queue]
        self._draw.shuffle(order)
        return [queues[symbol].pop(0) for symbol in order]

    def _frames(self) -> Iterator[bytes]:
        while (length := _frame_length(self._rest)) <= len(self._rest):
            yield self._rest[:length]
            self._rest = self._rest[length:]


def _frame_length(data: bytes) -> int:
    """Of the first unmasked websocket frame (RFC 6455, 5.2); more than ``data`` if unknown yet."""
    if len(data) < 2:
        return 2
    short = data[1] & 0x7F
    wide = {126: 2, 127: 8}.get(short, 0)
    if len(data) < 2 + wide:
        return 2 + wide
    return 2 + wide + (int.from_bytes(data[2 : 2 + wide]) if wide else short)


class Publications:
    """What clients have published: the PUBLISH packets (MQTT 5) in what they sent."""

    def __init__(self) -> None:
        self._rests: dict[int, bytes] = {}

    def feed(self, connection: int, data: bytes) -> list[mqtt5.PublishPacket]:
        """The messages that ``data`` makes complete."""
        rest = self._rests.pop(connection, b"") + data
        found = []
        while rest:
            try:
                packet, length = mqtt5.read(memoryview(rest))
            except IndexError:
                break
            rest = rest[length:]
            if isinstance(packet, mqtt5.PublishPacket):
                found.append(packet)
        if rest:
            self._rests[connection] = rest
        return found
