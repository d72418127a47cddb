from __future__ import annotations

import csv
import gzip
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.sandbox.recording import DATA, RECORDING_15M, Playback, build_playback, load_recording
from model.core.candle import Timeframe, check_ohlcv
from model.core.errors import CandlecastError
from model.files.csv_reader import FileRules

SECOND = Timeframe.parse("1s")
ORIGIN_MS = 1_700_000_000_000
RECORDING = load_recording(RECORDING_15M)
HEADER = "ts,open,high,low,close,volume"
PLAYBACK = build_playback(4, SECOND, ORIGIN_MS, recording=RECORDING)


def raw_rows(path: Path) -> list[list[float]]:
    with gzip.open(path, "rt") as text:
        return [[float(x) for x in row[1:]] for row in list(csv.reader(text))[1:]]


@pytest.mark.parametrize("path", sorted(DATA.glob("*.csv.gz")), ids=lambda path: path.name)
def test_a_recording_is_read_whole_and_exactly(path: Path) -> None:
    recording = load_recording(path)
    assert recording.ohlcv.tolist() == raw_rows(path)
    assert recording.decimals == 2


def test_each_symbol_plays_its_own_slice_in_order_and_starts_over() -> None:
    rows = raw_rows(RECORDING_15M)
    for symbol, start in PLAYBACK.starts.items():
        for k in (0, 1, 2_000, PLAYBACK.slice_rows - 1):
            assert list(PLAYBACK.candle(symbol, ORIGIN_MS + k * 1_000)) == rows[start + k]
        again = PLAYBACK.candle(symbol, ORIGIN_MS + PLAYBACK.slice_rows * 1_000)
        assert again == PLAYBACK.candle(symbol, ORIGIN_MS)


def test_the_demo_set_of_four_shares_no_row() -> None:
    starts = sorted(PLAYBACK.starts.values())
    assert all(b - a >= PLAYBACK.slice_rows for a, b in pairwise(starts))
    assert starts[-1] + PLAYBACK.slice_rows <= len(RECORDING.ohlcv)
    assert PLAYBACK.symbols == ("S00/USDT", "S01/USDT", "S02/USDT", "S03/USDT")


@pytest.mark.parametrize("count", [1, 20, 2_000])
def test_no_two_symbols_start_at_the_same_row(count: int) -> None:
    playback = build_playback(count, SECOND, ORIGIN_MS, recording=RECORDING)
    assert len(set(playback.starts.values())) == len(playback.symbols) == count
    assert max(playback.starts.values()) + playback.slice_rows <= len(RECORDING.ohlcv)


def test_more_symbols_than_rows_are_refused() -> None:
    with pytest.raises(CandlecastError, match="14496 recorded candles are too few for 20000"):
        build_playback(20_000, SECOND, ORIGIN_MS, recording=RECORDING)


@pytest.mark.parametrize("open_ms", [ORIGIN_MS + 1, ORIGIN_MS - 1_000])
def test_off_the_grid_or_before_the_listing_there_is_no_candle(open_ms: int) -> None:
    with pytest.raises(ValueError, match=f"no candle opens at {open_ms}"):
        PLAYBACK.candle("S00/USDT", open_ms)


@given(
    k=st.integers(0, 5_000),
    fractions=st.lists(st.floats(0, 1), min_size=1, max_size=8),
    symbol=st.sampled_from(PLAYBACK.symbols),
)
def test_a_forming_candle_grows_into_the_whole_one(
    k: int, fractions: list[float], symbol: str
) -> None:
    open_ms = ORIGIN_MS + k * 1_000
    whole = PLAYBACK.candle(symbol, open_ms)
    first = PLAYBACK.forming(symbol, open_ms, 0.0)
    assert first == (whole.open, whole.open, whole.open, whole.open, 0.0)
    before = first
    for fraction in sorted(fractions):
        now = check_ohlcv(PLAYBACK.forming(symbol, open_ms, fraction))
        assert whole.low <= now.low <= before.low
        assert before.high <= now.high <= whole.high
        assert before.volume <= now.volume <= whole.volume
        before = now
    assert PLAYBACK.forming(symbol, open_ms, 1.0) == whole


