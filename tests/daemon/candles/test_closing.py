"""When a candle is final: the exchange says so, or the next one has begun."""

from __future__ import annotations

from typing import Literal

import pytest

from daemon.candles.closing import ClosingRule
from daemon.candles.history_page import fill_untraded, parse_history, untraded_until_ms
from model.core.candle import Candle, Timeframe
from model.core.errors import BadCandle, OffGrid

FRAME = Timeframe.parse("1m")
T0 = 1_700_000_040_000 // FRAME.ms * FRAME.ms
VALUES = ("100", "101", "99", "100.5", "3")


def update(
    rule: ClosingRule,
    at: int,
    *,
    closed: bool | None,
    now_ms: int | None = None,
    values: tuple[object, ...] = VALUES,
) -> Candle | None:
    open_ms = T0 + at * FRAME.ms
    now = open_ms + FRAME.ms + 5 if now_ms is None else now_ms
    return rule.on_update("A/B", open_ms, values, closed=closed, now_ms=now, now_s=1.0)


def test_the_exchanges_flag_makes_a_candle_final() -> None:
    rule = ClosingRule(FRAME, 1_000)
    assert update(rule, 0, closed=False) is None
    final = update(rule, 0, closed=True)
    assert final is not None
    assert (final.final_by, final.close_ms, final.ohlcv.close) == (
        "exchange_flag",
        T0 + FRAME.ms,
        100.5,
    )


def test_a_flagged_exchange_never_closes_by_successor() -> None:
    rule = ClosingRule(FRAME, 1_000)
    update(rule, 0, closed=False)
    assert update(rule, 1, closed=False) is None


def test_without_a_flag_the_successor_makes_it_final_with_its_last_values() -> None:
    rule = ClosingRule(FRAME, 1_000)
    update(rule, -1, closed=None)
    update(rule, 0, closed=None)
    update(rule, 0, closed=None, values=(100, 120, 99, 110, 4))
    final = update(rule, 1, closed=None)
    assert final is not None
    assert (final.final_by, final.open_ms, final.ohlcv) == ("successor", T0, (100, 120, 99, 110, 4))
    assert final.received_ms == T0 + 2 * FRAME.ms + 5


def test_a_first_snapshot_may_be_a_partial_candle_so_without_a_flag_it_only_primes() -> None:
    rule = ClosingRule(FRAME, 1_000)
    update(rule, 0, closed=None)
    update(rule, 0, closed=None)
    assert update(rule, 1, closed=None) is None
    final = update(rule, 2, closed=None)
    assert final is not None
    assert final.open_ms == T0 + FRAME.ms


@pytest.mark.parametrize("closed", [None, False])
def test_a_candle_that_has_not_begun_closes_none(closed: Literal[False] | None) -> None:
    rule = ClosingRule(FRAME, 1_000)
    update(rule, -1, closed=closed)
    update(rule, 0, closed=closed)
    with pytest.raises(BadCandle, match="said to begin 1001 ms from now"):
        update(rule, 1, closed=closed, now_ms=T0 + FRAME.ms - 1_001)


def test_a_refused_update_keeps_the_values_before_it_from_becoming_final() -> None:
    rule = ClosingRule(FRAME, 1_000)
    update(rule, -1, closed=None)
    update(rule, 0, closed=None)
    with pytest.raises(BadCandle):
        update(rule, 0, closed=None, values=(100, 101, 99, 102, 4))
    assert update(rule, 1, closed=None) is None
    # A later update of the same candle makes up for it.
    with pytest.raises(BadCandle):
        update(rule, 1, closed=None, values=(100, 101, 99, 102, 4))
    update(rule, 1, closed=None)
    final = update(rule, 2, closed=None)
    assert final is not None
    assert final.open_ms == T0 + FRAME.ms


def test_a_refused_beginning_of_the_next_candle_leaves_the_one_before_to_become_final() -> None:
    rule = ClosingRule(FRAME, 1_000)
    update(rule, -1, closed=None)
    update(rule, 0, closed=None)
    with pytest.raises(BadCandle):
        update(rule, 1, closed=None, values=(98, 101, 99, 100, 4))
    final = update(rule, 2, closed=None)
    assert final is not None
    assert final.open_ms == T0


@pytest.mark.parametrize("volume", [None, float("nan")])
def test_an_exchange_without_volumes_is_heard(volume: float | None) -> None:
    final = update(ClosingRule(FRAME, 1_000), 0, closed=True, values=(*VALUES[:4], volume))
    assert final is not None
    assert (final.ohlcv.volume, final.repaired) == (0.0, True)


def test_an_older_update_changes_nothing() -> None:
    rule = ClosingRule(FRAME, 1_000)
    update(rule, 1, closed=None)
    assert update(rule, 0, closed=None) is None
    forming = rule.forming("A/B")
    assert forming is not None
    assert forming.open_ms == T0 + FRAME.ms


def test_a_candle_cannot_have_closed_in_the_future() -> None:
    rule = ClosingRule(FRAME, 1_000)
    with pytest.raises(BadCandle, match="close 1001 ms from now"):
        update(rule, 0, closed=True, now_ms=T0 + FRAME.ms - 1_001)
    assert update(rule, 0, closed=True, now_ms=T0 + FRAME.ms - 1_000) is not None


