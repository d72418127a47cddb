"""A window is a sorted list of consecutive candles, in whatever order they arrive."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from daemon.candles.window import Verdict, Window
from model.core.candle import Candle, Ohlcv, Timeframe

FRAME = Timeframe.parse("1m")
START_MS = 1_700_000_040_000 // FRAME.ms * FRAME.ms
CAPACITY = 5


def candle(at: int, close: float = 100.0, final_by: str = "exchange_flag") -> Candle:
    open_ms = START_MS + at * FRAME.ms
    ohlcv = Ohlcv(close, close + 1, close - 1, close, 2.0)
    return Candle("A/B", open_ms, open_ms + FRAME.ms, ohlcv, 0, 0.0, final_by)  # type: ignore[arg-type]


def primed(count: int = CAPACITY) -> Window:
    window = Window("A/B", FRAME, CAPACITY)
    window.repair(candle(at, 100.0 + at) for at in range(count))
    return window


def closes(window: Window) -> list[float]:
    return [float(value) for value in window.ohlcv()[:, 3]]


def test_before_any_history_a_candle_waits() -> None:
    window = Window("A/B", FRAME, CAPACITY)
    assert window.add(candle(9)) is Verdict.GAP
    assert not window.whole
    assert window.gap == (START_MS + (9 - CAPACITY) * FRAME.ms, START_MS + 9 * FRAME.ms)


def test_history_then_the_waiting_candle() -> None:
    window = Window("A/B", FRAME, CAPACITY)
    window.add(candle(5, 105.0))
    assert window.repair(candle(at, 100.0 + at) for at in range(5)) == 6
    assert window.whole
    assert closes(window) == [101.0, 102.0, 103.0, 104.0, 105.0]


def test_candles_in_order_are_appended_and_the_oldest_leaves() -> None:
    window = primed()
    for at in range(5, 40):
        assert window.add(candle(at, 100.0 + at)) is Verdict.APPENDED
        assert closes(window) == [100.0 + k for k in range(at - CAPACITY + 1, at + 1)]
    assert window.newest == candle(39, 139.0)


def test_the_same_candle_again_changes_nothing() -> None:
    window = primed()
    revision = window.revision
    assert window.add(candle(4, 104.0)) is Verdict.DUPLICATE
    assert window.revision == revision


def test_other_values_for_a_closed_candle_repair_the_window() -> None:
    window = primed()
    revision = window.revision
    assert window.add(candle(2, 999.0)) is Verdict.REVISED
    assert closes(window) == [100.0, 101.0, 999.0, 103.0, 104.0]
    assert window.revision == revision + 1


def test_a_candle_from_before_the_window_is_stale() -> None:
    assert primed().add(candle(-1)) is Verdict.STALE


@pytest.mark.parametrize("at", [-400_000, -1, 3])
def test_a_waiting_candle_that_proves_old_blocks_nothing(at: int) -> None:
    window = Window("A/B", FRAME, CAPACITY)
    assert window.add(candle(at, 77.0)) is Verdict.GAP
    # The history does not know it, or knows better.
    window.repair(candle(k, 100.0 + k) for k in range(CAPACITY) if k != at)
    assert window.gap is None
    assert window.whole
    assert window.add(candle(CAPACITY, 105.0)) is Verdict.APPENDED
    kept = 77.0 if at == 3 else 103.0
    assert closes(window) == [101.0, 102.0, kept, 104.0, 105.0]


def test_a_gap_is_repaired_in_place() -> None:
    window = primed()
    assert window.add(candle(7, 107.0)) is Verdict.GAP
    assert not window.whole
    missing = window.gap
    assert missing == (START_MS + 5 * FRAME.ms, START_MS + 7 * FRAME.ms)
    revision = window.revision
    assert window.repair([candle(4, 104.0), candle(5, 105.0), candle(6, 106.0)]) == 3
    assert window.gap is None
    assert closes(window) == [103.0, 104.0, 105.0, 106.0, 107.0]
    assert window.revision > revision


def test_a_gap_that_the_stream_itself_closes_counts_as_a_change() -> None:
    window = primed()
    window.add(candle(6, 106.0))
    revision = window.revision
    assert window.add(candle(5, 105.0)) is Verdict.APPENDED
    assert window.whole
    assert window.revision > revision
    assert window.newest == candle(6, 106.0)


def test_a_period_that_the_history_leaves_out_had_no_trade() -> None:
    window = primed()
    window.repair([candle(4, 104.0), candle(7, 107.0)])
    assert closes(window) == [103.0, 104.0, 104.0, 104.0, 107.0]
    assert list(window.ohlcv()[:, 4]) == [2.0, 2.0, 0.0, 0.0, 2.0]
    assert window.filled(CAPACITY) == 2
    assert window.filled(1) == 0


def flat(at: int, close: float, volume: float = 0.0) -> Candle:
    return candle(at)._replace(ohlcv=Ohlcv(close, close, close, close, volume))


def test_a_period_without_a_trade_counts_whether_sent_or_filled() -> None:
    window = primed()
    # Told by the stream, told by the history, left out by the history.
    window.add(flat(5, 104.0))
    window.repair([flat(6, 104.0)._replace(final_by="rest"), candle(8, 108.0)])
    assert window.filled(CAPACITY) == 3
    assert (window.filled(1), window.filled(2)) == (0, 1)


def test_without_volumes_a_candle_whose_price_moves_has_a_trade() -> None:
    window = primed()
    for at in range(5, 5 + CAPACITY):
        # One price in the whole candle, another one than before.
        window.add(flat(at, 100.0 + at))
    assert window.filled(CAPACITY) == 0
    window.add(flat(20, 1.0, volume=3.0))
    window.repair(candle(at)._replace(ohlcv=Ohlcv(100.0, 101.0, 99.0, 100.0, 0.0)) for at in
                  range(20, 30))  # fmt: skip
    assert window.filled(CAPACITY) == 0


def test_a_revision_changes_what_had_a_trade() -> None:
    window = primed()
    window.add(flat(5, 104.0))
    window.add(flat(6, 104.0))
    assert window.filled(CAPACITY) == 2
    assert window.add(candle(5, 107.0)) is Verdict.REVISED
    # The next one is at another price than the close before it: that is a move.
    assert window.filled(CAPACITY) == 0
    assert window.add(flat(5, 104.0)) is Verdict.REVISED
    assert window.filled(CAPACITY) == 2
    for at in range(7, 20):
        window.add(candle(at))
    assert window.filled(CAPACITY) == 0
    assert window.add(flat(18, 100.0)) is Verdict.REVISED
    assert (window.filled(CAPACITY), window.filled(1)) == (1, 0)


def test_a_repaired_candle_is_counted_and_replaced_by_a_received_one() -> None:
    window = primed()
    window.add(candle(5, 105.0)._replace(repaired=True))
    assert (window.repaired(CAPACITY), window.repaired(1)) == (1, 1)
    assert window.add(candle(5, 106.0)._replace(filled=True)) is Verdict.DUPLICATE
    assert window.add(candle(5, 106.0)._replace(repaired=True)) is Verdict.REVISED
    assert window.add(candle(5, 107.0)) is Verdict.REVISED
    assert window.repaired(CAPACITY) == 0
    assert window.add(candle(5, 108.0)._replace(repaired=True)) is Verdict.DUPLICATE
    assert closes(window)[-1] == 107.0


@pytest.mark.parametrize(("filled", "repaired"), [(True, False), (False, True)])
def test_a_received_candle_that_waits_is_not_replaced(*, filled: bool, repaired: bool) -> None:
    window = primed()
    window.add(candle(6, 106.0))
    window.repair([candle(5, 105.0), candle(6, 1.0)._replace(filled=filled, repaired=repaired)])
    assert closes(window)[-2:] == [105.0, 106.0]
    assert window.filled(CAPACITY) == window.repaired(CAPACITY) == 0


def test_history_that_begins_far_behind_the_window_starts_it_over() -> None:
    window = primed()
    window.repair([candle(100, 1.0), candle(101, 2.0)])
    assert closes(window) == [1.0, 2.0]
    assert not window.whole


def test_what_waits_behind_a_gap_is_bounded() -> None:
    window = primed()
    for at in range(6, 200):
        window.add(candle(at))
    gap = window.gap
    assert gap is not None
    assert gap[1] == START_MS + (200 - CAPACITY) * FRAME.ms


@settings(max_examples=200)
@given(st.permutations(range(12)))
def test_any_order_of_arrival_ends_in_the_same_window(order: list[int]) -> None:
    window = Window("A/B", FRAME, CAPACITY)
    window.repair([candle(-1, 1.0)])
    for at in order:
        window.add(candle(at, 100.0 + at))
    # What fell out of the bounded waiting room comes back by the exchange's history.
    window.repair(candle(at, 100.0 + at) for at in range(-1, 12))
    assert closes(window) == [107.0, 108.0, 109.0, 110.0, 111.0]
    assert window.whole


class WindowAgainstSortedList(RuleBasedStateMachine):
    """Oracle: all closes ever told or in the exchange's history, read in the order of time."""

    def __init__(self) -> None:
        super().__init__()
        self.window = Window("A/B", FRAME, CAPACITY)
        self.truth = dict.fromkeys(range(CAPACITY), 50.0)
        self.untold: dict[int, float] = {}
        self.live = CAPACITY

    @rule(close=st.floats(2, 1e6))
    def next_candle(self, close: float) -> None:
        self.truth[self.live] = close
        self.window.add(candle(self.live, close))
        self.live += 1

    @rule(close=st.floats(2, 1e6))
    def lose_a_candle(self, close: float) -> None:
        self.truth[self.live] = self.untold[self.live] = close
        self.live += 1

    @precondition(lambda self: self.untold)
    @rule(data=st.data())
    def a_lost_candle_comes_late(self, data: st.DataObject) -> None:
        at = data.draw(st.sampled_from(sorted(self.untold)))
        self.window.add(candle(at, self.untold.pop(at)))

    @rule(back=st.integers(1, 2 * CAPACITY))
    def a_candle_comes_twice(self, back: int) -> None:
        at = self.live - back
        if at in self.truth and at not in self.untold:
            revision = self.window.revision
            verdict = self.window.add(candle(at, self.truth[at]))
            assert verdict in {Verdict.DUPLICATE, Verdict.STALE, Verdict.GAP}
            assert self.window.revision == revision

    @rule(years=st.integers(1, 3))
    def a_candle_from_years_ago(self, years: int) -> None:
        verdict = self.window.add(candle(-years * 525_600, 7.0))
        assert verdict is (Verdict.GAP if self.window.next_open_ms is None else Verdict.STALE)

    @rule(back=st.integers(1, 2 * CAPACITY), close=st.floats(2, 1e6))
    def revise(self, back: int, close: float) -> None:
        at = self.live - back
        if at in self.truth:
            self.truth[at] = close
            self.untold.pop(at, None)
            self.window.add(candle(at, close))

    @rule(overlap=st.integers(1, 3))
    def backfill(self, overlap: int) -> None:
        following = self.window.next_open_ms
        end = self.live if following is None else (following - START_MS) // FRAME.ms
        first = end - (2 * CAPACITY if following is None else overlap)
        span = range(max(0, first), self.live)
        self.window.repair(candle(at, self.truth[at], "rest") for at in span)
        for at in span:
            self.untold.pop(at, None)
        assert self.window.whole

    @invariant()
    def holds_the_newest_consecutive_truth(self) -> None:
        following = self.window.next_open_ms
        if following is None:
            assert len(self.window) == 0
            return
        end = (following - START_MS) // FRAME.ms
        expected = [self.truth[at] for at in range(end - CAPACITY, end)]
        assert np.array_equal(self.window.ohlcv()[:, 3], expected)
        assert self.window.whole == (self.window.gap is None)


TestWindowAgainstSortedList = pytest.mark.filterwarnings("default")(
    WindowAgainstSortedList.TestCase
)
