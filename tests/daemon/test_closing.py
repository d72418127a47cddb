"""When a candle is final: the exchange says so, or the next one has begun."""

from __future__ import annotations

import pytest

from daemon.closing import ClosingRule, final_by_rest
from model.candle import Candle, Timeframe
from model.errors import BadCandle

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
    return rule.update("A/B", open_ms, values, closed=closed, now_ms=now, now_s=1.0)


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
    update(rule, 0, closed=None)
    update(rule, 0, closed=None, values=(100, 120, 99, 110, 4))
    final = update(rule, 1, closed=None)
    assert final is not None
    assert (final.final_by, final.open_ms, final.ohlcv) == ("successor", T0, (100, 120, 99, 110, 4))
    assert final.received_ms == T0 + 2 * FRAME.ms + 5


def test_an_older_update_changes_nothing() -> None:
    rule = ClosingRule(FRAME, 1_000)
    update(rule, 1, closed=None)
    assert update(rule, 0, closed=None) is None
    forming = rule.forming("A/B")
    assert forming is not None
    assert forming.open_ms == T0 + FRAME.ms


def test_after_a_reconnect_the_last_update_may_be_missing_so_it_is_forgotten() -> None:
    rule = ClosingRule(FRAME, 1_000)
    update(rule, 0, closed=None)
    rule.forget(["A/B"])
    assert update(rule, 1, closed=None) is None


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
        ClosingRule(FRAME, 1_000).update(
            "A/B", open_ms, VALUES, closed=True, now_ms=T0 + FRAME.ms, now_s=1.0
        )


ROWS: list[list[object]] = [[T0 + at * FRAME.ms, 100.0, 101.0, 99.0, 100.5, 3.0] for at in range(3)]


def test_a_candle_that_closed_while_the_answer_was_under_way_is_not_final() -> None:
    asked_ms = T0 + 3 * FRAME.ms - 1
    final, impossible = final_by_rest("A/B", ROWS, FRAME, asked_ms, (asked_ms + 500, 1.0))
    assert [candle.open_ms for candle in final] == [T0, T0 + FRAME.ms]
    assert {candle.final_by for candle in final} == {"rest"}
    assert not impossible


def test_history_may_lag_so_a_candle_is_final_only_some_time_after_its_close() -> None:
    close_ms = T0 + 3 * FRAME.ms
    for asked_ms, count in ((close_ms + 249, 2), (close_ms + 250, 3)):
        assert len(final_by_rest("A/B", ROWS, FRAME, asked_ms, (asked_ms, 1.0))[0]) == count


def test_impossible_rows_of_history_are_left_out_and_named() -> None:
    rows: list[list[object]] = [
        [],
        [None, 1, 1, 1, 1, 1],
        [T0, 1, 1, 1, None, 1],
        [T0, 1, 1],
        *ROWS,
    ]
    asked_ms = T0 + 9 * FRAME.ms
    final, impossible = final_by_rest("A/B", rows, FRAME, asked_ms, (asked_ms, 1.0))
    assert len(final) == 3
    assert len(impossible) == 4
