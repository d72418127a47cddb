"""Fewer features are used after a broker has refused or closed connections."""

from __future__ import annotations

from daemon.mqtt.limits import NO_LIMITS, NO_QOS_1, NO_RETAIN, Limits, Negotiation


def test_features_that_the_broker_refuses_are_not_requested_again() -> None:
    negotiation = Negotiation()
    assert negotiation.limits == NO_LIMITS
    assert negotiation.on_unsupported(NO_RETAIN)
    assert negotiation.limits == NO_RETAIN
    assert negotiation.on_unsupported(NO_QOS_1)
    assert negotiation.limits == Limits(0, retains=False)
    assert not negotiation.on_unsupported(NO_RETAIN)
    assert not negotiation.is_guessing
    negotiation.reset()
    assert negotiation.limits == NO_LIMITS


def test_after_closed_connections_features_are_dropped_step_by_step() -> None:
    negotiation = Negotiation(max_closes=2)
    asked = []
    for _ in range(7):
        asked.append(negotiation.limits)
        negotiation.on_closed_early()
    least = Limits(0, retains=False)
    assert asked == [NO_LIMITS, NO_LIMITS, NO_RETAIN, NO_RETAIN, least, least, NO_LIMITS]


def test_after_full_success_features_are_dropped_only_after_many_closed_connections() -> None:
    negotiation = Negotiation(max_closes=2)
    negotiation.on_acknowledged()
    negotiation.reset()
    asked = []
    for _ in range(21):
        asked.append(negotiation.limits)
        negotiation.on_closed_early()
    assert asked == [NO_LIMITS] * 20 + [NO_RETAIN]


def test_an_accepted_guess_does_not_count_as_full_support() -> None:
    negotiation = Negotiation(max_closes=1)
    negotiation.on_closed_early()
    assert negotiation.limits == NO_RETAIN
    negotiation.on_acknowledged()
    negotiation.reset()
    negotiation.on_closed_early()
    assert negotiation.limits == NO_RETAIN


def test_it_reports_whether_steps_are_left() -> None:
    negotiation = Negotiation(max_closes=1)
    assert [negotiation.on_closed_early() for _ in range(3)] == [True, True, False]


def test_a_guessed_limit_differs_from_a_stated_one() -> None:
    negotiation = Negotiation(max_closes=1)
    negotiation.on_unsupported(NO_RETAIN)
    guessing = []
    for _ in range(3):
        guessing.append(negotiation.is_guessing)
        negotiation.on_closed_early()
    # The first step keeps what the broker stated.
    assert guessing == [False, False, True]
    negotiation.on_closed_early()
    negotiation.on_closed_early()
    assert negotiation.limits == Limits(0, retains=False)


def test_missing_features_are_described_with_their_consequences() -> None:
    assert NO_LIMITS.describe() == ""
    assert "no retained messages" in NO_RETAIN.describe()
    assert "QoS 0 only" in NO_QOS_1.describe()
    both = Limits(0, retains=False).describe()
    assert "no retained messages" in both
    assert "QoS 0 only" in both
