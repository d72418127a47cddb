"""A window is a sorted list of consecutive candles, in whatever order they arrive."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from daemon.candles.window import CandleOutcome, Window
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
    window.merge_history(candle(at, 100.0 + at) for at in range(count))
    return window


def closes(window: Window) -> list[float]:
    return [float(value) for value in window.ohlcv()[:, 3]]


def test_before_any_history_a_candle_waits() -> None:
    window = Window("A/B", FRAME, CAPACITY)
    assert window.add_closed(candle(9)) is CandleOutcome.GAP
    assert not window.is_complete
    assert window.gap == (START_MS + (9 - CAPACITY) * FRAME.ms, START_MS + 9 * FRAME.ms)


def test_history_then_the_waiting_candle() -> None:
    window = Window("A/B", FRAME, CAPACITY)
    window.add_closed(candle(5, 105.0))
    assert window.merge_history(candle(at, 100.0 + at) for at in range(5)) == 6
    assert window.is_complete
    assert closes(window) == [101.0, 102.0, 103.0, 104.0, 105.0]


def test_candles_in_order_are_appended_and_the_oldest_leaves() -> None:
    window = primed()
    for at in range(5, 40):
        assert window.add_closed(candle(at, 100.0 + at)) is CandleOutcome.APPENDED
        assert closes(window) == [100.0 + k for k in range(at - CAPACITY + 1, at + 1)]
    assert window.newest == candle(39, 139.0)


def test_the_same_candle_again_changes_nothing() -> None:
    window = primed()
    revision = window.revision
    assert window.add_closed(candle(4, 104.0)) is CandleOutcome.DUPLICATE
    assert window.revision == revision


def test_other_values_for_a_closed_candle_repair_the_window() -> None:
    window = primed()
    revision = window.revision
    assert window.add_closed(candle(2, 999.0)) is CandleOutcome.REVISED
    assert closes(window) == [100.0, 101.0, 999.0, 103.0, 104.0]
    assert window.revision == revision + 1


def test_a_candle_from_before_the_window_is_stale() -> None:
    assert primed().add_closed(candle(-1)) is CandleOutcome.STALE


@pytest.mark.parametrize("at", [-400_000, -1, 3])
def test_a_waiting_candle_that_turns_out_stale_blocks_nothing(at: int) -> None:
    window = Window("A/B", FRAME, CAPACITY)
    assert window.add_closed(candle(at, 77.0)) is CandleOutcome.GAP
    # The history lacks it, or has a newer version.
    window.merge_history(candle(k, 100.0 + k) for k in range(CAPACITY) if k != at)
    assert window.gap is None
    assert window.is_complete
    assert window.add_closed(candle(CAPACITY, 105.0)) is CandleOutcome.APPENDED
    kept = 77.0 if at == 3 else 103.0
    assert closes(window) == [101.0, 102.0, kept, 104.0, 105.0]


def test_a_gap_is_repaired_in_place() -> None:
    window = primed()
    assert window.add_closed(candle(7, 107.0)) is CandleOutcome.GAP
    assert not window.is_complete
    missing = window.gap
    assert missing == (START_MS + 5 * FRAME.ms, START_MS + 7 * FRAME.ms)
    revision = window.revision
    assert window.merge_history([candle(4, 104.0), candle(5, 105.0), candle(6, 106.0)]) == 3
    assert window.gap is None
    assert closes(window) == [103.0, 104.0, 105.0, 106.0, 107.0]
    assert window.revision > revision


def test_a_gap_closed_by_the_stream_counts_as_a_change() -> None:
    window = primed()
    window.add_closed(candle(6, 106.0))
    revision = window.revision
    assert window.add_closed(candle(5, 105.0)) is CandleOutcome.APPENDED
    assert window.is_complete
    assert window.revision > revision
    assert window.newest == candle(6, 106.0)


def test_a_period_that_the_history_leaves_out_had_no_trade() -> None:
    window = primed()
    window.merge_history([candle(4, 104.0), candle(7, 107.0)])
    assert closes(window) == [103.0, 104.0, 104.0, 104.0, 107.0]
    assert list(window.ohlcv()[:, 4]) == [2.0, 2.0, 0.0, 0.0, 2.0]
    assert window.count_untraded(CAPACITY) == 2
    assert window.count_untraded(1) == 0


def flat(at: int, close: float, volume: float = 0.0) -> Candle:
    return candle(at)._replace(ohlcv=Ohlcv(close, close, close, close, volume))


def test_a_period_without_a_trade_counts_whether_sent_or_filled() -> None:
    window = primed()
    # Sent by the stream, by the history, or by neither.
    window.add_closed(flat(5, 104.0))
    window.merge_history([flat(6, 104.0)._replace(final_by="rest"), candle(8, 108.0)])
    assert window.count_untraded(CAPACITY) == 3
    assert (window.count_untraded(1), window.count_untraded(2)) == (0, 1)


def test_without_volumes_a_candle_whose_price_moves_has_a_trade() -> None:
    window = primed()
    for at in range(5, 5 + CAPACITY):
        # One price in the whole candle, another one than before.
        window.add_closed(flat(at, 100.0 + at))
    assert window.count_untraded(CAPACITY) == 0
    window.add_closed(flat(20, 1.0, volume=3.0))
    window.merge_history(candle(at)._replace(ohlcv=Ohlcv(100.0, 101.0, 99.0, 100.0, 0.0)) for at in
                  range(20, 30))  # fmt: skip
    assert window.count_untraded(CAPACITY) == 0


def test_a_revision_updates_which_candles_have_a_trade() -> None:
    window = primed()
    window.add_closed(flat(5, 104.0))
    window.add_closed(flat(6, 104.0))
    assert window.count_untraded(CAPACITY) == 2
    assert window.add_closed(candle(5, 107.0)) is CandleOutcome.REVISED
    # The next one is at another price than the close before it: that is a move.
    assert window.count_untraded(CAPACITY) == 0
    assert window.add_closed(flat(5, 104.0)) is CandleOutcome.REVISED
    assert window.count_untraded(CAPACITY) == 2
    for at in range(7, 20):
        window.add_closed(candle(at))
    assert window.count_untraded(CAPACITY) == 0
    assert window.add_closed(flat(18, 100.0)) is CandleOutcome.REVISED
    assert (window.count_untraded(CAPACITY), window.count_untraded(1)) == (1, 0)


def test_a_repaired_candle_is_counted_and_replaced_by_a_received_one() -> None:
    window = primed()
    window.add_closed(candle(5, 105.0)._replace(repaired=True))
    assert (window.count_repaired(CAPACITY), window.count_repaired(1)) == (1, 1)
    assert window.add_closed(candle(5, 106.0)._replace(filled=True)) is CandleOutcome.DUPLICATE
    assert window.add_closed(candle(5, 106.0)._replace(repaired=True)) is CandleOutcome.REVISED
    assert window.add_closed(candle(5, 107.0)) is CandleOutcome.REVISED
    assert window.count_repaired(CAPACITY) == 0
    assert window.add_closed(candle(5, 108.0)._replace(repaired=True)) is CandleOutcome.DUPLICATE
    assert closes(window)[-1] == 107.0


@pytest.mark.parametrize(("filled", "repaired"), [(True, False), (False, True)])
def test_a_received_candle_that_waits_is_not_replaced(*, filled: bool, repaired: bool) -> None:
    window = primed()
    window.add_closed(candle(6, 106.0))
    window.merge_history(
        [candle(5, 105.0), candle(6, 1.0)._replace(filled=filled, repaired=repaired)]
    )
    assert closes(window)[-2:] == [105.0, 106.0]
    assert window.count_untraded(CAPACITY) == window.count_repaired(CAPACITY) == 0


def test_history_that_begins_far_after_the_window_resets_it() -> None:
    window = primed()
    window.merge_history([candle(100, 1.0), candle(101, 2.0)])
    assert closes(window) == [1.0, 2.0]
    assert not window.is_complete


def test_candles_waiting_behind_a_gap_are_bounded() -> None:
    window = primed()
    for at in range(6, 200):
        window.add_closed(candle(at))
    gap = window.gap
    assert gap is not None
    assert gap[1] == START_MS + (200 - CAPACITY) * FRAME.ms


@settings(max_examples=200)
@given(st.permutations(range(12)))
def test_any_order_of_arrival_ends_in_the_same_window(order: list[int]) -> None:
    window = Window("A/B", FRAME, CAPACITY)
    window.merge_history([candle(-1, 1.0)])
    for at in order:
        window.add_closed(candle(at, 100.0 + at))
    # Candles dropped from the bounded queue come back from the exchange's history.
    window.merge_history(candle(at, 100.0 + at) for at in range(-1, 12))
    assert closes(window) == [107.0, 108.0, 109.0, 110.0, 111.0]
    assert window.is_complete


class WindowAgainstSortedList(RuleBasedStateMachine):
    """Oracle: all closes ever received or in the exchange's history, in order of time."""

    def __init__(self) -> None:
        super().__init__()
        self.window = Window("A/B", FRAME, CAPACITY)
        self.truth = dict.fromkeys(range(CAPACITY), 50.0)
        self.untold: dict[int, float] = {}
        self.live = CAPACITY

    @rule(close=st.floats(2, 1e6))
    def next_candle(self, close: float) -> None:
        self.truth[self.live] = close
        self.window.add_closed(candle(self.live, close))
        self.live += 1

    @rule(close=st.floats(2, 1e6))
    def lose_a_candle(self, close: float) -> None:
        self.truth[self.live] = self.untold[self.live] = close
        self.live += 1

    @precondition(lambda self: self.untold)
    @rule(data=st.data())
    def a_lost_candle_comes_late(self, data: st.DataObject) -> None:
        at = data.draw(st.sampled_from(sorted(self.untold)))
        self.window.add_closed(candle(at, self.untold.pop(at)))

    @rule(back=st.integers(1, 2 * CAPACITY))
    def a_candle_comes_twice(self, back: int) -> None:
        at = self.live - back
        if at in self.truth and at not in self.untold:
            revision = self.window.revision
            verdict = self.window.add_closed(candle(at, self.truth[at]))
            assert verdict in {CandleOutcome.DUPLICATE, CandleOutcome.STALE, CandleOutcome.GAP}
            assert self.window.revision == revision

    @rule(years=st.integers(1, 3))
    def a_candle_from_years_ago(self, years: int) -> None:
        verdict = self.window.add_closed(candle(-years * 525_600, 7.0))
        assert verdict is (
            CandleOutcome.GAP if self.window.next_open_ms is None else CandleOutcome.STALE
        )

    @rule(back=st.integers(1, 2 * CAPACITY), close=st.floats(2, 1e6))
    def revise(self, back: int, close: float) -> None:
        at = self.live - back
        if at in self.truth:
            self.truth[at] = close
            self.untold.pop(at, None)
            self.window.add_closed(candle(at, close))

    @rule(overlap=st.integers(1, 3))
    def backfill(self, overlap: int) -> None:
        following = self.window.next_open_ms
        end = self.live if following is None else (following - START_MS) // FRAME.ms
        first = end - (2 * CAPACITY if following is None else overlap)
        span = range(max(0, first), self.live)
        self.window.merge_history(candle(at, self.truth[at], "rest") for at in span)
        for at in span:
            self.untold.pop(at, None)
        assert self.window.is_complete

    @invariant()
    def holds_the_newest_consecutive_truth(self) -> None:
        following = self.window.next_open_ms
        if following is None:
            assert len(self.window) == 0
            return
        end = (following - START_MS) // FRAME.ms
        expected = [self.truth[at] for at in range(end - CAPACITY, end)]
        assert np.array_equal(self.window.ohlcv()[:, 3], expected)
        assert self.window.is_complete == (self.window.gap is None)


TestWindowAgainstSortedList = pytest.mark.filterwarnings("default")(
    WindowAgainstSortedList.TestCase
)
