"""History to CSV from an exchange on real sockets: whole, closed, resumable."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.jobs.fetch import FetchJob, FetchSpan, fetch, fetch_result, fetch_span
from daemon.jobs.partial_file import FileContent
from daemon.runtime.clock import SystemClock
from daemon.sandbox.exchange import SandboxExchange
from daemon.sandbox.market import Faults
from daemon.sandbox.recording import Playback, build_playback
from model.core.candle import Timeframe
from model.core.errors import CandlecastError, ConfigError, ExchangeError, NotOffered
from model.files.candle_csv import HEADER, csv_name
from tests.sandbox.scaled import RECORDING

MINUTE = Timeframe.parse("1m")
DAY_MS = 86_400_000


class RecordingProgress:
    """Records its updates, and can interrupt the run at one of them."""

    def __init__(self, cut_at: int | None = None) -> None:
        self.steps: list[tuple[str, int, int]] = []
        self._cut_at = cut_at

    def update(self, symbol: str, done: int, total: int) -> None:
        self.steps.append((symbol, done, total))
        if len(self.steps) == self._cut_at:
            raise KeyboardInterrupt


@pytest.fixture
def playback() -> Playback:
    origin_ms = MINUTE.floor(SystemClock().wall_ms()) - 4 * DAY_MS
    return build_playback(2, MINUTE, origin_ms, slice_rows=7_000)


@pytest.fixture
async def exchange(playback: Playback) -> AsyncIterator[SandboxExchange]:
    async with SandboxExchange(playback, faults=Faults()) as running:
        yield running


@pytest.fixture
def job(exchange: SandboxExchange, tmp_path: Path) -> FetchJob:
    symbols = ("S00/USDT", "S01/USDT")
    return FetchJob("binance", exchange.rest_url, symbols, MINUTE, 2, tmp_path / "data")


def rows(path: Path) -> list[list[float]]:
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    assert header == HEADER
    return [[float(value) for value in line.split(",")[:6]] for line in lines]


def recorded(exchange: SandboxExchange, symbol: str, opened: Sequence[float]) -> list[list[float]]:
    times, ohlcv = exchange.playback.history(symbol, int(opened[0]), int(opened[-1]) + 1)
    return [[int(ms), *values] for ms, values in zip(times, ohlcv.tolist(), strict=True)]


async def test_every_closed_candle_once(exchange: SandboxExchange, job: FetchJob) -> None:
    before_ms = SystemClock().wall_ms()
    progress = RecordingProgress()
    paths = [one.path for one in await fetch(job, SystemClock(), progress) if one.path]
    assert sorted(job.folder.iterdir()) == sorted(paths)
    first_ms = (before_ms - 2 * DAY_MS) // DAY_MS * DAY_MS
    for symbol, path in zip(job.symbols, paths, strict=True):
        written = rows(path)
        opened = [row[0] for row in written]
        assert written == recorded(exchange, symbol, opened)
        assert opened[0] == first_ms
        # The last candle has closed, and no candle that closed well before the start is missing.
        assert MINUTE.floor(before_ms - 5_000) <= opened[-1] + MINUTE.ms <= SystemClock().wall_ms()
        assert path.name == csv_name(symbol, "1m", first_ms, int(opened[-1]))
        assert path.read_text(encoding="utf-8").splitlines()[1].endswith(" 00:00:00")
        assert progress.steps[-1][1] == progress.steps[-1][2]


async def test_an_interrupted_run_resumes_where_it_stopped(
    exchange: SandboxExchange, job: FetchJob
) -> None:
    job = replace(job, symbols=job.symbols[:1])
    with pytest.raises(KeyboardInterrupt):
        await fetch(job, SystemClock(), RecordingProgress(cut_at=3))
    (partial,) = job.folder.iterdir()
    assert partial.suffix == ".partial"
    kept = len(rows(partial))
    assert kept == 2_000
    with partial.open("a", encoding="utf-8") as file:
        file.write("17640000")  # an incomplete line, as after a kill

    progress = RecordingProgress()
    (path,) = [one.path for one in await fetch(job, SystemClock(), progress)]
    assert path is not None
    assert progress.steps[0][1] == kept
    written = rows(path)
    assert written == recorded(exchange, "S00/USDT", [row[0] for row in written])
    assert list(job.folder.iterdir()) == [path]


async def test_a_symbol_that_was_listed_later(exchange: SandboxExchange, job: FetchJob) -> None:
    progress = RecordingProgress()
    (came,) = await fetch(replace(job, symbols=job.symbols[:1], days=6), SystemClock(), progress)
    assert came.path is not None
    assert rows(came.path)[0][0] == exchange.playback.origin_ms
    asked = 6 * 1440 - 1
    assert came.missing == pytest.approx(asked - came.candles, abs=1)
    assert came.missing_share == pytest.approx(1 / 3, abs=0.01)
    assert f"lacks {came.missing:,} before " in came.note
    # The progress ends at the number of fetched candles, not of requested ones.
    _, done, total = progress.steps[-1]
    assert done == came.candles < total


async def test_a_symbol_without_candles_does_not_affect_the_others(
    playback: Playback, tmp_path: Path
) -> None:
    unborn = replace(playback, origin_ms=MINUTE.floor(SystemClock().wall_ms()) + DAY_MS)
    async with SandboxExchange(unborn) as exchange:
        symbols = ("S00/USDT", "S01/USDT")
        job = FetchJob("binance", exchange.rest_url, symbols, MINUTE, 1, tmp_path)
        none = await fetch(job, SystemClock(), RecordingProgress())
    assert [(one.symbol, one.path, one.candles, one.missing_share) for one in none] == [
        (symbol, None, 0, 1.0) for symbol in symbols
    ]
    assert none[0].note == "S00/USDT: the exchange has no 1m candles in that time"
    assert list(tmp_path.iterdir()) == []


async def test_missing_candles_are_reported(exchange: SandboxExchange, job: FetchJob) -> None:
    job = replace(job, symbols=job.symbols[:1])
    start_ms = MINUTE.floor(SystemClock().wall_ms()) - 100 * MINUTE.ms
    exchange.faults.untraded = {("S00/USDT", start_ms + at * MINUTE.ms) for at in (3, 4, 30)}
    (came,) = await fetch(job, SystemClock(), RecordingProgress())
    assert came.missing == 3
    assert came.note.endswith("the exchange lacks 3 in between")


@pytest.mark.parametrize(
    "left",
    ["no header\n", f"{HEADER}\ngarbage\n", f"{HEADER}\n1,1,1,1,1,1,x\n", "\0"],
    ids=["no header", "no time", "another time", "no text"],
)
async def test_a_partial_file_of_other_content_is_restarted(
    exchange: SandboxExchange, job: FetchJob, left: str
) -> None:
    job = replace(job, symbols=job.symbols[:1])
    with pytest.raises(KeyboardInterrupt):
        await fetch(job, SystemClock(), RecordingProgress(cut_at=2))
    (partial,) = job.folder.iterdir()
    partial.write_text(left, encoding="utf-8")
    (came,) = await fetch(job, SystemClock(), RecordingProgress())
    assert came.path is not None
    written = rows(came.path)
    assert written == recorded(exchange, "S00/USDT", [row[0] for row in written])


async def test_another_exchange_or_address_does_not_continue_a_file(
    exchange: SandboxExchange, playback: Playback, job: FetchJob
) -> None:
    job = replace(job, symbols=job.symbols[:1])
    with pytest.raises(KeyboardInterrupt):
        await fetch(job, SystemClock(), RecordingProgress(cut_at=3))
    (partial,) = job.folder.iterdir()
    before = partial.read_bytes()
    other = replace(playback, starts={name: row + 400 for name, row in playback.starts.items()})
    async with SandboxExchange(other, name="okx") as okx, SandboxExchange(other) as elsewhere:
        for name, address in (("okx", okx), ("binance", elsewhere)):
            there = replace(job, exchange=name, endpoint_rest=address.rest_url)
            (came,) = await fetch(there, SystemClock(), RecordingProgress())
            assert came.path is not None
            written = rows(came.path)
            assert written == recorded(address, "S00/USDT", [row[0] for row in written])
    assert exchange.playback != other
    assert partial.read_bytes() == before


NOW_MS = 1_767_225_600_000 + 90_000


@pytest.mark.parametrize("days", [1e9, 1e300, 6_300, 1e-9, 0.0001])
def test_a_span_that_cannot_be_fetched_is_refused(days: float) -> None:
    with pytest.raises(ConfigError, match=r"--days .* (before 2009; it can be 6,209|ask for more)"):
        fetch_span(days, MINUTE, NOW_MS)


def test_the_span_is_counted_from_now_and_fetched_from_midnight() -> None:
    midnight_ms = NOW_MS - 90_000
    assert fetch_span(1, MINUTE, NOW_MS) == (
        midnight_ms - DAY_MS,
        midnight_ms - DAY_MS + 2 * MINUTE.ms,
        midnight_ms + MINUTE.ms,
    )
    due_ms = fetch_span(0.5, MINUTE, NOW_MS).requested_ms
    assert fetch_span(0.5, MINUTE, NOW_MS).first_ms == due_ms


@pytest.mark.parametrize(
    ("held", "lack"),
    [
        (FileContent(10, 0, 540_000), ""),
        (
            FileContent(7, 180_000, 540_000),
            "fetched 7 1m candles; of the 10 requested, the exchange lacks 3 before",
        ),
        (FileContent(9, 0, 540_000), "lacks 1 in between"),
        (FileContent(8, 0, 420_000), "lacks 2 after 1970-01-01 00:07 UTC"),
        (
            FileContent(6, 60_000, 480_000),
            "lacks 1 before 1970-01-01 00:01 UTC, 2 in between, 1 after",
        ),
        # Candles before the requested span do not replace missing ones.
        (FileContent(12, -180_000, 480_000), "lacks 1 after"),
    ],
)
def test_missing_candles_are_counted(held: FileContent, lack: str) -> None:
    asked = FetchSpan(-180_000, 0, 600_000)
    came = fetch_result("A/B", None, held, asked, MINUTE)
    assert lack in came.note
    counts = [int(count) for count in re.findall(r"(\d+) (?:before|in between|after)", lack)]
    assert (came.missing, came.missing_share) == (sum(counts), sum(counts) / 10)


async def test_a_ban_is_respected(exchange: SandboxExchange, job: FetchJob) -> None:
    exchange.ban(418, 60)
    with pytest.raises(ExchangeError, match="loading its markets: it asks to slow down"):
        await fetch(job, SystemClock(), RecordingProgress())
    assert sum(exchange.rest.requests.values()) <= 3


async def test_what_the_exchange_lacks(job: FetchJob) -> None:
    with pytest.raises(ExchangeError, match="no symbol S09/USDT; did you mean S0"):
        await fetch(replace(job, symbols=("S09/USDT",)), SystemClock(), RecordingProgress())
    with pytest.raises(ExchangeError, match="no timeframe 7m; allowed: 1s, 1m"):
        await fetch(
            replace(job, timeframe=Timeframe.parse("7m")), SystemClock(), RecordingProgress()
        )


async def test_a_folder_that_cannot_be_written(job: FetchJob, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CandlecastError, match=r"cannot write .*file"):
        await fetch(replace(job, folder=tmp_path / "file"), SystemClock(), RecordingProgress())


@pytest.mark.parametrize("first_ms", [0, 3 * DAY_MS, 4 * DAY_MS, 4 * DAY_MS - 8 * 3_600_000])
async def test_weeks_begin_as_on_the_exchange(tmp_path: Path, first_ms: int) -> None:
    week = Timeframe.parse("1w")
    origin_ms = 2_600 * week.ms + first_ms
    async with SandboxExchange(build_playback(1, week, origin_ms, recording=RECORDING)) as exchange:
        job = FetchJob("binance", exchange.rest_url, ("S00/USDT",), week, 1_000, tmp_path)
        (fetched,) = await fetch(job, SystemClock(), RecordingProgress())
        assert fetched.path is not None
        written = rows(fetched.path)
        assert len(written) in {142, 143}
        assert written == recorded(exchange, "S00/USDT", [row[0] for row in written])
    assert SystemClock().wall_ms() - 2 * week.ms < written[-1][0]
    assert written[-1][0] + week.ms <= SystemClock().wall_ms()


async def test_candles_of_another_length_than_their_name_says_are_refused(tmp_path: Path) -> None:
    odd = Timeframe("1m", 61_000, 0)
    origin_ms = SystemClock().wall_ms() - 500 * odd.ms
    async with SandboxExchange(build_playback(1, odd, origin_ms, recording=RECORDING)) as exchange:
        job = FetchJob("binance", exchange.rest_url, ("S00/USDT",), MINUTE, 1, tmp_path)
        with pytest.raises(
            NotOffered, match=r"binance: the 1m candles do not open every 1m: .*; choose another"
        ):
            await fetch(job, SystemClock(), RecordingProgress())
