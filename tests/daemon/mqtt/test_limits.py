"""What is asked of a broker after it has refused or hung up."""

from __future__ import annotations

from daemon.mqtt.limits import EVERYTHING, NO_QOS_1, NO_RETAIN, Limits, Negotiation


def test_what_the_broker_names_is_not_asked_for_again() -> None:
    negotiation = Negotiation()
    assert negotiation.limits == EVERYTHING
    assert negotiation.refused(NO_RETAIN)
    assert negotiation.limits == NO_RETAIN
    assert negotiation.refused(NO_QOS_1)
    assert negotiation.limits == Limits(0, retains=False)
    assert not negotiation.refused(NO_RETAIN)
    assert not negotiation.is_guessing
    negotiation.start_over()
    assert negotiation.limits == EVERYTHING


def test_a_broker_that_hangs_up_is_asked_for_less_step_by_step() -> None:
    negotiation = Negotiation(patience=2)
    asked = []
    for _ in range(7):
        asked.append(negotiation.limits)
        negotiation.hung_up()
    least = Limits(0, retains=False)
    assert asked == [EVERYTHING, EVERYTHING, NO_RETAIN, NO_RETAIN, least, least, EVERYTHING]


def test_a_broker_that_took_everything_is_asked_for_less_only_after_many_hang_ups() -> None:
    negotiation = Negotiation(patience=2)
    negotiation.took()
    negotiation.start_over()
    asked = []
    for _ in range(21):
        asked.append(negotiation.limits)
        negotiation.hung_up()
    assert asked == [EVERYTHING] * 20 + [NO_RETAIN]


def test_a_guess_that_was_taken_does_not_stand_for_everything() -> None:
    negotiation = Negotiation(patience=1)
    negotiation.hung_up()
    assert negotiation.limits == NO_RETAIN
    negotiation.took()
    negotiation.start_over()
    negotiation.hung_up()
    assert negotiation.limits == NO_RETAIN


def test_steps_that_are_left_are_told() -> None:
    negotiation = Negotiation(patience=1)
    assert [negotiation.hung_up() for _ in range(3)] == [True, True, False]


def test_a_guess_is_told_from_what_the_broker_named() -> None:
    negotiation = Negotiation(patience=1)
    negotiation.refused(NO_RETAIN)
    guessing = []
    for _ in range(3):
        guessing.append(negotiation.is_guessing)
        negotiation.hung_up()
    # The first step down asks for no less than what was named.
    assert guessing == [False, False, True]
    negotiation.hung_up()
    negotiation.hung_up()
    assert negotiation.limits == Limits(0, retains=False)


def test_what_is_lacking_is_said_with_what_it_means() -> None:
    assert EVERYTHING.in_words() == ""
    assert "no retained messages" in NO_RETAIN.in_words()
    assert "QoS 0 only" in NO_QOS_1.in_words()
    both = Limits(0, retains=False).in_words()
    assert "no retained messages" in both
    assert "QoS 0 only" in both
