"""Run a forward proxy on loopback, with or without a login."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from tests.support.loopback_server import LoopbackServer
from tests.support.servers import HOST

_CHUNK_BYTES = 65_536


class ForwardProxy(LoopbackServer):
    """A proxy that knows the names of some hosts.

    Attributes:
        requests: ``CONNECT host:port`` or ``GET scheme://host``, in order.
        refused: how many requests lacked the login.
    """

    def __init__(self, hosts: Mapping[str, int], login: str | None = None) -> None:
        """Prepare.

        Args:
            hosts: the loopback port behind each name.
            login: required ``user:password``; None for none.
        """
        super().__init__()
        self.requests: list[str] = []
        self.refused = 0
        self._hosts = hosts
        self._login = login

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Check the login of one request and relay it."""
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
        self.requests.append(f"{method} {origin}")
        back, far = await asyncio.open_connection(HOST, self._hosts[url.hostname or ""])
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            path = url._replace(scheme="", netloc="").geturl()
            far.write("\r\n".join([f"{method} {path} HTTP/1.1", *headers]).encode())
        await relay((reader, writer), (back, far))

    def _is_allowed(self, headers: list[str]) -> bool:
        if self._login is None:
            return True
        expected = base64.b64encode(self._login.encode()).decode()
        return f"proxy-authorization: basic {expected}".lower() in map(str.lower, headers)


Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def relay(near: Pair, far: Pair) -> None:
    """Relay bytes between two connections until both have ended."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                writer.write(data)
                await writer.drain()
        writer.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(pump(near[0], far[1]))
        group.create_task(pump(far[0], near[1]))


@asynccontextmanager
async def tls_endpoint(target: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Accept TLS on a port and relay it in plain to a loopback port; yields the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await relay((reader, writer), await asyncio.open_connection(HOST, target))

    server = await asyncio.start_server(serve, HOST, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