@given(start=st.integers(-5_000, 5_000), length=st.integers(-10, 4_000))
def test_history_is_the_candles_in_a_half_open_span(start: int, length: int) -> None:
    start_ms, end_ms = ORIGIN_MS + start * 777, ORIGIN_MS + start * 777 + length * 1_000
    opens, ohlcv = PLAYBACK.history("S01/USDT", start_ms, end_ms)
    expected = [t for t in range(ORIGIN_MS, max(end_ms, ORIGIN_MS), 1_000) if start_ms <= t]
    assert opens.tolist() == expected
    picked = [0, len(expected) // 2, -1] if expected else []
    assert all(tuple(ohlcv[i]) == PLAYBACK.candle("S01/USDT", expected[i]) for i in picked)


def test_weeks_start_on_mondays() -> None:
    week = Timeframe.parse("1w")
    playback = build_playback(1, week, week.floor(ORIGIN_MS), recording=RECORDING)
    assert isinstance(playback, Playback)
    assert tuple(RECORDING.ohlcv[1]) == playback.candle("S00/USDT", week.floor(ORIGIN_MS) + week.ms)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["ts,open,high,low,close", "1,1,1,1"], "lacks the columns volume"),
        ([HEADER, "1,1,1,one,1"], "line 2, column close: 'one' is not a number"),
        ([HEADER, "1,1,1,1,1", "1,1,1,nan,1"], "line 3, column close: the value is missing"),
        ([HEADER, "1,0.5,1,1,1"], "line 2, column high"),
        ([HEADER, "1,1,1,1,-1"], "line 2, column volume: -1 is no volume"),
        ([HEADER], "holds no candle"),
        ([""], "it is empty"),
    ],
)
def test_a_file_that_holds_no_candles_is_refused_in_one_line(
    tmp_path: Path, lines: list[str], says: str
) -> None:
    path = tmp_path / "candles.csv"
    timed = [f"{ORIGIN_MS + at},{line}" for at, line in enumerate(lines[1:])]
    path.write_text("\n".join([lines[0], *timed]))
    with pytest.raises(CandlecastError, match=says) as refusal:
        load_recording(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        (b"no gzip", "not a CSV of candles"),
        (gzip.compress(b"ts,open", mtime=0)[:-3], "cannot be unpacked"),
    ],
    ids=["missing", "no gzip", "cut"],
)
def test_a_missing_or_broken_archive_is_refused(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "candles.csv.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CandlecastError, match=says):
        load_recording(path)


def test_a_plain_csv_of_other_column_order_and_decimals(tmp_path: Path) -> None:
    path = tmp_path / "candles.csv"
    path.write_text("volume,timestamp,Open,High,Low,Close\n7,1700000000000,0.5,0.5125,0.4,0.45\n")
    recording = load_recording(path)
    np.testing.assert_array_equal(recording.ohlcv, [[0.5, 0.5125, 0.4, 0.45, 7.0]])
    assert recording.decimals == 4


def test_a_recording_of_another_program_is_played_oldest_first(tmp_path: Path) -> None:
    path = tmp_path / "candles.csv"
    rows = [f"{ORIGIN_MS // 1000 + 60 * at};1,5;2,5;1,25;1,5;{at},5" for at in reversed(range(9))]
    path.write_text("https://example.com\n" + "\n".join(["Unix;Open;High;Low;Close;Volume", *rows]))
    notes: list[str] = []
    recording = load_recording(path, FileRules(report=notes.append))
    assert recording.ohlcv[:, 4].tolist() == [at + 0.5 for at in range(9)]
    assert recording.decimals == 2
    assert len(notes) == 1
    assert "is in seconds, not milliseconds" in notes[0]


def test_the_exchange_imports_nothing_of_the_training_side(repository: Path) -> None:
    heavy = {"pandas", "sklearn", "talib", "keras", "tensorflow", "onnx", "matplotlib"}
    code = "import sys, daemon.sandbox.exchange, daemon.sandbox.broker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=-1, cwd=repository)
    loaded = set(done.stdout.decode().split())
    assert "daemon.sandbox.recording" in loaded
    assert not heavy & loaded
