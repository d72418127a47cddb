"""Delays between attempts grow, stay bounded, vary, and start over after a success."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from daemon.runtime.backoff import Backoff

DRAWS = st.floats(0.0, 1.0, exclude_max=True)
BOUNDS = st.tuples(st.floats(0.01, 10.0), st.floats(1.0, 100.0)).map(
    lambda pair: (pair[0], pair[0] * pair[1])
)


def test_delays_double_up_to_the_maximum() -> None:
    backoff = Backoff(0.5, 15.0, lambda: 0.0)
    assert [backoff.next_delay_s() for _ in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]


def test_jitter_halves_a_delay_at_most() -> None:
    drawn = iter((0.0, 0.5, 0.999))
    backoff = Backoff(1.0, 1.0, lambda: next(drawn))
    assert [backoff.next_delay_s() for _ in range(3)] == [1.0, 0.75, 0.5005]


@given(BOUNDS, st.lists(DRAWS, min_size=1, max_size=30))
def test_no_delay_exceeds_the_maximum_or_half_the_minimum(
    bounds: tuple[float, float], draws: list[float]
) -> None:
    drawn = iter(draws)
    backoff = Backoff(*bounds, lambda: next(drawn))
    delays = [backoff.next_delay_s() for _ in draws]
    assert all(bounds[0] / 2 <= delay <= bounds[1] for delay in delays)
    # Even the longest of a delay and the shortest of the next one do not swap.
    assert all(before <= after or after >= bounds[1] / 2 for before, after in pairwise(delays))


def test_delays_differ_by_default() -> None:
    delays = {Backoff(1.0, 1.0).next_delay_s() for _ in range(10)}
    assert len(delays) > 1


@given(st.integers(0, 20))
def test_a_success_starts_over(attempts: int) -> None:
    backoff = Backoff(0.25, 2.5, lambda: 0.0)
    for _ in range(attempts):
        backoff.next_delay_s()
    backoff.reset()
    assert backoff.next_delay_s() == 0.25


def test_only_a_steady_connection_is_a_success() -> None:
    backoff = Backoff(0.25, 2.5, lambda: 0.0)
    backoff.next_delay_s()
    assert not backoff.reset_if_steady(2.5)
    assert backoff.next_delay_s() == 0.5
    assert backoff.reset_if_steady(2.6)
    assert backoff.next_delay_s() == 0.25


def test_another_maximum_holds_for_one_delay() -> None:
    backoff = Backoff(0.5, 30.0, lambda: 0.0)
    delays = [backoff.next_delay_s(900.0) for _ in range(13)]
    assert delays[-1] == delays[-2] == 900.0
    assert backoff.next_delay_s() == 30.0
