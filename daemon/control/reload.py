"""What a SIGHUP does: the configuration is read again, the champion looked at again."""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from model.core.errors import CandlecastError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from daemon.control.hot_swap import HotSwap
    from daemon.control.symbol_changes import SymbolChanger

log = logging.getLogger("candlecast.control")

RELOADED: Final = frozenset({"trading.symbols", "model.unknown_symbols"})
"""Settings that take effect while the daemon runs; the others need a restart."""


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Names of settings that are not what they were, as ``section.key``.

    Args:
        before: nested, with the same keys as ``after``.
        after: the settings now.
    """
    for key, value in after.items():
        was = before[key]
        if isinstance(value, dict) and isinstance(was, dict):
            yield from (f"{key}.{inner}" for inner in differing(was, value))
        elif value != was:
            yield key


class Reloader:
    """Reloads when told to.

    Attributes:
        hangup: set it to have everything reloaded, as a SIGHUP does.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        read: Callable[[], Mapping[str, Any]],
        swapper: HotSwap,
        roster: SymbolChanger,
        notice: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Wire; `run` waits for orders.

        Args:
            settings: by section and key, as the daemon was started with.
            read: reads and checks the configuration; called in a thread.
            swapper: looks at the champion again.
            roster: changes the symbols.
            notice: what each reload happens in, such as a notice to the service manager.
        """
        self.hangup = asyncio.Event()
        self._read = read
        self._swapper = swapper
        self._roster = roster
        self._settings = settings
        self._notice = notice

    async def run(self) -> None:
        """Reload at each hang-up, until cancelled."""
        while True:
            await self.hangup.wait()
            self.hangup.clear()
            with self._notice():
                await self.reload()

    async def reload(self) -> None:
        """Take up what has changed; whatever is wrong with it leaves everything as it was."""
        try:
            await self._take_up()
        except CandlecastError as error:
            for line in str(error).splitlines():
                log.error("the configuration stays as it was: %s", line)  # noqa: TRY400 - the line says it all
        await self._swapper.look(again=True)

    async def _take_up(self) -> None:
        settings = await asyncio.to_thread(self._read)
        fixed = sorted(set(differing(self._settings, settings)) - RELOADED)
        await self._roster.change(settings["trading"]["symbols"])
        if fixed:
            log.warning("changed, but only a restart takes it up: %s", ", ".join(fixed))
