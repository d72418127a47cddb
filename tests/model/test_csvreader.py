"""Candle files as exchanges, data shops, spreadsheets and programs write them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from model.candle import Timeframe
from model.candle_files import ordered_rows, rows_on_grid
from model.csvreader import FileRules, read_rows
from model.dataset import read_candles
from model.errors import CandlecastError

MINUTE = Timeframe.parse("1m")
T = 1_767_225_600_000
ROWS = 40
Row = tuple[int, float, float, float, float, float]


def candle(at: int) -> Row:
    opened, close = 42_000.5 + at % 7, 42_001.25 + at % 5
    return T + 60_000 * at, opened, 42_010.0 + at, 41_990.5 - at, close, 1_234.5 + at


CANDLES = [candle(at) for at in range(ROWS)]


def lines(write: Callable[[Row], str], *before: str) -> str:
    return "\n".join([*before, *map(write, CANDLES)]) + "\n"


def plain(row: Row) -> str:
    return ",".join(map(str, row))


def values(row: Row) -> str:
    return ",".join(map(str, row[1:]))


def when(row: Row, form: str) -> str:
    return datetime.fromtimestamp(row[0] / 1000, UTC).strftime(form)


def timed(form: str, sign: str = ",") -> Callable[[Row], str]:
    return lambda row: sign.join([when(row, form), *map(str, row[1:])])


def scaled(factor: float, more: str = "") -> Callable[[Row], str]:
    return lambda row: f"{row[0] * factor:.0f},{values(row)}{more}"


def german(value: float) -> str:
    return f"{value:,.2f}".replace(",", " ").replace(".", ",").replace(" ", ".")


def cdd(row: Row) -> str:
    opened, o, h, low, c, v = row
    head = f"{opened},{when(row, '%Y-%m-%d %H:%M:%S')},BTC/USDT"
    return f"{head},{o},{h},{low},{c},{v},{v * c:.4f},17"


def binance(row: Row) -> str:
    closes = row[0] * 1000 + 59_999_999
    return f"{row[0] * 1000},{values(row)},{closes},5.0,9,1.0,2.0,0"


HEADER = "timestamp,open,high,low,close,volume"
TEXTS = {
    "as fetched": lines(plain, HEADER),
    "ccxt, no header": lines(plain),
    "seconds": lines(scaled(1e-3), HEADER),
    "fractions of seconds": lines(lambda r: f"{r[0] / 1000:.1f},{values(r)}", HEADER),
    "microseconds": lines(scaled(1e3), HEADER),
    "nanoseconds": lines(scaled(1e6), HEADER),
    "milliseconds, then microseconds": lines(
        lambda r: (scaled(1) if r[0] < T + 900_000 else scaled(1e3))(r), HEADER
    ),
    "Binance's dumps of 2025": lines(binance),
    "Kraken's dumps": lines(scaled(1e-3, ",17")),
    "CryptoDataDownload": "\n".join(
        [
            "https://www.example.com/data",
            "unix,date,symbol,open,high,low,close,Volume BTC,Volume USDT,tradecount",
            *map(cdd, reversed(CANDLES)),
            "",
        ]
    ),
    "the quote's volume first": lines(
        lambda r: ",".join(map(str, (*r[:5], r[5] * r[4], r[5]))),
        "unix,open,high,low,close,Volume USD,Volume BTC",
    ),
    "Kaggle's bitstamp": lines(
        lambda r: f"{scaled(1e-3)(r)},{r[5] * r[4]},{r[4]}",
        "Timestamp,Open,High,Low,Close,Volume_(BTC),Volume_(Currency),Weighted_Price",
    ),
    "Yahoo": lines(
        lambda r: f"{timed('%Y-%m-%d %H:%M:%S+00:00')(r).rpartition(',')[0]},{r[4] / 2},{r[5]}",
        "Datetime,Open,High,Low,Close,Adj Close,Volume",
    ),
    "pandas with its index": lines(lambda r: f"{(r[0] - T) // 60_000},{plain(r)}", f",{HEADER}"),
    "pandas with times as its index": lines(
        timed("%Y-%m-%d %H:%M:%S"), ",open,high,low,close,volume"
    ),
    "ISO 8601": lines(timed("%Y-%m-%dT%H:%M:%SZ"), "time,open,high,low,close,volume"),
    "minutes without seconds": lines(timed("%Y-%m-%d %H:%M"), "date,open,high,low,close,volume"),
    "compact day": lines(timed("%Y%m%d %H%M%S"), "date,open,high,low,close,volume"),
    "UTC behind": lines(timed("%Y-%m-%d %H:%M:%S UTC"), "date,open,high,low,close,volume"),
    "German day": lines(timed("%d.%m.%Y %H:%M:%S.000"), "Gmt time,Open,High,Low,Close,Volume"),
    "date and time apart": lines(timed("%Y.%m.%d,%H:%M"), "Date,Time,Open,High,Low,Close,Volume"),
    "MetaTrader": lines(
        timed("%Y.%m.%d\t%H:%M:%S", "\t"),
        "\t".join(f"<{name}>" for name in ("DATE", "TIME", "OPEN", "HIGH", "LOW", "CLOSE", "VOL")),
    ),
    "semicolons": lines(plain, HEADER).replace(",", ";"),
    "tabs": lines(plain, HEADER).replace(",", "\t"),
    "bars": lines(plain, HEADER).replace(",", "|"),
    "decimal commas": lines(
        lambda r: ";".join([str(r[0]), *map(german, r[1:])]), HEADER.replace(",", ";")
    ),
    "sep= of Excel": "sep=;\n" + lines(plain, HEADER).replace(",", ";"),
    "thousands, quoted": lines(
        lambda r: ",".join([str(r[0]), *(f'"{value:,.2f}"' for value in r[1:])]), HEADER
    ),
    "dollars": lines(
        lambda r: ",".join([str(r[0]), *(f'"${value:,.2f}"' for value in r[1:])]), HEADER
    ),
    "quoted": "\n".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) for line in [HEADER, *map(plain, CANDLES)]
    ),
    "spaces after commas": lines(plain, HEADER).replace(",", ", "),
    "a comma at the end": lines(lambda r: f"{plain(r)},", HEADER),
    "a comma at the end, also of the header": lines(lambda r: f"{plain(r)},", f"{HEADER},"),
    "a comma at the end, no header": lines(lambda r: f"{plain(r)},"),
    "blank lines": lines(plain, "", HEADER).replace("\n", "\n\n"),
    "comment": lines(plain, "# exported, by hand", HEADER),
    "CRLF": lines(plain, HEADER).replace("\n", "\r\n"),
    "capitals": lines(plain, HEADER.upper()),
    "other order": lines(lambda r: ",".join(map(str, r[::-1])), ",".join(HEADER.split(",")[::-1])),
    "newest first": "\n".join([HEADER, *map(plain, reversed(CANDLES))]),
    "no line end": lines(plain, HEADER).rstrip(),
    "exponents": lines(lambda r: ",".join([f"{r[0]:.12e}", *map(str, r[1:])]), HEADER),
}


def said(path: Path, share: float = 0.05) -> tuple[list[list[float]], list[str]]:
    """The rows of a file, and what is said about it."""
    told: list[str] = []
    rows = rows_on_grid(path, MINUTE, FileRules(share, told.append), "BTC/USDT")
    assert rows.open_ms.tolist() == sorted(rows.open_ms.tolist())
    table = [[at, *row] for at, row in zip(rows.open_ms.tolist(), rows.ohlcv.tolist(), strict=True)]
    return table, told


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "candles.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_clear_is_read(tmp_path: Path, name: str) -> None:
    table, told = said(written(tmp_path, TEXTS[name]))
    assert np.allclose(table, CANDLES, rtol=1e-15, atol=0.0)
    assert told[-1].endswith(
        "BTC/USDT 1m: 40 periods from 2026-01-01 00:00 to 2026-01-01 00:39 UTC, "
        "0 of them (0 %) filled for lack of a candle"
    )


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("BTCUSDT-1m-2026-01.csv", content)
    return file.getvalue()


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress, bz2.compress, lzma.compress, zipped,
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.decode().encode("utf-16"),
        lambda text: b"# caf\xe9 exported\n" + text,
    ],
    ids=["gzip", "bzip2", "xz", "zip", "BOM", "UTF-16", "Latin-1"],
)  # fmt: skip
def test_packed_and_encoded_files_are_read(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    table, _ = said(written(tmp_path, pack(lines(plain, HEADER).encode())))
    assert np.array_equal(table, CANDLES)


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("seconds", "line 2, column timestamp: 1767225600 is in seconds, not milliseconds"),
        ("microseconds", "column timestamp: 1767225600000000 is in microseconds, not milli"),
        ("nanoseconds", "column timestamp: 1767225600000000000 is in nanoseconds, not"),
        ("ccxt, no header", "line 1: no header that names timestamp, open, high, low, close"),
        ("a comma at the end", "line 2: 7 fields under 6 columns, the last one empty: a comma"),
    ],
)
def test_what_was_understood_is_said_and_an_error_where_it_cannot_be(
    tmp_path: Path, name: str, note: str
) -> None:
    path = written(tmp_path, TEXTS[name])
    assert note in said(path)[1][0]
    with pytest.raises(CandlecastError, match=r"candles\.csv: ") as refusal:
        read_candles(path, MINUTE)
    assert note in str(refusal.value)


ODD_ROWS = {
    "high below close": (
        "{t},100,101,99,102,5",
        "put right",
        "line 5, column high: the high 101 is below 102",
    ),
    "open above high": (
        "{t},102,101,99,100,5",
        "put right",
        "column high: the high 101 is below 102",
    ),
    "low above open": (
        "{t},100,103,101,102,5",
        "put right",
        "column low: the low 101 is above 100",
    ),
    "no volume": ("{t},100,103,99,102,", "put right", "column volume: the value is missing"),
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
def test_an_odd_row_costs_that_row(tmp_path: Path, name: str) -> None:
    odd, what, why = ODD_ROWS[name]
    text = lines(plain, HEADER).splitlines()
    text[4] = odd.format(t=T + 3 * 60_000, off=T + 3 * 60_000 + 7_000)
    path = written(tmp_path, "\n".join(text))
    table, told = said(path)
    assert f"1 of 40 rows are {what}, the first: line 5" in told[0]
    assert why in told[0]
    others = [row for row in table if row[0] != T + 3 * 60_000]
    assert np.array_equal(others, [row for row in CANDLES if row[0] != T + 3 * 60_000])
    assert len(table) == (40 if what == "put right" else 39)
    filled = "0 of them (0 %)" if what == "put right" else "1 of them (2.5 %)"
    assert filled in told[-1]
    with pytest.raises(CandlecastError, match="line 5") as refusal:
        read_candles(path, MINUTE)
    assert why in str(refusal.value)


@pytest.mark.parametrize("name", [name for name in ODD_ROWS if name != "off the grid"])
def test_many_odd_rows_cost_the_file(tmp_path: Path, name: str) -> None:
    odd, _, why = ODD_ROWS[name]
    text = lines(plain, HEADER).splitlines()
    for at in (3, 10, 20):
        text[1 + at] = odd.format(t=T + at * 60_000)
    path = written(tmp_path, "\n".join(text))
    with pytest.raises(CandlecastError, match="3 of 40 rows cannot be used as they are") as refusal:
        said(path)
    assert why in str(refusal.value)
    said(path, share=0.1)


UNCLEAR = {
    "nothing": ("", "it is empty"),
    "header alone": (HEADER, "holds no candle"),
    "text": ("hello world\nand more", "line 1, 'hello world', is neither a header"),
    "web page": ("<html>\n<body>not found</body>", "line 1, '<html>', is neither a header"),
    "no close": (
        "timestamp,open,high,low,volume\n1,1,1,1,1",
        "line 1: the header lacks the columns close",
    ),
    "two closes": (
        lines(lambda r: f"{plain(r)},1", f"{HEADER},close"),
        "the column close more than once",
    ),
    "a column without a name": (
        lines(lambda r: f"7,{plain(r)}", HEADER),
        "line 2: 7 fields under 6 columns",
    ),
    "no header, other columns": (
        lines(lambda r: f"{plain(r)},1,2"),
        "line 1: without a header the 8 fields are not clear",
    ),
    "no header, low before high": (
        lines(lambda r: ",".join(map(str, (r[0], r[3], r[2], r[1], r[4], r[5])))),
        "without a header the 6 fields",
    ),
    "no header, a mean price": (
        lines(lambda r: f"{r[0]},{r[1]},{r[2]},{r[3]},{r[4]},{r[4]},{r[5]}"),
        "without a header the 7 fields",
    ),
    "the quote's volume alone": (
        lines(plain, HEADER.replace("volume", "Volume USDT")),
        "is not the volume in BTC",
    ),
    "volumes that do not fit": (
        lines(lambda r: f"{plain(r)},3", HEADER.replace("volume", "volume a,volume b")),
        "lacks the columns volume",
    ),
    "a comma that may mean either": (
        lines(lambda r: f"{r[0]};1,500;1,600;1,400;1,500;1,000", HEADER.replace(",", ";")),
        "line 2: '1,500': the comma may separate thousands",
    ),
    "a day that may mean either": (
        lines(timed("%d/%m/%Y %H:%M"), "date,open,high,low,close,volume"),
        "line 2, column date: '01/01/2026 00:00' may be day/month",
    ),
    "Excel's days": (
        lines(lambda r: f"{46_023 + r[0] % 60_000},{values(r)}", HEADER),
        "40 of 40 rows.*line 2, column timestamp: .*day number of Excel",
    ),
    "closing times": (
        lines(scaled(1)).replace("00000,", "59999,", 40),
        "line 1, column timestamp: .*looks like a closing time",
    ),
    "two symbols": (
        lines(lambda r: f"{plain(r)}\n{plain(r)}", HEADER),
        "40 of 80 rows have the opening time of another; check",
    ),
    "5m": (
        lines(lambda r: f"{T + 5 * (r[0] - T)},{values(r)}", HEADER),
        "holds candles of 5m, not 1m",
    ),
    "30s": (
        lines(lambda r: f"{T + (r[0] - T) // 2},{values(r)}", HEADER),
        "holds candles of 30s, not 1m",
    ),
    "1d": (
        lines(lambda r: f"{T + 1440 * (r[0] - T)},{values(r)}", HEADER),
        "holds candles of 1d, not 1m",
    ),
    "a year between": (
        lines(lambda r: f"{r[0] + 31_536_000_000 * (r[0] > T + 900_000)},{values(r)}", HEADER),
        "525,600 of them .* filled for lack of a candle; model.max_filled allows 5 %",
    ),
    "a long line": ("x" * 70_000, "a line of more than"),
    "an open quote": (
        f'{HEADER}\n{plain(CANDLES[0])}\n"' + "x,\n" * 90_000,
        "field larger than field limit|line 3",
    ),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_what_is_not_clear_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    text, why = UNCLEAR[name]
    path = written(tmp_path, text)
    with pytest.raises(CandlecastError, match=why) as refusal:
        said(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert len(str(refusal.value).splitlines()) == 1


def test_a_spreadsheet_and_a_cut_archive_are_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("xl/workbook.xml", "[Content_Types].xml"):
            archive.writestr(name, "")
    with pytest.raises(CandlecastError, match=r"the archive holds 2 files, not one; .* save it as"):
        said(written(tmp_path, file.getvalue()))
    packed = gzip.compress(lines(plain, HEADER).encode())
    for pack in (packed[:-9], zipped(packed)[:-40], lzma.compress(packed)[:-9]):
        with pytest.raises(CandlecastError, match=r"cannot be unpacked|cannot be read"):
            said(written(tmp_path, pack))
    with pytest.raises(CandlecastError, match="cannot be read: Is a directory"):
        said(tmp_path)


@pytest.mark.parametrize(("share", "fits"), [(0.05, False), (0.5, True), (1.0, True)])
def test_the_share_that_is_filled_is_said_and_limited(
    tmp_path: Path, share: float, *, fits: bool
) -> None:
    holed = [row for row in CANDLES if row[0] % 240_000 or row[0] == T]
    path = written(tmp_path, "\n".join([HEADER, *map(plain, holed)]))
    line = r"40 periods .*, 9 of them \(22 %\) filled"
    if not fits:
        with pytest.raises(CandlecastError, match=line):
            said(path, share)
        return
    table, told = said(path, share)
    assert len(table) == 31
    assert "9 of them (22 %)" in told[-1]
    frame = read_candles(path, MINUTE, FileRules(share))
    assert len(frame) == 40
    assert (frame["volume"] == 0).sum() == 9


def test_of_two_rows_for_one_opening_time_the_last_counts(tmp_path: Path) -> None:
    text = lines(plain, HEADER) + f"{T + 60_000},1,2,1,1,7\n"
    table, _ = said(written(tmp_path, text))
    assert table[1] == [T + 60_000, 1, 2, 1, 1, 7]
    assert len(table) == 40


def test_rows_of_several_chunks_are_read_alike(tmp_path: Path) -> None:
    many = [candle(at % 1000)[1:] for at in range(45_000)]
    text = [HEADER, *(",".join(map(str, (T + 60_000 * i, *row))) for i, row in enumerate(many))]
    text[44_001] = "x"
    rows = read_rows(written(tmp_path, "\n".join(text)))
    assert np.array_equal(np.delete(np.array(many), 44_000, axis=0), rows.ohlcv)
    assert [str(finding) for finding in rows.rejected] == ["line 44002: 1 fields, not 6"]
    assert rows.lines[-1] == 45_001


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
