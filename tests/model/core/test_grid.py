"""Test that the grid of a timeframe is found from candles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.core.candle import Candle, Ohlcv, Timeframe, check_open_ms
from model.core.errors import CandlecastError, OffGrid
from model.core.grid import find_grid, no_grid_text
from model.files.candle_csv import HEADER
from model.retraining.challenger import frame_of
from model.training.candle_sources import read_candles

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
WEEK = Timeframe.parse("1w")
THURSDAY_MS = 2_900 * WEEK.ms
"""2025-07-31: weeks that are counted from the Unix epoch begin on Thursdays."""


@pytest.mark.parametrize(
    ("text", "first_ms"),
    [
        ("1w", THURSDAY_MS),  # Hyperliquid, Kraken
        ("1w", THURSDAY_MS + 4 * DAY_MS),  # Monday: Binance
        ("1w", THURSDAY_MS + 3 * DAY_MS),  # Sunday
        ("1w", THURSDAY_MS + 3 * DAY_MS + 16 * HOUR_MS),  # Monday in Hong Kong
        ("2w", THURSDAY_MS + 4 * DAY_MS),
        ("1d", THURSDAY_MS),
        ("1d", THURSDAY_MS + 16 * HOUR_MS),  # midnight in Hong Kong
        ("1d", THURSDAY_MS + 15 * HOUR_MS),  # midnight in Seoul
        ("3d", THURSDAY_MS + 2 * DAY_MS),
        ("5d", THURSDAY_MS + 3 * DAY_MS),
        ("12h", THURSDAY_MS + 4 * HOUR_MS),
        ("8h", THURSDAY_MS + HOUR_MS),
        ("1h", THURSDAY_MS + HOUR_MS // 2),  # India
        ("1m", THURSDAY_MS),
        ("1s", THURSDAY_MS + 250),
    ],
)
def test_the_grid_is_that_of_the_candles(text: str, first_ms: int) -> None:
    usual = Timeframe.parse(text)
    opens = [first_ms + at * usual.ms for at in range(10)]
    found = find_grid(usual, opens)
    assert found is not None
    assert (found.text, found.ms) == (usual.text, usual.ms)
    assert [found.floor(at + usual.ms - 1) for at in opens] == opens
    assert check_open_ms(opens[0], found, opens[-1]) == opens[0]
    # Numbers of candles are those between two closes, whatever the grid.
    seqs = [(at + usual.ms) // usual.ms for at in opens]
    assert np.diff(seqs).tolist() == [1] * 9


@given(
    st.integers(0, WEEK.ms - 1), st.integers(1, 20), st.sets(st.integers(0, WEEK.ms), max_size=9)
)
def test_some_odd_candles_do_not_move_it(phase_ms: int, count: int, odd: set[int]) -> None:
    first_ms = THURSDAY_MS + phase_ms
    opens = [first_ms + at * WEEK.ms for at in range(count)]
    found = find_grid(WEEK, [*odd, *opens])
    if count > len(odd):
        assert found is not None
        assert found.floor(first_ms) == first_ms


@pytest.mark.parametrize(
    "opens",
    [
        [],
        [THURSDAY_MS, THURSDAY_MS + DAY_MS],
        [THURSDAY_MS + at * 15 * DAY_MS for at in range(10)],
        [THURSDAY_MS + at * DAY_MS for at in range(14)],
    ],
)
def test_candles_of_another_distance_keep_to_no_grid(opens: list[int]) -> None:
    assert find_grid(WEEK, opens) is None


def test_candles_of_another_distance_are_reported() -> None:
    opens = [THURSDAY_MS + at * 15 * DAY_MS for at in range(10)]
    assert no_grid_text(Timeframe.parse("2w"), opens) == (
        "the 2w candles do not open every 2w: Thu 2025-11-13 00:00:00 UTC, "
        "Fri 2025-11-28 00:00:00 UTC, Sat 2025-12-13 00:00:00 UTC"
    )


def test_a_candle_off_the_grid_is_reported_with_a_boundary() -> None:
    text = (
        r"1753920000000 \(Thu 2025-07-31 00:00:00 UTC\) is off the 1w grid, "
        r"which has a boundary at Mon 2025-07-28 00:00:00 UTC"
    )
    with pytest.raises(OffGrid, match=text):
        check_open_ms(THURSDAY_MS, WEEK, THURSDAY_MS)


def written(folder: Path, opens: list[int]) -> Path:
    path = folder / "BTC-USDC_1w_20250731_to_20251231.csv"
    rows = [f"{at},1.0,2.0,0.5,1.5,3.0,x" for at in opens]
    path.write_text("\n".join([HEADER, *rows]), encoding="utf-8")
    return path


def test_a_file_of_weeks_that_begin_on_thursday_is_read(tmp_path: Path) -> None:
    opens = [THURSDAY_MS + at * WEEK.ms for at in (*range(20), 21)]
    frame = read_candles(written(tmp_path, opens), WEEK)
    assert frame["timestamp"].tolist() == [THURSDAY_MS + at * WEEK.ms for at in range(22)]


@pytest.mark.parametrize(("text", "early_ms"), [("1m", 1), ("1h", 1), ("1h", 1_000), ("1d", 1)])
def test_a_file_of_closing_times_is_not_taken_for_another_grid(
    tmp_path: Path, text: str, early_ms: int
) -> None:
    frame = Timeframe.parse(text)
    opens = [THURSDAY_MS + at * frame.ms - early_ms for at in range(20)]
    assert find_grid(frame, opens) is not None
    assert find_grid(frame, opens, 60_000) is None
    with pytest.raises(
        CandlecastError, match=f"a boundary of {text}; it looks like a closing time"
    ):
        read_candles(written(tmp_path, opens), frame)


def test_a_file_with_one_week_of_another_grid_is_refused_by_name(tmp_path: Path) -> None:
    opens = [THURSDAY_MS + at * WEEK.ms for at in range(4)]
    opens[2] += 4 * DAY_MS
    with pytest.raises(CandlecastError, match=r"line 4, .* lies 345600 s after a boundary of 1w"):
        read_candles(written(tmp_path, opens), WEEK)


def test_candles_of_a_history_off_the_grid_of_the_others_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    opens = [THURSDAY_MS + 4 * DAY_MS - WEEK.ms, *(THURSDAY_MS + at * WEEK.ms for at in range(4))]
    candles = [
        Candle("A/B", at, at + WEEK.ms, Ohlcv(1.0, 2.0, 0.5, 1.5, 3.0), at, 0.0, "rest")
        for at in opens
    ]
    frame = frame_of(candles, WEEK)
    assert frame["timestamp"].tolist() == opens[1:]
    assert "1 of 5 candles are left out" in caplog.text
    assert "Mon 2025-07-28 00:00:00 UTC) is off the 1w grid" in caplog.text
    caplog.clear()
    pd.testing.assert_frame_equal(frame_of(candles[1:], WEEK), frame)
    assert not caplog.records
