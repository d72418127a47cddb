"""The side of a connection that ccxt's message handlers touch, without a connection."""

from __future__ import annotations

from typing import Any


class FakeConnection:
    """A connection whose futures no task awaits."""

    url = "wss://127.0.0.1/v5/public/spot"

    def __init__(self) -> None:
        self.subscriptions: dict[str, Any] = {}
        self.futures: dict[str, Any] = {}

    def resolve(self, result: object, _hash: object = None) -> object:
        """Ignore the result."""
        return result

    def reject(self, error: object, _hash: object = None) -> object:
        """Ignore the error."""
        return error

    def reset(self, error: object) -> None:
        """Do nothing."""
