"""Test that the history keeps every revision, prunes old rows and refuses damaged files."""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.core.candle import Candle, FinalBy, Ohlcv
from model.core.errors import HistoryError
from model.core.market import MarketKey
from model.forecasts.forecast import (
    Forecast,
    ForecastRow,
    Interval,
    ModelInfo,
)
from model.history.rows import Rows
from model.history.store import History, Outcome
from tests.support.sample_forecasts import batch_of, forecast_at

T0 = 1_776_859_560_000
MINUTE = 60_000
DAY_MS = 86_400_000
MARKET = MarketKey.parse("binance", "1m")


def candle(
    slot: int,
    symbol: str = "BTC/USDT",
    close: float = 100.0,
    delay_ms: int = 12,
    final_by: FinalBy | None = "exchange_flag",
    step_ms: int = MINUTE,
) -> Candle:
    open_ms = T0 + slot * step_ms
    close_ms = open_ms + step_ms
    ohlcv = Ohlcv(99.5, max(120.25, close), min(80.125, close), close, 3.5)
    return Candle(symbol, open_ms, close_ms, ohlcv, close_ms + delay_ms, 5.0, final_by)


def forecast(
    slot: int, symbol: str = "BTC/USDT", predicted: float = 101.0, sha256: str = "a" * 64
) -> Forecast:
    return forecast_at(
        T0 + (slot + 1) * MINUTE,
        symbol,
        predicted_close=predicted,
        predicted_return=predicted / 100.0 - 1.0,
        interval=Interval(0.9, 99.0, 103.0),
        model=ModelInfo("20261123T020000Z-3f9a1c", sha256, "log_return"),
    )


def add_forecasts(history: History, forecasts: list[Forecast]) -> None:
    history.add(MARKET, Rows(forecasts=[batch_of(one) for one in forecasts]))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@pytest.fixture
def history(path: Path) -> Iterator[History]:
    opened = History(path)
    yield opened
    opened.close()


@pytest.mark.parametrize(("filled", "repaired"), [(False, False), (True, False), (False, True)])
def test_a_candle_is_read_back_unchanged_after_a_restart(
    path: Path, *, filled: bool, repaired: bool
) -> None:
    first = History(path)
    went_in = candle(0, final_by="rest", delay_ms=-3)._replace(filled=filled, repaired=repaired)
    first.add_candles(MARKET, [went_in])
    first.close()
    second = History(path)
    assert second.candles(MARKET, "BTC/USDT", 5) == [went_in._replace(received_s=0.0)]
    second.close()
    assert sorted(path.parent.iterdir()) == [path]


def test_every_revision_is_kept_and_the_newest_is_read(path: Path, history: History) -> None:
    for close, delay_ms in ((100.0, 10), (101.0, 900), (101.0, 1800), (100.0, 5000)):
        history.add_candles(MARKET, [candle(0, close=close, delay_ms=delay_ms)])
    (newest,) = history.candles(MARKET, "BTC/USDT", 1)
    assert (newest.ohlcv.close, newest.received_ms - newest.close_ms) == (100.0, 5000)
    with sqlite3.connect(path) as database:
        kept = database.execute("SELECT close, delay_ms FROM candle").fetchall()
    database.close()
    assert kept == [(100.0, 10), (101.0, 900), (100.0, 5000)]  # the repetition changes nothing


def test_the_later_of_two_revisions_in_one_millisecond_stays(history: History) -> None:
    history.add_candles(MARKET, [candle(0, close=100.0), candle(0, close=101.0)])
    assert [c.ohlcv.close for c in history.candles(MARKET, "BTC/USDT", 9)] == [101.0]


def test_markets_and_symbols_are_kept_apart(history: History) -> None:
    history.add_candles(MARKET, [candle(0), candle(0, "ETH/USDT", close=90.0)])
    history.add_candles(
        MarketKey.parse("binance", "5m"), [candle(0, close=91.0, step_ms=5 * MINUTE)]
    )
    history.add_candles(MarketKey.parse("kraken", "1m"), [candle(0, close=92.0)])
    closes = [
        [c.ohlcv.close for c in history.candles(MarketKey.parse(exchange, timeframe), symbol, 10)]
        for exchange, symbol, timeframe in (
            ("binance", "BTC/USDT", "1m"),
            ("binance", "ETH/USDT", "1m"),
            ("binance", "BTC/USDT", "5m"),
            ("kraken", "BTC/USDT", "1m"),
            ("kraken", "ETH/USDT", "1m"),
            ("okx", "BTC/USDT", "1m"),
        )
    ]
    assert closes == [[100.0], [90.0], [91.0], [92.0], [], []]


