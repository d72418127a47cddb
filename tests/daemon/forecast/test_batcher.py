"""Every candle runs at once and only once, or is reported as dropped."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from daemon.forecast.batcher import Batcher, Ready
from model.core.candle import Candle, Ohlcv


def candle(seq: int, received_s: float = 0.0) -> Candle:
    ohlcv = Ohlcv(1.0, 1.0, 1.0, 1.0, 0.0)
    return Candle("A/B", seq * 1000, (seq + 1) * 1000, ohlcv, 0, received_s, "exchange_flag")


def test_everything_ready_runs_as_one_batch_in_order_of_arrival() -> None:
    batcher = Batcher(16)
    for index in (3, 1, 2):
        batcher.add(index, candle(7))
    assert [ready.slot for ready in batcher.take_batch()] == [3, 1, 2]
    assert batcher.take_batch() == []


def test_candles_that_close_during_a_batch_form_the_next_one() -> None:
    batcher = Batcher(2)
    for index in range(5):
        batcher.add(index, candle(7))
    sizes = [len(batcher.take_batch()) for _ in range(4)]
    assert sizes == [2, 2, 1, 0]


def test_a_newer_candle_replaces_the_waiting_one_of_its_symbol() -> None:
    batcher = Batcher(16)
    assert batcher.add(0, candle(7)) is None
    assert batcher.add(0, candle(8)) == Ready(0, candle(7))
    assert batcher.take_batch() == [Ready(0, candle(8))]


class BatcherAgainstList(RuleBasedStateMachine):
    """Oracle: a list in the order of arrival; every candle leaves exactly once or is reported."""

    @initialize(most=st.integers(1, 4))
    def start(self, most: int) -> None:
        self.most = most
        self.batcher = Batcher(most)
        self.waiting: list[Ready] = []
        self.offered: list[Ready] = []
        self.left: list[Ready] = []

    def known(self, slot: int) -> Ready | None:
        return next((ready for ready in self.waiting if ready.slot == slot), None)

    def leave(self, *gone: Ready) -> None:
        self.left += gone
        self.waiting = [ready for ready in self.waiting if ready not in gone]

    @rule(slot=st.integers(0, 5))
    def a_candle_closes(self, slot: int) -> None:
        older, ready = self.known(slot), Ready(slot, candle(len(self.offered)))
        assert self.batcher.add(slot, ready.candle) == older
        if older is not None:
            self.leave(older)
        self.offered.append(ready)
        self.waiting.append(ready)

    @rule(slot=st.integers(0, 5))
    def a_window_gets_a_gap(self, slot: int) -> None:
        known = self.known(slot)
        assert self.batcher.discard(slot) == known
        if known is not None:
            self.leave(known)

    @rule()
    def the_pipeline_is_free(self) -> None:
        batch = self.batcher.take_batch()
        assert batch == self.waiting[: self.most]
        self.leave(*batch)

    @invariant()
    def nothing_is_lost_and_nothing_twice(self) -> None:
        if not hasattr(self, "batcher"):
            return
        assert len(self.batcher) == len(self.waiting)
        assert sorted(self.left + self.waiting) == sorted(self.offered)


TestBatcherAgainstList = BatcherAgainstList.TestCase
