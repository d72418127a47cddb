"""Log once that something broke and once that it works again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging


class Outage:
    """The state of one thing that may break and heal, such as a connection.

    Attributes:
        ongoing: whether it is broken now.
    """

    def __init__(self, log: logging.Logger) -> None:
        """Start with a thing that works.

        Args:
            log: gets a warning at the beginning of an outage and an info line at its end.
        """
        self._log = log
        self.ongoing = False

    def begin(self, message: str, *args: object) -> None:
        """Note a failure; log it unless the outage is known.

        Args:
            message: format string as for `logging`.
            args: its arguments.
        """
        if not self.ongoing:
            # The record names the caller's line, by which the log's rate limit tells lines apart.
            self._log.warning(message, *args, stacklevel=2)
        self.ongoing = True

    def end(self, message: str, *args: object) -> None:
        """Note that it works; log it if an outage ends with that.

        Args:
            message: format string as for `logging`.
            args: its arguments.
        """
        if self.ongoing:
            self._log.info(message, *args, stacklevel=2)
        self.ongoing = False
