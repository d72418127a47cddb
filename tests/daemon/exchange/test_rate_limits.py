"""For how long an exchange wants silence, from whatever it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.exchange.rate_limits import BanTimer, ban_s

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
def test_whatever_the_exchange_says(headers: dict[str, str], body: str, seconds: float) -> None:
    assert ban_s(headers, body, NOW_MS) == seconds


@given(st.dictionaries(st.text(), st.text()), st.text())
def test_nonsense_is_a_ban_of_some_length(headers: dict[str, str], body: str) -> None:
    assert 1.0 <= ban_s(headers, body, NOW_MS) <= 345_600.0


def test_a_shorter_ban_within_a_longer_one_changes_nothing() -> None:
    bans = BanTimer()
    assert bans.left_s(0.0) == 0.0
    bans.begin(30.0, 100.0)
    bans.begin(5.0, 110.0)
    assert bans.left_s(110.0) == 20.0
    assert bans.left_s(130.0) == 0.0
