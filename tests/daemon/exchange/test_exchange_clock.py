"""The estimate of the exchange's time stays within its error and ignores the wall clock."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.exchange.exchange_clock import ExchangeClock, Reading
from tests.support.manual_clock import ManualClock

T0 = 1_700_000_000_000


class Exchange:
    """Its clock starts ``ahead_ms`` ahead of the machine's and runs independently."""

    def __init__(self, machine: ManualClock, ahead_ms: int) -> None:
        self.machine = machine
        self._ahead_ms = machine.wall_ms() + ahead_ms - machine.monotonic() * 1e3

    def now_ms(self) -> float:
        return self.machine.monotonic() * 1e3 + self._ahead_ms

    def answer(self, there_s: float, back_s: float, step_ms: int = 1) -> Reading:
        sent_s = self.machine.monotonic()
        self.machine.move(there_s)
        exchange_ms = int(self.now_ms() // step_ms) * step_ms
        self.machine.move(back_s)
        return Reading(sent_s, self.machine.monotonic(), exchange_ms)


def machine_clock() -> ManualClock:
    return ManualClock(T0, 50.0)


def measured(ahead_ms: int = 0) -> tuple[ManualClock, Exchange, ExchangeClock]:
    machine = machine_clock()
    exchange, clock = Exchange(machine, ahead_ms), ExchangeClock(machine)
    for _ in range(3):
        clock.add_reading(exchange.answer(0.02, 0.02))
    return machine, exchange, clock


def test_before_it_is_measured_it_shows_the_machines_time_and_closes_nothing() -> None:
    clock = ExchangeClock(machine_clock())
    assert clock.wall_ms() == T0
    assert not clock.measured
    assert not clock.trusted
    assert clock.earliest_ms() is None


@pytest.mark.parametrize("ahead_ms", [0, 500, -500, 3_600_000, -3_600_000])
def test_clock_skew_is_measured_exported_and_corrected(ahead_ms: int) -> None:
    machine, exchange, clock = measured(ahead_ms)
    machine.move(60)
    assert clock.trusted
    assert clock.wall_ms() == pytest.approx(exchange.now_ms(), abs=25)
    assert clock.offset_s == pytest.approx(ahead_ms / 1e3, abs=0.025)
    earliest_ms = clock.earliest_ms()
    assert earliest_ms is not None
    assert exchange.now_ms() - 60 <= earliest_ms <= exchange.now_ms()


@pytest.mark.parametrize("jump_ms", [3_600_000, -3_600_000])
def test_a_jump_of_the_wall_clock_changes_nothing_but_the_offset(jump_ms: int) -> None:
    machine, exchange, clock = measured()
    jumped = [clock.wall_clock_jumped]
    machine.now_ms += jump_ms
    jumped.append(clock.wall_clock_jumped)
    assert clock.trusted
    assert clock.wall_ms() == pytest.approx(exchange.now_ms(), abs=25)
    assert clock.offset_s == pytest.approx(-jump_ms / 1e3, abs=0.025)
    clock.add_reading(exchange.answer(0.02, 0.02))
    jumped.append(clock.wall_clock_jumped)
    assert jumped == [False, True, False]


def test_one_answer_is_not_trusted() -> None:
    machine = machine_clock()
    clock = ExchangeClock(machine)
    exchange = Exchange(machine, 0)
    clock.add_reading(exchange.answer(0.01, 0.01))
    assert not clock.trusted
    clock.add_reading(exchange.answer(0.01, 0.01))
    assert clock.trusted


def test_a_slow_answer_changes_nothing_and_the_quickest_is_the_most_exact() -> None:
    _, exchange, clock = measured()
    before_ms = clock.error_ms
    clock.add_reading(exchange.answer(5.0, 0.0))
    assert clock.error_ms <= before_ms + 1
    assert clock.wall_ms() == pytest.approx(exchange.now_ms(), abs=25)
    clock.add_reading(exchange.answer(0.001, 0.001))
    assert clock.error_ms < 2


def test_slow_answers_alone_are_not_good_enough() -> None:
    machine = machine_clock()
    exchange, clock = Exchange(machine, 0), ExchangeClock(machine)
    for _ in range(5):
        clock.add_reading(exchange.answer(1.1, 1.1))
    assert clock.measured
    assert clock.earliest_ms() is None


def test_after_a_suspend_two_agreeing_answers_are_needed() -> None:
    machine, exchange, clock = measured()
    exchange._ahead_ms += 600_000  # noqa: SLF001 - the monotonic clock stood still for 10 minutes
    machine.now_ms += 600_000
    assert clock.wall_clock_jumped
    clock.add_reading(exchange.answer(0.02, 0.02))
    assert clock.earliest_ms() is None
    clock.add_reading(exchange.answer(0.02, 0.02))
    assert clock.trusted
    assert clock.wall_ms() == pytest.approx(exchange.now_ms(), abs=25)


def test_an_old_measurement_becomes_less_exact() -> None:
    machine, _, clock = measured()
    machine.move(3 * 3_600)
    assert clock.earliest_ms() is None


def test_times_in_whole_seconds_are_supported() -> None:
    machine = machine_clock()
    exchange, clock = Exchange(machine, 700), ExchangeClock(machine)
    draw = random.Random(1)
    for _ in range(12):
        clock.add_reading(exchange.answer(0.02, 0.02, step_ms=1_000))
        machine.move(draw.uniform(0, 2))
    assert clock.trusted
    assert abs(clock.wall_ms() - exchange.now_ms()) <= clock.error_ms <= 520


@given(
    st.integers(-10_000_000, 10_000_000),
    st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2), st.floats(0, 300)), max_size=30),
    st.sampled_from([1, 1_000]),
)
def test_the_exchanges_time_always_lies_within_the_stated_error(
    ahead_ms: int, answers: list[tuple[float, float, float]], step_ms: int
) -> None:
    machine = machine_clock()
    exchange, clock = Exchange(machine, ahead_ms), ExchangeClock(machine)
    for there_s, back_s, pause_s in answers:
        clock.add_reading(exchange.answer(there_s, back_s, step_ms))
        machine.move(pause_s)
        if clock.trusted:
            assert abs(clock.wall_ms() - exchange.now_ms()) <= clock.error_ms + 1.5
