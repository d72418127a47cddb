"""Requests follow each other as the exchange allows, by the monotonic clock alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daemon.exchange.request_pacer import RequestPacer


def test_the_first_goes_at_once_and_each_pays_for_the_next() -> None:
    pace = RequestPacer(0.5)
    assert pace.wait_s(10.0, None) == 0.0
    assert pace.wait_s(10.0, 4.0) == 0.5
    assert pace.wait_s(10.0, None) == 2.5
    assert pace.wait_s(20.0, None) == 0.0


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 10)), min_size=2, max_size=30))
def test_no_request_starts_before_the_one_before_it_is_paid_for(
    requests: list[tuple[float, float]],
) -> None:
    pace, now_s, free_s = RequestPacer(0.1), 0.0, 0.0
    for later_s, cost in requests:
        now_s += later_s
        start_s = now_s + pace.wait_s(now_s, cost)
        assert start_s >= free_s - 1e-9
        assert start_s - now_s <= max(0.0, free_s - now_s) + 1e-9
        free_s = start_s + 0.1 * cost
