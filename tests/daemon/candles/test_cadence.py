"""A symbol that is forecast less often than its candles close is found; one pause is ignored."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from daemon.candles.cadence import Cadence

STEP_MS = 1_000
T0 = 1_700_000_000_000


def cadence(*slots: int) -> Cadence:
    made = Cadence(STEP_MS)
    for at in slots:
        # A forecast of the candle that closes at `at` has the close of the next one as its target.
        made.on_published([("A/B", T0 + (at + 1) * STEP_MS)])
    return made


@pytest.mark.parametrize(
    ("slots", "closed", "slow"),
    [
        (range(10), 9, False),
        (range(10), 10, False),  # the newest is on its way
        (range(10), 11, False),
        (range(10), 12, True),  # three in a row were not forecast
        (range(0, 30, 5), 25, True),  # a fifth is forecast
        ((*range(10), 14), 14, False),  # one pause, e.g. while the stream was away
        ((*range(10), 500), 500, False),
        ((*range(10), 14, 19), 19, True),
        ((*range(10), 14, 19, 20, 21), 21, True),
        ((*range(10), 14, 19, 20, 21, 22), 22, False),
        (range(0, 20, 2), 18, True),  # every other one
        ((0, 1, 10, 11, 20, 21, 30), 30, True),
        ((0, 1, 3, 4, 6), 6, False),  # of three, two
        ((0,), 0, False),
        ((0, 5), 5, False),
        ((0, 5, 10), 10, True),
    ],
)
def test_the_share_of_candles_that_are_forecast(
    slots: Sequence[int], closed: int, *, slow: bool
) -> None:
    assert cadence(*slots).is_slow("A/B", T0 + closed * STEP_MS) is slow


def test_a_symbol_that_is_never_forecast_is_slow() -> None:
    made = Cadence(STEP_MS)
    assert not made.is_slow("A/B", T0)
    for at in range(3):
        made.expect("A/B", T0 + (at + 1) * STEP_MS)
    assert not made.is_slow("A/B", T0 + STEP_MS)
    assert made.is_slow("A/B", T0 + 2 * STEP_MS)
    made.keep_only(["C/D"])
    assert not made.is_slow("A/B", T0 + 2 * STEP_MS)


def test_symbols_are_kept_apart() -> None:
    made = cadence(*range(0, 30, 5))
    for at in range(30):
        made.on_published([("C/D", T0 + (at + 1) * STEP_MS)])
    made.keep_only(["A/B", "C/D"])
    assert made.is_slow("A/B", T0 + 25 * STEP_MS)
    assert not made.is_slow("C/D", T0 + 29 * STEP_MS)
