"""A candle is final when the exchange flags it, or when the next one has opened."""

from __future__ import annotations

from typing import Literal

import pytest

from daemon.candles.closing import ClosingRule
from model.core.candle import Candle, Timeframe
from model.core.errors import BadCandle

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
def test_a_candle_from_the_future_closes_no_other(closed: Literal[False] | None) -> None:
    rule = ClosingRule(FRAME, 1_000)
    update(rule, -1, closed=closed)
    update(rule, 0, closed=closed)
    with pytest.raises(BadCandle, match="would open 1001 ms from now"):
        update(rule, 1, closed=closed, now_ms=T0 + FRAME.ms - 1_001)


def test_after_a_refused_update_earlier_values_do_not_become_final() -> None:
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


def test_after_a_refused_first_update_the_candle_before_still_becomes_final() -> None:
    rule = ClosingRule(FRAME, 1_000)
    update(rule, -1, closed=None)
    update(rule, 0, closed=None)
    with pytest.raises(BadCandle):
        update(rule, 1, closed=None, values=(98, 101, 99, 100, 4))
    final = update(rule, 2, closed=None)
    assert final is not None
    assert final.open_ms == T0


@pytest.mark.parametrize("volume", [None, float("nan")])
def test_an_exchange_without_volumes_is_accepted(volume: float | None) -> None:
    final = update(ClosingRule(FRAME, 1_000), 0, closed=True, values=(*VALUES[:4], volume))
    assert final is not None
    assert (final.ohlcv.volume, final.repaired) == (0.0, True)


def test_an_older_update_is_ignored() -> None:
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
