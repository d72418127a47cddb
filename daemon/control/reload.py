"""Apply a changed configuration and a new champion on SIGHUP."""

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

RELOADABLE: Final = frozenset({"trading.symbols", "model.unknown_symbols"})
"""Settings that a reload applies; the others need a restart."""


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Return the names of changed settings, as ``section.key``.

    Args:
        before: the old settings, nested, with the same keys as ``after``.
        after: the new settings.
    """
    for key, value in after.items():
        old_value = before[key]
        if isinstance(value, dict) and isinstance(old_value, dict):
            yield from (f"{key}.{inner}" for inner in changed_settings(old_value, value))
        elif value != old_value:
            yield key


class Reloader:
    """Reloads configuration and champion on request.

    Attributes:
        hangup: set it to request a reload, as a SIGHUP does.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        read: Callable[[], Mapping[str, Any]],
        hot_swap: HotSwap,
        symbol_changer: SymbolChanger,
        notify: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Wire; `run` waits for requests.

        Args:
            settings: by section and key, as the daemon was started with.
            read: reads and checks the configuration; called in a thread.
            hot_swap: serves a new champion.
            symbol_changer: changes the symbols.
            notify: a context that each reload runs in; tells the service manager of it.
        """
        self.hangup = asyncio.Event()
        self._read = read
        self._hot_swap = hot_swap
        self._symbol_changer = symbol_changer
        self._settings = settings
        self._notify = notify

    async def run(self) -> None:
        """Reload at each request, until cancelled."""
        while True:
            await self.hangup.wait()
            self.hangup.clear()
            with self._notify():
                await self.reload()

    async def reload(self) -> None:
        """Apply what has changed; if the configuration is invalid, log it and keep the old one."""
        try:
            await self._apply()
        except CandlecastError as error:
            for line in str(error).splitlines():
                log.error("the configuration stays as it was: %s", line)  # noqa: TRY400 - the message suffices
        await self._hot_swap.poll(retry=True)

    async def _apply(self) -> None:
        settings = await asyncio.to_thread(self._read)
        need_restart = sorted(set(changed_settings(self._settings, settings)) - RELOADABLE)
        await self._symbol_changer.change(settings["trading"]["symbols"])
        if need_restart:
            log.warning("changed, but applied only by a restart: %s", ", ".join(need_restart))
