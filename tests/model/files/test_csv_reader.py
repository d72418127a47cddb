"""Test candle files in the formats of exchanges, data vendors and spreadsheets."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from model.core.errors import CandlecastError
from model.files.csv_reader import read_rows
from model.training.candle_sources import read_candles
from tests.support.candle_csv import (
    CANDLES,
    HEADER,
    MINUTE,
    Row,
    T,
    candle,
    lines,
    plain,
    read_with_notes,
    values,
    written,
)


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


@pytest.mark.parametrize("name", TEXTS)
def test_unambiguous_files_are_read(tmp_path: Path, name: str) -> None:
    table, notes = read_with_notes(written(tmp_path, TEXTS[name]))
    assert np.allclose(table, CANDLES, rtol=1e-15, atol=0.0)
    assert notes[-1].endswith(
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
    table, _ = read_with_notes(written(tmp_path, pack(lines(plain, HEADER).encode())))
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
def test_the_interpretation_is_reported_or_an_error_raised(
    tmp_path: Path, name: str, note: str
) -> None:
    path = written(tmp_path, TEXTS[name])
    assert note in read_with_notes(path)[1][0]
    with pytest.raises(CandlecastError, match=r"candles\.csv: ") as refusal:
        read_candles(path, MINUTE)
    assert note in str(refusal.value)


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
def test_ambiguous_files_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    text, why = UNCLEAR[name]
    path = written(tmp_path, text)
    with pytest.raises(CandlecastError, match=why) as refusal:
        read_with_notes(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert len(str(refusal.value).splitlines()) == 1


def test_a_spreadsheet_and_a_cut_archive_are_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("xl/workbook.xml", "[Content_Types].xml"):
            archive.writestr(name, "")
    with pytest.raises(CandlecastError, match=r"the archive holds 2 files, not one; .* save it as"):
        read_with_notes(written(tmp_path, file.getvalue()))
    packed = gzip.compress(lines(plain, HEADER).encode())
    for pack in (packed[:-9], zipped(packed)[:-40], lzma.compress(packed)[:-9]):
        with pytest.raises(CandlecastError, match=r"cannot be unpacked|cannot be read"):
            read_with_notes(written(tmp_path, pack))
    with pytest.raises(CandlecastError, match="cannot be read: Is a directory"):
        read_with_notes(tmp_path)


def test_rows_of_several_chunks_are_read_alike(tmp_path: Path) -> None:
    many = [candle(at % 1000)[1:] for at in range(45_000)]
    text = [HEADER, *(",".join(map(str, (T + 60_000 * i, *row))) for i, row in enumerate(many))]
    text[44_001] = "x"
    rows = read_rows(written(tmp_path, "\n".join(text)))
    assert np.array_equal(np.delete(np.array(many), 44_000, axis=0), rows.ohlcv)
    assert [str(finding) for finding in rows.rejected] == ["line 44002: 1 fields, not 6"]
    assert rows.lines[-1] == 45_001
