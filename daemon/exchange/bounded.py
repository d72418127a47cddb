"""No answer of an exchange may fill the memory."""

from __future__ import annotations

from typing import Any, Final

import aiohttp

LARGEST_ANSWER: Final = 64 << 20
"""Bytes after decompression; the longest list of markets has some 20 MB.

A websocket message is bounded by ccxt, at 10 MiB.
"""


class _Answer(aiohttp.ClientResponse):
    """Read piece by piece, and given up when it gets too long."""

    async def read(self) -> bytes:
        """The whole body.

        Raises:
            aiohttp.ClientPayloadError: it is longer than `LARGEST_ANSWER`.
        """
        if self._body is None:
            pieces, length = [], 0
            async for piece in self.content.iter_any():
                length += len(piece)
                if length > LARGEST_ANSWER:
                    self.close()
                    msg = f"the answer is longer than {LARGEST_ANSWER >> 20} MiB"
                    raise aiohttp.ClientPayloadError(msg)
                pieces.append(piece)
            self._body = b"".join(pieces)
        return self._body


def bounded(base: type[Any]) -> type[Any]:
    """A subclass of a ccxt exchange whose REST answers are bounded."""

    class Bounded(base):  # type: ignore[misc]
        def open(self, lazy: bool = False) -> None:  # noqa: FBT001, FBT002 - ccxt's signature
            super().open(lazy)
            if self.own_session and self.session is not None:
                # ccxt makes its session without asking what answers shall be.
                self.session._response_class = _Answer  # noqa: SLF001

    Bounded.__name__ = base.__name__
    return Bounded
