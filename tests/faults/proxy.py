"""Run a TCP proxy that delays, throttles, corrupts, refuses and cuts connections.

It reads bytes as soon as they arrive and forwards them when its faults allow, so it records what
the sender sent and when, even if the bytes are never forwarded.
"""

from __future__ import annotations

import asyncio
import math
import random
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from tests.faults.frames import Shuffler
from tests.support.servers import HOST

_PIECE = 65_536
_PIECES = 64
"""Read ahead of a slow way; then the sender has to wait, as on a real one."""

_SLICE = 1_024
"""Throttled in steps of this, so that the end of a throttling is noticed."""

_ABORT = struct.pack("ii", 1, 0)


@dataclass
class Impairment:
    """What happens to bytes; may change during connections.

    Attributes:
        delay_s: added to every piece's way, each way.
        bytes_per_s: what gets through.
        half_open: bytes vanish; a connection that has lost some never recovers.
        refuse: new connections are reset at once.
        garble: share of the pieces from the server in which a byte's highest bit is turned. No
            digit becomes another digit: what TLS would find, a parser must find.
        reorder: websocket messages of different symbols overtake each other.
    """

    delay_s: float = 0.0
    bytes_per_s: float = math.inf
    half_open: bool = False
    refuse: bool = False
    garble: float = 0.0
    reorder: bool = False


@dataclass(eq=False)
class _Pair:
    """One connection and its continuation; ``lost`` once bytes have vanished."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    lost: bool = False


class FaultProxy:
    """Async context manager; inside it, `port` leads to the target's port.

    Attributes:
        port: where to connect.
        impairment: what happens on the way.
        accepted: connections so far.
    """

    def __init__(
        self,
        target: int,
        draw: random.Random,
        *,
        on_sent: Callable[[int, bytes], None] = lambda _connection, _data: None,
        websocket: bool = False,
    ) -> None:
        """Prepare.

        Args:
            target: loopback port.
            draw: what is left to chance.
            on_sent: called with the connection's number and the client's bytes, before anything
                happens to it.
            websocket: what comes back is HTTP and then websocket frames, to be reordered.
        """
        self.port = 0
        self.impairment = Impairment()
        self.accepted = 0
        self._target = target
        self._draw = draw
        self._on_sent = on_sent
        self._websocket = websocket
        self._pairs: set[_Pair] = set()
        self._cuts = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        while self._pairs:
            await asyncio.sleep(0.002)
        await self._server.wait_closed()

    @property
    def connections(self) -> int:
        """Open now."""
        return len(self._pairs)

    def cut(self, *, politely: bool = False) -> None:
        """End every connection on both sides, with FIN or with RST."""
        self._cuts += 1
        for pair in tuple(self._pairs):
            _end(pair.near, politely=politely)
            _end(pair.far, politely=politely)

    async def _serve(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        self.accepted += 1
        number, cuts = self.accepted, self._cuts
        if self.impairment.refuse:
            _end(near, politely=False)
            return
        try:
            back, far = await asyncio.open_connection(HOST, self._target)
        except OSError:
            _end(near, politely=False)
            return
        pair = _Pair(near, far)
        self._pairs.add(pair)
        if cuts != self._cuts:
            # Cut while it came about.
            _end(near, politely=False)
        shuffler = Shuffler(self._draw) if self._websocket else None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(pair, reader, far, number, None))
                group.create_task(self._pump(pair, back, near, None, shuffler))
        finally:
            self._pairs.discard(pair)
            for writer in (near, far):
                _end(writer, politely=not pair.lost)

    async def _pump(
        self,
        pair: _Pair,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        number: int | None,
        shuffler: Shuffler | None,
    ) -> None:
        """One way; ``number`` is None on the way back."""
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_PIECES)
        with suppress(OSError):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(pair, pieces, writer, garbles=number is None))
                while data := await _read(reader):
                    if number is not None:
                        self._on_sent(number, data)
                    now_s = asyncio.get_running_loop().time()
                    if shuffler is not None:
                        data = shuffler.feed(data, shuffle=self.impairment.reorder)
                    if data:
                        await pieces.put((now_s, data))
                await pieces.put((0.0, b""))
        if not pair.lost:
            # The other end of a half-open connection does not see its end.
            _end(writer, politely=True)

    async def _pass_on(
        self,
        pair: _Pair,
        pieces: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
        *,
        garbles: bool,
    ) -> None:
        while True:
            arrived_s, data = await pieces.get()
            if not data:
                return
            left_s = arrived_s + self.impairment.delay_s - asyncio.get_running_loop().time()
            await asyncio.sleep(max(left_s, 0.0))
            if garbles and self._draw.random() < self.impairment.garble:
                data = self._garbled(data)
            for at in range(0, len(data), _SLICE):
                part = data[at : at + _SLICE]
                await asyncio.sleep(len(part) / self.impairment.bytes_per_s)
                pair.lost |= self.impairment.half_open
                if pair.lost or writer.is_closing():
                    break
                writer.write(part)
            with suppress(OSError):
                await writer.drain()

    def _garbled(self, data: bytes) -> bytes:
        at = self._draw.randrange(len(data))
        return data[:at] + bytes((data[at] ^ 0x80,)) + data[at + 1 :]


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(_PIECE)
    except OSError:
        return b""


def _end(writer: asyncio.StreamWriter, *, politely: bool) -> None:
    if politely:
        writer.close()
        return
    sock = writer.get_extra_info("socket")
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    writer.transport.abort()
