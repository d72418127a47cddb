"""The pause that an exchange demands, and the pace of requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.exchange.rate_limits import BanTimer, RequestPacer, ban_duration_s

NOW_MS = 1_700_000_000_000


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"Retry-After": "7"}, "", 7.0),
        ({"retry-after": "7"}, f"IP banned until {NOW_MS + 90_000}.", 7.0),
        ({}, f'{{"code":-1003,"msg":"IP banned until {NOW_MS + 90_500}. Use WS"}}', 90.5),
        ({}, f"IP banned until {NOW_MS - 5_000}.", 1.0),
        ({}, f"IP banned until {NOW_MS * 9}.", 60.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, "slow down", 60.0),
        ({"Retry-After": "-3"}, "", 60.0),
        ({"Retry-After": "0"}, "", 1.0),
        ({"Retry-After": "999999999"}, "", 345_600.0),
        ({}, "", 60.0),
    ],
)
def test_the_length_of_a_ban_is_read_from_headers_or_body(
    headers: dict[str, str], body: str, seconds: float
) -> None:
    assert ban_duration_s(headers, body, NOW_MS) == seconds


@given(st.dictionaries(st.text(), st.text()), st.text())
def test_any_ban_response_gives_a_bounded_length(headers: dict[str, str], body: str) -> None:
    assert 1.0 <= ban_duration_s(headers, body, NOW_MS) <= 345_600.0


def test_a_shorter_ban_within_a_longer_one_changes_nothing() -> None:
    bans = BanTimer()
    assert bans.remaining_s(0.0) == 0.0
    bans.start_ban(30.0, 100.0)
    bans.start_ban(5.0, 110.0)
    assert bans.remaining_s(110.0) == 20.0
    assert bans.remaining_s(130.0) == 0.0


def test_the_first_request_is_sent_at_once_and_later_ones_after_a_pause() -> None:
    pace = RequestPacer(0.5)
    assert pace.reserve(10.0, None) == 0.0
    assert pace.reserve(10.0, 4.0) == 0.5
    assert pace.reserve(10.0, None) == 2.5
    assert pace.reserve(20.0, None) == 0.0


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 10)), min_size=2, max_size=30))
def test_no_request_starts_before_the_pause_of_the_one_before_it_is_over(
    requests: list[tuple[float, float]],
) -> None:
    pace, now_s, free_s = RequestPacer(0.1), 0.0, 0.0
    for later_s, cost in requests:
        now_s += later_s
        start_s = now_s + pace.reserve(now_s, cost)
        assert start_s >= free_s - 1e-9
        assert start_s - now_s <= max(0.0, free_s - now_s) + 1e-9
        free_s = start_s + 0.1 * cost
