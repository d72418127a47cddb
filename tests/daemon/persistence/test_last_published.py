"""Check that the last published targets survive a kill and a damaged file."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.persistence.last_published import LastPublished


def test_targets_survive_without_being_saved(tmp_path: Path) -> None:
    first = LastPublished(["a", "b", "c"])
    first.open(tmp_path / "last-published")
    first.record([1], [60_000])
    first.record([2], [120_000])
    # The first was neither closed nor flushed; symbols are added, removed and reordered.
    second = LastPublished(["c", "d", "b"])
    second.open(tmp_path / "last-published")
    assert second.was_published([0], [120_000]) == [True]
    assert second.was_published([0], [60_000]) == [False]
    assert second.was_published([1], [60_000]) == [False]
    assert second.was_published([2], [60_000]) == [True]


@pytest.mark.parametrize("content", [b"", b"half a record", bytes(16), bytes(range(40))])
def test_a_damaged_file_is_ignored_and_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last-published"
    path.write_bytes(content)
    published = LastPublished(["a"])
    published.open(path)
    assert published.was_published([0], [60_000]) == [False]
    published.record([0], [60_000])
    again = LastPublished(["a"])
    again.open(path)
    assert again.was_published([0], [60_000]) == [True]


def test_targets_stay_in_memory_without_a_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    published = LastPublished(["a"])
    published.open(tmp_path / "no such folder" / "last-published")
    published.record([0], [60_000])
    assert published.was_published([0], [60_000]) == [True]
    assert "cannot be kept (No such file or directory)" in caplog.text


def test_targets_are_kept_when_symbols_change(tmp_path: Path) -> None:
    path = tmp_path / "last-published"
    published = LastPublished(["a", "b"])
    published.open(path)
    published.record([0, 1], [1_000, 2_000])
    published.set_names(["b", "c"])
    assert published.was_published([0, 1], [2_000, 0]) == [True, True]
    published.record([1], [3_000])
    published.set_names(["c", "b", "a"])
    assert published.was_published([0, 1, 2], [3_000, 2_000, 0]) == [True] * 3
    after = LastPublished(["b", "c"])
    after.open(path)
    assert after.was_published([0, 1], [2_000, 3_000]) == [True, True]
    # More than the file has room for: they stay in memory.
    many = [f"s{number}" for number in range(100)]
    after.set_names(["c", *many])
    assert after.was_published([0], [3_000]) == [True]
    after.record([100], [4_000])
    assert after.was_published([100], [4_000]) == [True]


def test_newer_targets_of_the_history_are_used(tmp_path: Path) -> None:
    last = LastPublished(["a", "b"])
    last.open(tmp_path / "last-published")
    last.record([0], [120_000])
    last.merge({"a": 60_000, "b": 60_000, "gone": 60_000})
    assert last.was_published([0, 1], [120_000, 60_000]) == [True, True]
    assert last.was_published([0, 1], [60_000, 120_000]) == [False, False]


def test_the_newest_forecast_is_never_in_the_future(tmp_path: Path) -> None:
    now_ms = 10 * 3_600_000
    first = LastPublished(["a", "b"])
    first.open(tmp_path / "last-published")
    assert first.newest_ms(3_600_000, now_ms) == now_ms
    first.record([0, 1], [3 * 3_600_000, 5 * 3_600_000])
    again = LastPublished(["a", "b"])
    again.open(tmp_path / "last-published")
    assert again.newest_ms(3_600_000, now_ms) == 4 * 3_600_000
    # A target in the future is ignored.
    again.record([0], [1 << 60])
    assert again.newest_ms(3_600_000, now_ms) == now_ms
