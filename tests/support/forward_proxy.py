"""Run a forward proxy on loopback, as companies have between their machines and the Internet."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Self
from urllib.parse import urlsplit

from tests.support.servers import HOST

_PIECE = 65_536


class ForwardProxy:
    """Async context manager; inside it, a proxy listens that knows the names of ``hosts``.

    Attributes:
        port: where it listens.
        asked: what it was asked for: ``CONNECT host:port`` or ``GET scheme://host``.
        refused: how many requests lacked the login.
    """

    def __init__(self, hosts: Mapping[str, int], login: str | None = None) -> None:
        """Prepare.

        Args:
            hosts: the loopback port behind each name.
            login: ``user:password`` that it asks for.
        """
        self.port = 0
        self.asked: list[str] = []
        self.refused = 0
        self._hosts = hosts
        self._login = login
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await self._answer(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *headers = head.decode().split("\r\n")
        method, target, _ = line.split(" ")
        if not self._is_allowed(headers):
            self.refused += 1
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        origin = target if method == "CONNECT" else f"{url.scheme}://{url.netloc}"
        self.asked.append(f"{method} {origin}")
        back, far = await asyncio.open_connection(HOST, self._hosts[url.hostname or ""])
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            path = url._replace(scheme="", netloc="").geturl()
            far.write("\r\n".join([f"{method} {path} HTTP/1.1", *headers]).encode())
        await pumped((reader, writer), (back, far))

    def _is_allowed(self, headers: list[str]) -> bool:
        if self._login is None:
            return True
        expected = base64.b64encode(self._login.encode()).decode()
        return f"proxy-authorization: basic {expected}".lower() in map(str.lower, headers)


Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def pumped(near: Pair, far: Pair) -> None:
    """Pass bytes between two connections until both have ended."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_PIECE):
                writer.write(data)
                await writer.drain()
        writer.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(pump(near[0], far[1]))
        group.create_task(pump(far[0], near[1]))


@asynccontextmanager
async def by_tls(target: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """A port that speaks TLS for a loopback port that does not."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await pumped((reader, writer), await asyncio.open_connection(HOST, target))

    server = await asyncio.start_server(serve, HOST, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
