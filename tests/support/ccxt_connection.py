"""Imitate the connection object that ccxt's message handlers use."""

from __future__ import annotations

from typing import Any, ClassVar


class Line:
    """Where a message comes from; nobody waits for it."""

    url = "wss://127.0.0.1/v5/public/spot"
    subscriptions: ClassVar[dict[str, Any]] = {}
    futures: ClassVar[dict[str, Any]] = {}

    def resolve(self, result: object, _hash: str) -> object:
        """Hand the result to nobody."""
        return result

    def reject(self, error: object, _hash: object = None) -> object:
        """Hand the error to nobody."""
        return error

    def reset(self, error: object) -> None:
        """Forget nobody."""
