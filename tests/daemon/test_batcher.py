"""Nothing waits, nothing is lost without being named, nothing runs twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daemon.batcher import Batcher, Ready
from model.candle import Candle, Ohlcv


def candle(seq: int, received_s: float = 0.0) -> Candle:
    ohlcv = Ohlcv(1.0, 1.0, 1.0, 1.0, 0.0)
    return Candle("A/B", seq * 1000, (seq + 1) * 1000, ohlcv, 0, received_s, "exchange_flag")


def test_whatever_is_ready_runs_together_in_order_of_arrival() -> None:
    batcher = Batcher(16)
    for index in (3, 1, 2):
        batcher.add(index, candle(7))
    assert [ready.slot for ready in batcher.take()] == [3, 1, 2]
    assert batcher.take() == []


def test_what_closes_meanwhile_is_the_next_batch() -> None:
    batcher = Batcher(2)
    for index in range(5):
        batcher.add(index, candle(7))
    sizes = [len(batcher.take()) for _ in range(4)]
    assert sizes == [2, 2, 1, 0]


def test_a_newer_candle_displaces_the_one_that_it_outdates() -> None:
    batcher = Batcher(16)
    assert batcher.add(0, candle(7)) is None
    assert batcher.add(0, candle(8)) == Ready(0, candle(7))
    assert batcher.take() == [Ready(0, candle(8))]


_STEP = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 5)),
    st.tuples(st.just("discard"), st.integers(0, 5)),
    st.tuples(st.just("take"), st.just(0)),
)


@given(st.lists(_STEP, max_size=60), st.integers(1, 4))
def test_every_candle_leaves_exactly_once(steps: list[tuple[str, int]], most: int) -> None:
    batcher = Batcher(most)
    waiting: list[Ready] = []
    for seq, (step, index) in enumerate(steps):
        if step == "add":
            ready = Ready(index, candle(seq))
            displaced = batcher.add(index, ready.candle)
            older = [r for r in waiting if r.slot == index]
            assert older == ([] if displaced is None else [displaced])
            waiting = [r for r in waiting if r.slot != index] + [ready]
        elif step == "discard":
            discarded = batcher.discard(index)
            assert discarded == next((r for r in waiting if r.slot == index), None)
            waiting = [r for r in waiting if r.slot != index]
        else:
            batch = batcher.take()
            assert batch == waiting[:most]
            waiting = waiting[most:]
        assert len(batcher) == len(waiting)