@pytest.mark.parametrize(
    "values",
    [
        ("100", "101", "99", "nan", "3"),
        ("100", "101", "99", "100", "-1"),
        ("100", "99", "101", "100", "1"),
        ("0", "101", "0", "100", "1"),
        ("100", "inf", "99", "100", "1"),
        ("100", "101", "99", "1e400", "1"),
        (None, "101", "99", "100", "1"),
        ({}, [], "99", "100", "1"),
        ("100", "101", "99"),
    ],
)
def test_impossible_values_are_refused(values: tuple[object, ...]) -> None:
    with pytest.raises(BadCandle):
        update(ClosingRule(FRAME, 1_000), 0, closed=True, values=values)


@pytest.mark.parametrize("open_ms", [T0 + 1, T0 + 10**10, 10**9, -T0, "1", None, 1.5, True, 10**99])
def test_impossible_times_are_refused(open_ms: object) -> None:
    with pytest.raises(BadCandle):
        ClosingRule(FRAME, 1_000).on_update(
            "A/B", open_ms, VALUES, closed=True, now_ms=T0 + FRAME.ms, now_s=1.0
        )


ROWS: list[list[object]] = [[T0 + at * FRAME.ms, 100.0, 101.0, 99.0, 100.5, 3.0] for at in range(3)]


NEVER = T0 + 99 * FRAME.ms
"""Late enough for any candle of the test to have arrived."""


def finals(rows: list[list[object]], earliest_ms: int | None) -> list[int]:
    answer = parse_history("A/B", rows, FRAME, earliest_ms, (NEVER, 1.0))
    assert {candle.final_by for candle in answer.final} <= {"rest"}
    return [(candle.open_ms - T0) // FRAME.ms for candle in answer.final]


def test_a_candle_that_closed_while_the_answer_was_under_way_is_not_final() -> None:
    assert finals(ROWS, T0 + 3 * FRAME.ms - 1) == [0, 1]


def test_history_may_lag_so_a_candle_is_final_only_some_time_after_its_close() -> None:
    close_ms = T0 + 3 * FRAME.ms
    assert finals(ROWS, close_ms + 2_499) == [0, 1]
    assert finals(ROWS, close_ms + 2_500) == [0, 1, 2]


def test_while_the_exchanges_time_is_unknown_only_a_later_candle_closes_one() -> None:
    assert finals(ROWS, None) == [0, 1]
    assert finals(ROWS[:1], None) == []
    assert finals([], None) == []


BAD: list[list[object]] = [[], [None, 1, 1, 1, 1, 1], [T0, 1, 1, 1, None, 1], [T0, 1, 1]]


def test_impossible_rows_of_history_are_named() -> None:
    answer = parse_history("A/B", [*BAD, *ROWS], FRAME, NEVER, (NEVER, 1.0))
    assert len(answer.final) == 3
    assert len(answer.impossible) == 4


def test_of_two_rows_for_one_candle_the_later_one_counts() -> None:
    again: list[object] = [ROWS[1][0], 200.0, 202.0, 198.0, 201.0, 6.0]
    final = parse_history("A/B", [*ROWS, again], FRAME, NEVER, (NEVER, 1.0)).final
    assert [candle.open_ms for candle in final] == [row[0] for row in ROWS]
    assert list(final[1].ohlcv) == again[1:]


@pytest.mark.parametrize("bad", BAD)
def test_the_period_of_an_impossible_row_is_named_lest_it_pass_for_a_quiet_one(
    bad: list[object],
) -> None:
    rows = [ROWS[0], bad, ROWS[2]]
    answer = parse_history("A/B", rows, FRAME, NEVER, (NEVER, 1.0))
    if bad[:1] == [T0]:
        # It stands for a period that is there: nothing is missing but what the history leaves out.
        assert answer.unusable == frozenset()
    else:
        assert answer.unusable == {T0 + FRAME.ms}
    assert [candle.open_ms for candle in answer.final] == [ROWS[0][0], ROWS[2][0]]


def test_a_row_off_the_grid_counts_and_costs_its_period_only_where_it_stands_for_a_candle() -> None:
    odd: list[object] = [T0 + FRAME.ms + 1, 100.0, 101.0, 99.0, 100.5, 3.0]
    for at in range(4):
        rows = [*ROWS[:at], odd, *ROWS[at:]]
        answer = parse_history("A/B", rows, FRAME, NEVER, (NEVER, 1.0))
        assert [candle.open_ms for candle in answer.final] == [row[0] for row in ROWS]
        assert [type(error) for error in answer.impossible] == [OffGrid]
        assert not answer.unusable
    answer = parse_history("A/B", [ROWS[0], odd, ROWS[2]], FRAME, NEVER, (NEVER, 1.0))
    assert answer.unusable == {T0 + FRAME.ms}


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


def test_a_candle_that_is_there_but_not_final_is_never_taken_for_a_period_without_trades() -> None:
    close_ms = T0 + 2 * FRAME.ms
    answer = parse_history("A/B", ROWS, FRAME, close_ms + 2_499, (NEVER, 1.0))
    assert len(answer.final) == 1
    assert answer.pending_ms == close_ms - FRAME.ms
    until_ms = untraded_until_ms(answer.pending_ms, FRAME, close_ms + 2_499)
    assert fill_untraded(answer.final, until_ms, FRAME) == answer.final
