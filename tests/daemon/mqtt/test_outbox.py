"""The outbox keeps the newest messages, stays bounded and hands out no expired one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daemon.mqtt.outbox import Outbox, Outgoing


def message(key: str, valid_until_ms: int | None = 60_000, *, payload: bytes = b"x") -> Outgoing:
    return Outgoing(key, key, payload, qos=1, retain=True, valid_until_ms=valid_until_ms)


def test_messages_leave_in_the_order_they_came() -> None:
    box = Outbox(8)
    for key in "cab":
        box.offer(message(key))
    valid, expired = box.take_batch(0, 2)
    assert [m.key for m in valid] == ["c", "a"]
    assert expired == []
    assert len(box) == 1


def test_a_newer_forecast_of_a_symbol_takes_the_place_of_the_older() -> None:
    box = Outbox(8)
    old, new = message("a", payload=b"old"), message("a", payload=b"new")
    assert box.offer(old) is None
    assert box.offer(new) is old
    assert box.take_batch(0, 9) == ([new], [])


def test_a_full_outbox_drops_its_oldest_message() -> None:
    box = Outbox(2)
    first = message("a")
    box.offer(first)
    box.offer(message("b"))
    assert box.offer(message("c")) is first


def test_a_qos_0_message_replaces_no_other_one() -> None:
    box = Outbox(2)
    promised, provisional = message("a"), message("b")._replace(qos=0)
    box.offer(promised)
    box.offer(provisional)
    late = message("c")._replace(qos=0)
    assert box.offer(late) is late
    newer = provisional._replace(payload=b"newer")
    assert box.offer(newer) is provisional
    assert box.take_batch(0, 9)[0] == [promised, newer]


def test_a_message_that_expired_while_waiting_is_never_handed_out() -> None:
    box = Outbox(8)
    stale, fresh = message("a", 1_000), message("b", 2_000)
    box.offer(stale)
    box.offer(fresh)
    assert box.take_batch(1_000, 9) == ([fresh], [stale])


def test_remaining_validity_is_rounded_up() -> None:
    m = message("a", 60_000)
    assert [m.expiry_s(now) for now in (0, 58_999, 59_000, 59_999, 60_000)] == [60, 2, 1, 1, 0]
    assert message("a", None).expiry_s(10**15) is None


def test_after_a_reconnection_the_last_valid_messages_go_out_again_byte_for_byte() -> None:
    box = Outbox(8)
    for m in (message("a", 60_000), message("b", 1_000)):
        box.offer(m._replace(is_forecast=True))
    for m in box.take_batch(0, 9)[0]:
        box.on_answered(m)
    assert box.requeue(5_000) == []
    # Messages that arrived are counted already, so repetitions are not.
    assert box.take_batch(5_000, 9) == ([message("a", 60_000)], [])


def test_unacknowledged_messages_are_sent_again_or_reported_as_dropped() -> None:
    box = Outbox(8)
    unretained = message("a")._replace(retain=False)
    sent_once = message("b")._replace(qos=0)
    displaced, expiring = message("c", payload=b"old"), message("d", 1_000)
    for m in (unretained, sent_once, displaced, expiring):
        box.offer(m)
    box.take_batch(0, 9)
    newer = message("c", payload=b"new")
    box.offer(newer)
    assert box.requeue(5_000) == [displaced]
    assert box.take_batch(5_000, 9) == ([unretained, newer], [expiring])


def test_an_acknowledgement_of_an_older_forecast_does_not_cover_the_newer() -> None:
    box = Outbox(8)
    old, new = message("a", 60_000, payload=b"old"), message("a", 120_000, payload=b"new")
    box.offer(old)
    box.take_batch(0, 9)
    box.offer(new)
    box.take_batch(60_000, 9)
    box.on_answered(old)
    assert not box.is_drained
    assert box.requeue(61_000) == []
    assert box.take_batch(61_000, 9) == ([new], [])


def test_of_two_unacknowledged_forecasts_of_a_symbol_the_older_is_reported_as_dropped() -> None:
    box = Outbox(8)
    old, new = message("a", 60_000, payload=b"old"), message("a", 120_000, payload=b"new")
    for m in (old, new):
        box.offer(m)
        box.take_batch(0, 9)
    assert box.requeue(61_000) == [old]
    assert box.take_batch(61_000, 9) == ([new], [])


def test_repetitions_stay_within_the_outbox_limit() -> None:
    box = Outbox(2)
    first, second = message("a"), message("b")
    box.offer(first)
    box.offer(second)
    box.take_batch(0, 9)
    for key in "cd":
        box.offer(message(key))
    assert box.requeue(0) == [first, second]
    assert len(box) == 2


def test_a_repetition_does_not_displace_a_newer_message() -> None:
    box = Outbox(8)
    old = message("a", payload=b"old")
    box.offer(old)
    box.take_batch(0, 9)
    box.on_answered(old)
    new = message("a", payload=b"new")
    box.offer(new)
    box.requeue(0)
    assert box.take_batch(0, 9) == ([new], [])


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 9)), max_size=50))
def test_every_message_is_handed_out_or_reported_as_dropped(offers: list[tuple[str, int]]) -> None:
    box = Outbox(4)
    seen: list[bytes] = []
    for number, (key, valid_s) in enumerate(offers):
        dropped = box.offer(message(key, valid_s * 1000, payload=str(number).encode()))
        if dropped is not None:
            seen.append(dropped.payload)
        assert len(box) <= 4
    valid, expired = box.take_batch(4_500, 100)
    seen += [m.payload for m in valid + expired]
    assert sorted(map(int, seen)) == list(range(len(offers)))
    assert all(m.valid_until_ms is not None and m.valid_until_ms > 4_500 for m in valid)
