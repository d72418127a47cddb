"""Learn from an exchange's candles when its weeks, days and other candles open."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from model.core.candle import EARLIEST_MS, LATEST_MS, moment
from model.core.errors import NotOffered
from model.core.grid import learnt, no_grid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from model.core.candle import Timeframe

    Rows = Sequence[Sequence[Any]]

log = logging.getLogger("candlecast.candles")

_REQUESTED_CANDLES: Final = 10
"""Candles requested per symbol to learn the grid."""

_MAX_SYMBOLS: Final = 3
"""Symbols requested at most, if the first ones have too few candles."""

_MIN_CANDLES: Final = 3
"""Fewer candles than this do not prove that an exchange keeps to no grid."""


class Grid:
    """Opening times of an exchange's candles.

    Attributes:
        timeframe: on the exchange's grid; on the usual one until its candles show another.
    """

    def __init__(self, exchange: str, timeframe: Timeframe) -> None:
        """Start with the usual grid.

        Args:
            exchange: ccxt id.
            timeframe: length of the candles.
        """
        self.timeframe = timeframe
        self._exchange = exchange
        # Whether candles have shown the grid.
        self._known = False

    async def learn(
        self,
        fetch: Callable[[str, int, int], Awaitable[Rows]],
        symbols: Sequence[str],
        now_ms: int,
    ) -> None:
        """Fetch the newest candles of the first symbols and learn from them.

        Args:
            fetch: fetches candles; takes symbol, first opening time (Unix ms) and their number.
            symbols: ccxt symbols.
            now_ms: Unix milliseconds.

        Raises:
            NotOffered: the candles keep to no grid.
        """
        frame, rows = self.timeframe, list[Any]()
        for symbol in symbols[:_MAX_SYMBOLS]:
            rows += await fetch(
                symbol, frame.floor(now_ms) - _REQUESTED_CANDLES * frame.ms, _REQUESTED_CANDLES + 1
            )
            if len(rows) >= _MIN_CANDLES:
                break
        self.learn_from(rows)

    def learn_from(self, rows: Rows) -> None:
        """Learn from candles unless the grid is known.

        Args:
            rows: one per candle; its first element is the opening time, Unix milliseconds.

        Raises:
            NotOffered: the candles keep to no grid, or to one between whole seconds, in which the
                history counts.
        """
        if self._known:
            return
        firsts = (row[0] if row else None for row in rows)
        opens_ms = [at for at in firsts if type(at) is int and EARLIEST_MS <= at < LATEST_MS]
        found = learnt(self.timeframe, opens_ms)
        if found is None:
            if len(opens_ms) >= _MIN_CANDLES:
                raise self._refusal(no_grid(self.timeframe, opens_ms))
            return
        if found.origin_ms % 1_000:
            at = moment(opens_ms[-1])
            why = f"the {found.text} candles open between two seconds ({at})"
            raise self._refusal(why)
        self._known = True
        if found != self.timeframe:
            boundary = moment(found.floor(opens_ms[-1]))
            log.info("%s opens a %s candle at %s", self._exchange, found.text, boundary)
        self.timeframe = found

    def _refusal(self, why: str) -> NotOffered:
        return NotOffered(f"{self._exchange}: {why}; choose another trading.timeframe")
