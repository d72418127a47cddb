"""Limit the size of REST responses."""

from __future__ import annotations

from typing import Any, Final

import aiohttp

MAX_RESPONSE_BYTES: Final = 64 << 20
"""After decompression; the longest list of markets has some 20 MB.

ccxt limits a websocket message to 10 MiB.
"""


class _LimitedResponse(aiohttp.ClientResponse):
    """A response that is read in chunks and dropped when it gets too long."""

    async def read(self) -> bytes:
        """Return the whole body.

        Raises:
            aiohttp.ClientPayloadError: it is longer than `MAX_RESPONSE_BYTES`.
        """
        if self._body is None:
            chunks, length = [], 0
            async for chunk in self.content.iter_any():
                length += len(chunk)
                if length > MAX_RESPONSE_BYTES:
                    self.close()
                    msg = f"the response is longer than {MAX_RESPONSE_BYTES >> 20} MiB"
                    raise aiohttp.ClientPayloadError(msg)
                chunks.append(chunk)
            self._body = b"".join(chunks)
        return self._body


def size_limited_class(base: type[Any]) -> type[Any]:
    """Make a subclass of a ccxt exchange whose REST responses are limited in size."""

    class SizeLimited(base):  # type: ignore[misc]
        def open(self, lazy: bool = False) -> None:  # noqa: FBT001, FBT002 - ccxt's signature
            super().open(lazy)
            if self.own_session and self.session is not None:
                # ccxt offers no way to choose the class of responses.
                self.session._response_class = _LimitedResponse  # noqa: SLF001

    SizeLimited.__name__ = base.__name__
    return SizeLimited
