"""Test candle files with invalid, repeated, unsorted or missing rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from model.core.candle import Timeframe
from model.core.errors import CandlecastError
from model.files.candle_files import ordered_rows, rows_on_grid
from model.files.csv_reader import FileRules
from model.training.candle_sources import read_candles
from tests.support.candle_csv import (
    CANDLES,
    HEADER,
    MINUTE,
    Row,
    T,
    lines,
    plain,
    read_with_notes,
    written,
)

ODD_ROWS = {
    "high below close": (
        "{t},100,101,99,102,5",
        "corrected",
        "line 5, column high: the high 101 is below 102",
    ),
    "open above high": (
        "{t},102,101,99,100,5",
        "corrected",
        "column high: the high 101 is below 102",
    ),
    "low above open": (
        "{t},100,103,101,102,5",
        "corrected",
        "column low: the low 101 is above 100",
    ),
    "no volume": ("{t},100,103,99,102,", "corrected", "column volume: the value is missing"),
    "far outside": ("{t},100,101,99,300,5", "left out", "column high: the high 101 is below 300"),
    "empty": ("{t},,,,,", "left out", "line 5, column open: the value is missing"),
    "null": ("{t},null,null,null,null,null", "left out", "column open: the value is missing"),
    "text": ("{t},100,dear,99,102,5", "left out", "column high: 'dear' is not a number"),
    "negative volume": ("{t},100,103,99,102,-5", "left out", "column volume: -5 is no volume"),
    "price 0": ("{t},0,103,0,102,5", "left out", "column open: 0 is no price"),
    "infinite": ("{t},100,inf,99,102,5", "left out", "column high: inf is no price"),
    "huge": ("{t},1e308,1e308,1e308,1e308,5", "left out", "column open: 1e+308 is no price"),
    "a comma too many": ("{t},1,234.5,103,99,102,5", "left out", "line 5: 7 fields, not 6"),
    "cut": ("{t},100,10", "left out", "line 5: 3 fields, not 6"),
    "no time": (",100,103,99,102,5", "left out", "column timestamp: the value is missing"),
    "odd time": ("soon,100,103,99,102,5", "left out", "column timestamp: 'soon' is not a time"),
    "time 0": ("0,100,103,99,102,5", "left out", "column timestamp: 0 is not within 2009 to 2099"),
    "off the grid": (
        "{off},100,103,99,102,5",
        "left out",
        "2026-01-01 00:03:07.000 lies 7 s after a boundary of 1m",
    ),
    "the header again": (HEADER, "left out", "column timestamp: 'timestamp' is not a time"),
}


@pytest.mark.parametrize("name", ODD_ROWS)
def test_an_odd_row_is_left_out_alone(tmp_path: Path, name: str) -> None:
    odd, what, why = ODD_ROWS[name]
    text = lines(plain, HEADER).splitlines()
    text[4] = odd.format(t=T + 3 * 60_000, off=T + 3 * 60_000 + 7_000)
    path = written(tmp_path, "\n".join(text))
    table, notes = read_with_notes(path)
    assert f"1 of 40 rows are {what}, the first: line 5" in notes[0]
    assert why in notes[0]
    others = [row for row in table if row[0] != T + 3 * 60_000]
    assert np.array_equal(others, [row for row in CANDLES if row[0] != T + 3 * 60_000])
    assert len(table) == (40 if what == "corrected" else 39)
    filled = "0 of them (0 %)" if what == "corrected" else "1 of them (2.5 %)"
    assert filled in notes[-1]
    with pytest.raises(CandlecastError, match="line 5") as refusal:
        read_candles(path, MINUTE)
    assert why in str(refusal.value)


@pytest.mark.parametrize("name", [name for name in ODD_ROWS if name != "off the grid"])
def test_many_odd_rows_refuse_the_file(tmp_path: Path, name: str) -> None:
    odd, _, why = ODD_ROWS[name]
    text = lines(plain, HEADER).splitlines()
    for at in (3, 10, 20):
        text[1 + at] = odd.format(t=T + at * 60_000)
    path = written(tmp_path, "\n".join(text))
    with pytest.raises(CandlecastError, match="3 of 40 rows cannot be used as they are") as refusal:
        read_with_notes(path)
    assert why in str(refusal.value)
    read_with_notes(path, share=0.1)


@pytest.mark.parametrize(("share", "fits"), [(0.05, False), (0.5, True), (1.0, True)])
def test_the_filled_share_is_reported_and_limited(
    tmp_path: Path, share: float, *, fits: bool
) -> None:
    holed = [row for row in CANDLES if row[0] % 240_000 or row[0] == T]
    path = written(tmp_path, "\n".join([HEADER, *map(plain, holed)]))
    line = r"40 periods .*, 9 of them \(22 %\) filled"
    if not fits:
        with pytest.raises(CandlecastError, match=line):
            read_with_notes(path, share)
        return
    table, notes = read_with_notes(path, share)
    assert len(table) == 31
    assert "9 of them (22 %)" in notes[-1]
    frame = read_candles(path, MINUTE, FileRules(share))
    assert len(frame) == 40
    assert (frame["volume"] == 0).sum() == 9


def test_of_two_rows_for_one_opening_time_the_last_counts(tmp_path: Path) -> None:
    text = lines(plain, HEADER) + f"{T + 60_000},1,2,1,1,7\n"
    table, _ = read_with_notes(written(tmp_path, text))
    assert table[1] == [T + 60_000, 1, 2, 1, 1, 7]
    assert len(table) == 40


@pytest.mark.parametrize("first_day", [1, 4, 5])
def test_weeks_begin_when_the_file_has_them(tmp_path: Path, first_day: int) -> None:
    week = Timeframe.parse("1w")
    opens = [(at * 7 + first_day) * 86_400_000 + 1_700_006_400_000 for at in range(40)]
    text = [HEADER, *(f"{at},1,1,1,1,1" for at in opens)]
    assert rows_on_grid(written(tmp_path, "\n".join(text)), week).open_ms.tolist() == opens


def test_without_a_timeframe_rows_are_only_put_in_order(tmp_path: Path) -> None:
    odd: Sequence[Row] = [CANDLES[9], CANDLES[2], CANDLES[5], CANDLES[2]]
    rows = ordered_rows(written(tmp_path, "\n".join([HEADER, *map(plain, odd)])), FileRules(0.5))
    assert rows.open_ms.tolist() == [CANDLES[at][0] for at in (2, 5, 9)]
