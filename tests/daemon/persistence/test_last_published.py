"""What was published last is known to the next process, whatever the file looks like."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.persistence.last_published import LastPublished


def test_marks_are_there_again_without_being_saved(tmp_path: Path) -> None:
    first = LastPublished(["a", "b", "c"])
    first.open(tmp_path / "marks")
    first.note([1], [60_000])
    first.note([2], [120_000])
    # Neither closed nor flushed; symbols come, go and change places.
    second = LastPublished(["c", "d", "b"])
    second.open(tmp_path / "marks")
    assert second.was_published([0], [120_000]) == [True]
    assert second.was_published([0], [60_000]) == [False]
    assert second.was_published([1], [60_000]) == [False]
    assert second.was_published([2], [60_000]) == [True]


@pytest.mark.parametrize("content", [b"", b"half a record", bytes(16), bytes(range(40))])
def test_a_damaged_file_says_nothing_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "marks"
    path.write_bytes(content)
    marks = LastPublished(["a"])
    marks.open(path)
    assert marks.was_published([0], [60_000]) == [False]
    marks.note([0], [60_000])
    again = LastPublished(["a"])
    again.open(path)
    assert again.was_published([0], [60_000]) == [True]


def test_without_a_file_forecasting_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    marks = LastPublished(["a"])
    marks.open(tmp_path / "no such folder" / "marks")
    marks.note([0], [60_000])
    assert marks.was_published([0], [60_000]) == [True]
    assert "cannot be kept (No such file or directory)" in caplog.text


def test_symbols_that_are_added_and_removed_keep_their_marks(tmp_path: Path) -> None:
    path = tmp_path / "last-published"
    marks = LastPublished(["a", "b"])
    marks.open(path)
    marks.note([0, 1], [1_000, 2_000])
    marks.rename(["b", "c"])
    assert marks.was_published([0, 1], [2_000, 0]) == [True, True]
    marks.note([1], [3_000])
    marks.rename(["c", "b", "a"])
    assert marks.was_published([0, 1, 2], [3_000, 2_000, 0]) == [True] * 3
    after = LastPublished(["b", "c"])
    after.open(path)
    assert after.was_published([0, 1], [2_000, 3_000]) == [True, True]
    # More than the file has room for: in memory, and nothing is forgotten.
    many = [f"s{number}" for number in range(100)]
    after.rename(["c", *many])
    assert after.was_published([0], [3_000]) == [True]
    after.note([100], [4_000])
    assert after.was_published([100], [4_000]) == [True]


def test_what_the_history_knows_is_learnt_where_it_is_newer(tmp_path: Path) -> None:
    last = LastPublished(["a", "b"])
    last.open(tmp_path / "last-published")
    last.note([0], [120_000])
    last.learn({"a": 60_000, "b": 60_000, "gone": 60_000})
    assert last.was_published([0, 1], [120_000, 60_000]) == [True, True]
    assert last.was_published([0, 1], [60_000, 120_000]) == [False, False]


def test_a_start_is_as_fresh_as_the_last_forecast_or_as_itself(tmp_path: Path) -> None:
    now_ms = 10 * 3_600_000
    first = LastPublished(["a", "b"])
    first.open(tmp_path / "marks")
    assert first.newest_ms(3_600_000, now_ms) == now_ms
    first.note([0, 1], [3 * 3_600_000, 5 * 3_600_000])
    again = LastPublished(["a", "b"])
    again.open(tmp_path / "marks")
    assert again.newest_ms(3_600_000, now_ms) == 4 * 3_600_000
    # Whatever stands there, nothing has been forecast in the future.
    again.note([0], [1 << 60])
    assert again.newest_ms(3_600_000, now_ms) == now_ms
