"""What was published last is known to the next process, whatever the file looks like."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.marks import Marks


def test_marks_are_there_again_without_being_saved(tmp_path: Path) -> None:
    first = Marks(["a", "b", "c"])
    first.open(tmp_path / "marks")
    first.note(1, 60_000)
    first.note(2, 120_000)
    # Neither closed nor flushed; symbols come, go and change places.
    second = Marks(["c", "d", "b"])
    second.open(tmp_path / "marks")
    assert second.left(0, 120_000)
    assert not second.left(0, 60_000)
    assert not second.left(1, 60_000)
    assert second.left(2, 60_000)


@pytest.mark.parametrize("content", [b"", b"half a record", bytes(16), bytes(range(40))])
def test_a_damaged_file_says_nothing_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "marks"
    path.write_bytes(content)
    marks = Marks(["a"])
    marks.open(path)
    assert not marks.left(0, 60_000)
    marks.note(0, 60_000)
    again = Marks(["a"])
    again.open(path)
    assert again.left(0, 60_000)


def test_without_a_file_forecasting_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    marks = Marks(["a"])
    marks.open(tmp_path / "no such folder" / "marks")
    marks.note(0, 60_000)
    assert marks.left(0, 60_000)
    assert "cannot be kept (No such file or directory)" in caplog.text
