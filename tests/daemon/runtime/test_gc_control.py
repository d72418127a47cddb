"""Garbage is collected while idle, and in bounded time otherwise."""

from __future__ import annotations

import gc

from daemon.runtime.gc_control import GcScheduler, manual_gc, no_gc


def test_young_objects_are_collected_every_second_and_old_every_minute() -> None:
    tidy = GcScheduler(0.0)
    due = [tidy.due(now / 2, idle=True) for now in range(1, 2 * 121)]
    assert due.count(None) == 121
    assert due.count(2) == 2
    assert [at for at, generation in enumerate(due, 1) if generation == 2] == [120, 240]


def test_it_waits_while_candles_wait_but_at_most_ten_seconds() -> None:
    tidy = GcScheduler(0.0)
    due = [tidy.due(float(now), idle=False) for now in range(1, 31)]
    assert [now for now, generation in enumerate(due, 1) if generation is not None] == [10, 20, 30]


def test_automatic_collection_is_off_within_the_block() -> None:
    assert gc.isenabled()
    with manual_gc():
        assert not gc.isenabled()
        cycle: list[object] = []
        cycle.append(cycle)
        del cycle
        before = gc.get_freeze_count()
        GcScheduler(0.0).collect(100.0, idle=True)
        assert gc.get_freeze_count() == before > 0
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_imported_objects_are_exempt_from_collection() -> None:
    with no_gc():
        assert not gc.isenabled()
        kept = [[number] for number in range(1_000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= len(kept)
    assert not any(element is kept[0] for element in gc.get_objects())
    with manual_gc(), no_gc():
        pass
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