def test_the_newest_candle_of_the_market_ends_the_span(history: History) -> None:
    history.add_candles(MARKET, [candle(slot) for slot in (0, 1, 2, 5)])
    history.add_candles(MARKET, [candle(7, "ETH/USDT")])
    slots = [(c.open_ms - T0) // MINUTE for c in history.candles(MARKET, "BTC/USDT", 6)]
    assert slots == [2, 5]


def test_a_forming_candle_is_refused_with_its_whole_batch(history: History) -> None:
    with pytest.raises(ValueError, match="forming candle of ETH/USDT"):
        history.add_candles(MARKET, [candle(0), candle(0, "ETH/USDT", final_by=None)])
    assert history.candles(MARKET, "BTC/USDT", 1) == []
    history.add_candles(MARKET, [candle(0, "ETH/USDT")])
    assert len(history.candles(MARKET, "ETH/USDT", 1)) == 1


def test_an_outcome_is_the_first_revision_of_the_next_candle(history: History) -> None:
    add_forecasts(history, [forecast(0), forecast(1), forecast(0, "ETH/USDT")])
    history.add_candles(MARKET, [candle(0, close=7.0), candle(1, close=100.5)])
    history.add_candles(MARKET, [candle(1, close=555.0, delay_ms=9000)])
    outcomes = sorted(history.outcomes(MARKET, 10))
    assert outcomes == [
        Outcome(ForecastRow.of(forecast(0)), 100.5),
        Outcome(ForecastRow.of(forecast(1)), None),
        Outcome(ForecastRow.of(forecast(0, "ETH/USDT")), None),
    ]
    assert [o.forecast for o in history.outcomes(MARKET, 1)] == [ForecastRow.of(forecast(1))]
    assert list(history.outcomes(MarketKey.parse("kraken", "1m"), 10)) == []


def test_the_first_published_value_is_kept(history: History) -> None:
    add_forecasts(history, [forecast(0, predicted=101.0)])
    add_forecasts(history, [forecast(0, predicted=102.0, sha256="b" * 64)])
    assert [o.forecast.predicted_close for o in history.outcomes(MARKET, 9)] == [101.0]


def test_a_forecast_without_interval_has_none(history: History) -> None:
    add_forecasts(history, [forecast(0)._replace(interval=None)])
    (outcome,) = history.outcomes(MARKET, 1)
    assert (outcome.forecast.lower, outcome.forecast.upper) == (None, None)


def test_pruning_goes_slice_by_slice_and_stops_at_the_boundary(history: History) -> None:
    symbols = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
    history.add_candles(MARKET, [candle(t, s) for t in range(20) for s in symbols])
    add_forecasts(history, [forecast(t, s) for t in range(20) for s in symbols])
    now_ms = T0 + 10 * MINUTE + DAY_MS
    slices: list[int] = []
    while slices[-1:] != [0]:
        slices.append(history.prune(keep_days=1, now_ms=now_ms, max_rows=4))
    # 10 candles and 9 forecasts (stamped at their close) of each of 3 symbols lie before.
    assert sum(slices) == 57
    assert max(slices) <= 2 * (4 + len(symbols))
    assert history.candles(MARKET, "ETH/USDT", 99)[0].open_ms == T0 + 10 * MINUTE
    assert next(history.outcomes(MARKET, 99)).forecast.candle_close_ms == T0 + 10 * MINUTE


Event = tuple[int, str, float, int]


def test_received_candles_are_never_overwritten(history: History) -> None:
    received, later = candle(0, close=100.0), candle(0, close=101.0, delay_ms=50)
    for worse in (later._replace(filled=True), later._replace(repaired=True)):
        history.add_candles(MARKET, [received, worse])
        (read,) = history.candles(MARKET, "BTC/USDT", 1)
        assert read.ohlcv == received.ohlcv


@pytest.mark.parametrize("close", [1e308, 1e-308, -1.0])
def test_impossible_candles_are_left_out(history: History, close: float) -> None:
    """Earlier versions let some of them in."""
    odd = candle(1)._replace(ohlcv=Ohlcv(close, close, close, close, 1.0))
    history.add_candles(MARKET, [candle(0), odd, candle(2)])
    read = history.candles(MARKET, "BTC/USDT", 3)
    assert [(c.open_ms - T0) // MINUTE for c in read] == [0, 2]


events = st.lists(
    st.tuples(
        st.integers(0, 12), st.sampled_from(["A/B", "C/D"]), st.sampled_from([1.0, 2.5, 1e9]),
        st.integers(-5, 5),
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(batches=st.lists(events, max_size=5), limit=st.integers(1, 15))
def test_reading_equals_a_plain_dictionary(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Event]], limit: int
) -> None:
    history = History(tmp_path_factory.mktemp("oracle") / "history.db")
    oracle: dict[tuple[str, int], tuple[int, float]] = {}
    for batch in batches:
        history.add_candles(
            MarketKey.parse("x", "1m"), [candle(t, s, close=c, delay_ms=d) for t, s, c, d in batch]
        )
        for slot, symbol, close, delay_ms in batch:
            delay_before, close_before = oracle.get((symbol, slot), (-99, 0.0))
            if delay_ms >= delay_before and close != close_before:
                oracle[symbol, slot] = (delay_ms, close)
    newest = max((slot for _, slot in oracle), default=0)
    for symbol in ("A/B", "C/D"):
        read = history.candles(MarketKey.parse("x", "1m"), symbol, limit)
        assert [((c.open_ms - T0) // MINUTE, c.ohlcv.close) for c in read] == [
            (slot, close)
            for (name, slot), (_, close) in sorted(oracle.items())
            if name == symbol and slot > newest - limit
        ]
    history.close()


def _text(path: Path) -> None:
    path.write_text("symbol,open,close\n" * 100)


def _other_program(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE candle (a)")
    database.close()


def _newer_schema(path: Path) -> None:
    History(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 9")
    database.execute("PRAGMA journal_mode = DELETE")
    database.close()


def _filled_database(path: Path) -> None:
    history = History(path)
    for slot in range(50):
        history.add_candles(MARKET, [candle(slot, f"S{i}/USDT") for i in range(40)])
    history.close()


def _truncated(path: Path) -> None:
    path.unlink(missing_ok=True)
    _filled_database(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def _overwritten_in_the_middle(path: Path) -> None:
    _filled_database(path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(random.Random(1).randbytes(5000))


def _schema_that_is_no_text(path: Path) -> None:
    _filled_database(path)
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE symbol", b"CREATE TABLE\xabsymbol"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_text, "is not a candlecast database; move it away or change paths.state"),
        (_other_program, "is not a candlecast database"),
        (_newer_schema, "has schema 9, this version of candlecast needs 3"),
        (_truncated, "is damaged"),
        (_overwritten_in_the_middle, "is damaged"),
        (_schema_that_is_no_text, "is damaged"),
        (Path.mkdir, "cannot be read: Is a directory"),
    ],
)
def test_a_doubtful_file_is_refused_in_one_line_and_left_alone(
    path: Path, make: Callable[[Path], None], message: str
) -> None:
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(HistoryError, match=message) as refused:
        History(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert before == (path.read_bytes() if path.is_file() else None)


@pytest.mark.parametrize("final_by", [3, -1])
def test_a_candle_that_became_final_in_no_known_way_is_damage(path: Path, final_by: int) -> None:
    history = History(path)
    history.add_candles(MARKET, [candle(0)])
    history.close()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE candle SET final_by = ?", (final_by,))
    with closing(History(path)) as opened, pytest.raises(HistoryError, match="is damaged"):
        opened.candles(MARKET, "BTC/USDT", 5)


def test_of_a_large_file_at_least_the_ends_are_looked_at(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.history.database._FULL_CHECK_MAX_BYTES", 0)
    _filled_database(path)
    History(path).close()
    _truncated(path)
    with pytest.raises(HistoryError, match="is damaged"):
        History(path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"missing/history\.db cannot be used now"):
        History(tmp_path / "missing" / "history.db")


def test_an_empty_file_becomes_a_database(path: Path) -> None:
    path.touch()
    history = History(path)
    history.add_candles(MARKET, [candle(0)])
    history.close()


_ENDLESS_WRITER = """
import sys
from pathlib import Path
from model.core.candle import Candle, Ohlcv
from model.core.market import MarketKey
from model.history.store import History
history = History(Path(sys.argv[1]))
market = MarketKey.parse("binance", "1m")
for slot in range(10**9):
    start = 1_776_859_560_000 + slot * 60_000
    history.add_candles(market, [
        Candle(f"S{i}/USDT", start, start + 60_000, Ohlcv(1.0, 2.0, 0.5, 1.5, slot),
               start + 60_012, 0.0, "exchange_flag") for i in range(50)])
    print(slot, flush=True)
"""


def test_a_kill_loses_no_transaction_that_was_done(path: Path, repository: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _ENDLESS_WRITER, str(path)],
        cwd=repository,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        done = -1
        while done < 60:
            done = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        done = max([done, *map(int, writer.stdout.read().split())])
    history = History(path)
    for symbol in ("S0/USDT", "S49/USDT"):
        slots = [(c.open_ms - T0) // MINUTE for c in history.candles(MARKET, symbol, 9999)]
        assert slots in (list(range(done + 1)), list(range(done + 2)))
    history.close()


def test_a_full_disk_changes_nothing_and_heals(history: History) -> None:
    history.add_candles(MARKET, [candle(0)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    many = [candle(1, f"S{i}/USDT") for i in range(5000)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(HistoryError, match="cannot be used now"):
            history.add_candles(MARKET, many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert history.candles(MARKET, "S0/USDT", 9) == []
    history.add_candles(MARKET, many)
    assert len(history.candles(MARKET, "S4999/USDT", 1)) == 1
