"""Imitate the connection object that ccxt's message handlers use."""

from __future__ import annotations

from typing import Any, ClassVar


class Line:
    """The connection that a message handler is given."""

    url = "wss://127.0.0.1/v5/public/spot"
    subscriptions: ClassVar[dict[str, Any]] = {}
    futures: ClassVar[dict[str, Any]] = {}

    def resolve(self, result: object, _hash: str) -> object:
        """Ignore the result."""
        return result

    def reject(self, error: object, _hash: object = None) -> object:
        """Ignore the error."""
        return error

    def reset(self, error: object) -> None:
        """Do nothing."""
