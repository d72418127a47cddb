"""Check that symbols are added to and removed from a running feed and backfill."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daemon.control.reload import changed_settings
from daemon.feed.symbol_allocation import assign_symbols
from daemon.sandbox.exchange import Behaviour, SandboxExchange
from model.core.candle import Candle
from tests.daemon.feed.test_backfill import SYMBOLS, Bench
from tests.replay.replay_harness import make_feed, running
from tests.sandbox.scaled import MINUTE, ScaledClock, minute_playback
from tests.support.manual_clock import settle
from tests.support.waiting import until

NAMES = st.lists(
    st.builds(lambda n, kind: f"{n}/{kind}", st.integers(0, 40), st.sampled_from("AB")),
    unique=True,
    max_size=40,
)


def kind(symbol: str) -> str:
    return symbol[-1]


@given(NAMES, NAMES, NAMES, st.integers(1, 7))
def test_connections_are_shared_out_with_as_few_changes_as_possible(
    first: list[str], second: list[str], third: list[str], size: int
) -> None:
    shards: list[list[str]] = []
    for symbols in (first, second, third):
        after = assign_symbols(shards, symbols, kind, size)
        assert sorted(s for shard in after for s in shard) == sorted(symbols)
        assert all(len(shard) <= size for shard in after)
        assert all(len({kind(s) for s in shard}) <= 1 for shard in after)
        for was, now in zip(shards, after, strict=False):
            # Symbols that stay keep their connection and order.
            assert [s for s in now if s in was] == [s for s in was if s in symbols]
        # No further connection while an earlier one of the same kind has room.
        for at, new in enumerate(after[len(shards) :], len(shards)):
            roomy = [shard for shard in after[:at] if len(shard) < size]
            assert kind(new[0]) not in {kind(shard[0]) for shard in roomy if shard}
        shards = after


def test_changed_settings_are_named_with_their_section() -> None:
    before = {"a": {"x": 1, "y": {"z": 2}}, "b": {"x": (1, 2)}}
    after = {"a": {"x": 1, "y": {"z": 3}}, "b": {"x": (1, 3)}}
    assert list(changed_settings(before, after)) == ["a.y.z", "b.x"]
    assert not list(changed_settings(before, before))


async def test_a_symbol_removed_during_its_backfill_is_not_fetched_again() -> None:
    bench = Bench()
    gone, stays = SYMBOLS[:2]
    bench.archive.held.clear()
    bench.archive.away |= {gone, stays}
    bench.backfill.request(gone)
    bench.backfill.request(stays)
    async with bench.running():
        bench.backfill.set_windows([bench.windows[stays]])
        bench.backfill.request(gone)
        bench.archive.held.set()
        await settle()
        bench.archive.away.clear()
        await bench.clock.advance(600)
        assert bench.asked.count(gone) == 1
        assert bench.windows[stays].is_complete


async def test_the_feed_adds_and_removes_symbols_without_losing_a_candle() -> None:
    clock = ScaledClock(60.0)
    playback = minute_playback(6, clock.wall_ms())
    async with SandboxExchange(
        playback, clock=clock, behaviour=Behaviour(updates=2, close_delay_s=0.6)
    ) as exchange:
        symbols = playback.symbols
        urls = exchange.rest_url, exchange.ws_url
        harness = make_feed(urls, symbols[:4], clock)
        async with running(harness):
            await until(lambda: len(harness.closed) >= 2 * 4)
            await harness.feed.check_symbols(symbols[4:])
            harness.feed.watch_symbols(symbols[2:])
            await until(lambda: {c.symbol for c in harness.closed[-8:]} == set(symbols[2:]))
            changed = len(harness.closed)
            await until(lambda: len(harness.closed) >= changed + 4 * 4)
            # One connection replaces the other.
            await until(lambda: exchange.streams.clients == 1)
            harness.feed.watch_symbols([])
            await until(lambda: exchange.streams.clients == 0)
            harness.feed.watch_symbols(symbols[:1])
            before = len(harness.closed)
            await until(lambda: len(harness.closed) >= before + 2)
        assert {c.symbol for c in harness.closed[before:]} == {symbols[0]}
        assert {c.symbol for c in harness.closed[changed:before]} == set(symbols[2:])
        assert harness.count("feed_reconnects") == 0
        for symbol in symbols[2:4]:
            assert_no_gap([c for c in harness.closed[:before] if c.symbol == symbol])


def assert_no_gap(candles: list[Candle]) -> None:
    opens = sorted({candle.open_ms for candle in candles})
    assert opens == list(range(opens[0], opens[-1] + 1, MINUTE.ms))
    assert len(opens) >= 6
