"""A listener of the ccxt tap that keeps everything it receives."""

from __future__ import annotations


class RecordingListener:
    """A `daemon.exchange.ccxt_tap.CandleListener`.

    Attributes:
        updates: symbol, opening time, values and closed flag of every update, in order.
        errors: of the messages that could not be read, in order.
    """

    def __init__(self) -> None:
        self.updates: list[tuple[str, object, tuple[object, ...], bool | None]] = []
        self.errors: list[Exception] = []

    def on_raw(
        self, symbol: str, open_ms: object, values: tuple[object, ...], *, closed: bool | None
    ) -> None:
        """Keep an update."""
        assert closed in (True, False, None)
        self.updates.append((symbol, open_ms, values, closed))

    def on_unusable_message(self, error: Exception) -> None:
        """Keep an error."""
        self.errors.append(error)

    async def wait_turn(self, cost: float | None = None) -> None:
        """Send at once."""
