"""Books and states keep until a burst is over, but not for ever."""

from __future__ import annotations

import asyncio

from model.bundle import Bundle
from model.history import History
from tests.daemon.route import CAPACITY, ROWS, SYMBOLS, Hand, Route, Tape, check, running


class Steps(Hand):
    """A clock that goes on by 5 ms with each candle that closes, and stands still between."""

    now_s = 1.0

    def monotonic(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.001))


async def test_states_are_prepared_even_where_something_closes_all_the_time(
    bundle: Bundle, market: Tape, history: History
) -> None:
    clock = Steps()
    async with running(Route(bundle, history, clock=clock)) as path:
        path.warm(market, CAPACITY)
        await path.pipeline.settled()
        for end in range(CAPACITY + 1, ROWS):
            path.at(end)
            for symbol in SYMBOLS:
                made = len(path.published.forecasts)
                clock.now_s += 0.005
                path.close(market, symbol, end - 1)
                while len(path.published.forecasts) == made:
                    await asyncio.sleep(0.001)
        clock.now_s += 1.0
        await path.pipeline.settled()
        made = len(path.published.forecasts)
        # More than those that were prepared in the quiet before.
        assert made - path.sample("candlecast_unprepared_total") > len(SYMBOLS)
        assert path.scored() == made - len(SYMBOLS)
    check(bundle, market, path.published.forecasts[-1])


async def test_what_was_published_is_in_the_books_when_the_path_ends(
    bundle: Bundle, market: Tape, history: History
) -> None:
    async with running(Route(bundle, history)) as path:
        path.warm(market, CAPACITY)
        while len(path.published.forecasts) < len(SYMBOLS):
            await asyncio.sleep(0)
    assert path.accuracy.pending == len(SYMBOLS)
