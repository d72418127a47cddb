"""Which candles of a history page are final, impossible, or missing since nothing was traded."""

from __future__ import annotations

import pytest

from daemon.candles.history_page import fill_untraded, parse_history, untraded_until_ms
from model.core.candle import Timeframe
from model.core.errors import OffGrid

FRAME = Timeframe.parse("1m")
T0 = 1_700_000_040_000 // FRAME.ms * FRAME.ms

ROWS: list[list[object]] = [[T0 + at * FRAME.ms, 100.0, 101.0, 99.0, 100.5, 3.0] for at in range(3)]


NEVER = T0 + 99 * FRAME.ms
"""Late enough for any candle of the test to have arrived."""


def finals(rows: list[list[object]], earliest_ms: int | None) -> list[int]:
    page = parse_history("A/B", rows, FRAME, earliest_ms, (NEVER, 1.0))
    assert {candle.final_by for candle in page.final} <= {"rest"}
    return [(candle.open_ms - T0) // FRAME.ms for candle in page.final]


def test_a_candle_that_closed_while_the_answer_was_under_way_is_not_final() -> None:
    assert finals(ROWS, T0 + 3 * FRAME.ms - 1) == [0, 1]


def test_a_candle_of_history_is_final_only_some_time_after_its_close() -> None:
    close_ms = T0 + 3 * FRAME.ms
    assert finals(ROWS, close_ms + 2_499) == [0, 1]
    assert finals(ROWS, close_ms + 2_500) == [0, 1, 2]


def test_while_the_exchanges_time_is_unknown_only_a_later_candle_closes_one() -> None:
    assert finals(ROWS, None) == [0, 1]
    assert finals(ROWS[:1], None) == []
    assert finals([], None) == []


BAD: list[list[object]] = [[], [None, 1, 1, 1, 1, 1], [T0, 1, 1, 1, None, 1], [T0, 1, 1]]


def test_impossible_rows_of_history_are_named() -> None:
    page = parse_history("A/B", [*BAD, *ROWS], FRAME, NEVER, (NEVER, 1.0))
    assert len(page.final) == 3
    assert len(page.impossible) == 4


def test_of_two_rows_for_one_candle_the_later_one_counts() -> None:
    again: list[object] = [ROWS[1][0], 200.0, 202.0, 198.0, 201.0, 6.0]
    final = parse_history("A/B", [*ROWS, again], FRAME, NEVER, (NEVER, 1.0)).final
    assert [candle.open_ms for candle in final] == [row[0] for row in ROWS]
    assert list(final[1].ohlcv) == again[1:]


@pytest.mark.parametrize("bad", BAD)
def test_the_period_of_an_impossible_row_does_not_count_as_untraded(
    bad: list[object],
) -> None:
    rows = [ROWS[0], bad, ROWS[2]]
    page = parse_history("A/B", rows, FRAME, NEVER, (NEVER, 1.0))
    if bad[:1] == [T0]:
        # It replaces an existing period: only what the history leaves out is missing.
        assert page.unusable == frozenset()
    else:
        assert page.unusable == {T0 + FRAME.ms}
    assert [candle.open_ms for candle in page.final] == [ROWS[0][0], ROWS[2][0]]


def test_a_row_off_the_grid_is_counted_and_blocks_only_the_period_it_replaces() -> None:
    odd: list[object] = [T0 + FRAME.ms + 1, 100.0, 101.0, 99.0, 100.5, 3.0]
    for at in range(4):
        rows = [*ROWS[:at], odd, *ROWS[at:]]
        page = parse_history("A/B", rows, FRAME, NEVER, (NEVER, 1.0))
        assert [candle.open_ms for candle in page.final] == [row[0] for row in ROWS]
        assert [type(error) for error in page.impossible] == [OffGrid]
        assert not page.unusable
    page = parse_history("A/B", [ROWS[0], odd, ROWS[2]], FRAME, NEVER, (NEVER, 1.0))
    assert page.unusable == {T0 + FRAME.ms}


def test_zero_trade_periods_can_be_missing_altogether_and_are_filled_when_they_are_over() -> None:
    """A later candle shows it at once, the exchange's clock only after some patience."""
    pending_ms, closed_ms = T0 + 2 * FRAME.ms, T0 + 4 * FRAME.ms
    assert untraded_until_ms(pending_ms, FRAME, None) == pending_ms
    assert untraded_until_ms(pending_ms, FRAME, NEVER) == pending_ms
    assert untraded_until_ms(None, FRAME, None) is None
    assert untraded_until_ms(None, FRAME, closed_ms + 7_999) == closed_ms - FRAME.ms
    assert untraded_until_ms(None, FRAME, closed_ms + 8_000) == closed_ms
    first, last = parse_history("A/B", [ROWS[0], ROWS[2]], FRAME, NEVER, (NEVER, 1.0)).final
    for until_ms, flat_at in ((None, [1]), (closed_ms, [1, 3])):
        whole = fill_untraded([first, last], until_ms, FRAME)
        assert [c.open_ms for c in whole] == [T0 + at * FRAME.ms for at in range(len(whole))]
        flat = [c for c in whole if c.filled]
        assert [(c.open_ms - T0) // FRAME.ms for c in flat] == flat_at
        assert {c.ohlcv for c in flat} == {(100.5, 100.5, 100.5, 100.5, 0.0)}
        assert all(c.close_ms - c.open_ms == FRAME.ms for c in whole)


def test_a_candle_that_is_not_final_is_never_filled_as_untraded() -> None:
    close_ms = T0 + 2 * FRAME.ms
    page = parse_history("A/B", ROWS, FRAME, close_ms + 2_499, (NEVER, 1.0))
    assert len(page.final) == 1
    assert page.pending_ms == close_ms - FRAME.ms
    until_ms = untraded_until_ms(page.pending_ms, FRAME, close_ms + 2_499)
    assert fill_untraded(page.final, until_ms, FRAME) == page.final
