"""The board shows what consumers were told, scored as it was told, without cutting a number."""

from __future__ import annotations

import io
import re
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from daemon.board import Board, Row
from daemon.watch import line

T0 = 1_776_859_560_000
DEMO = ("BTCAPR/USDT", "BTCFEB/USDT", "BTCJAN/USDT", "BTCMAR/USDT")
TITLE = "candlecast demo · recorded BTC/USDT candles, one a second · Ctrl-C ends it"


def message(symbol: str, at: int, last: float, predicted: float, **more: Any) -> dict[str, Any]:
    close_ms = T0 + at * 1_000
    return {
        "symbol": symbol,
        "seq": close_ms // 1_000,
        "candle_close_ms": close_ms,
        "target_close_ms": close_ms + 1_000,
        "last_close": last,
        "predicted_close": predicted,
        "predicted_return": predicted / last - 1,
        "interval": None,
        "latency_ms": {"ready": 0.5, "queue": 0.1, "inference": 0.1},
        "late": False,
    } | more


def shown(board: Board, width: int, height: int = 200) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(board.render(width, height))
    return [text.rstrip() for text in capture.get().splitlines()]


def hit(row: Row) -> bool | None:
    assert row.outcome is not None
    return row.outcome.hit


def test_a_forecast_is_scored_by_the_close_that_the_next_one_starts_from() -> None:
    board = Board("title")
    row = board.update(message("A/U", 0, 100.0, 101.0))
    assert row.outcome is None
    board.update(message("A/U", 1, 102.0, 101.0))
    assert row.outcome == pytest.approx((0.01, 0.02))
    assert row.mae_ratio == pytest.approx(0.5)
    directions = [hit(row)]
    for at in (2, 3):
        board.update(message("A/U", at, 103.0, 103.0))
        directions.append(hit(row))
    assert directions == [True, False, None]
    assert row.scored == 3


def test_a_forecast_whose_candle_was_missed_is_not_scored() -> None:
    board = Board("title")
    board.update(message("A/U", 0, 100.0, 101.0))
    row = board.update(message("A/U", 2, 102.0, 101.0))
    assert (row.outcome, row.scored) == (None, 0)
    assert board.forecasts == 2


def test_what_is_heard_twice_or_late_counts_once() -> None:
    board = Board("title")
    old = message("A/U", 0, 100.0, 101.0)
    row = board.update(old)
    for heard in (message("A/U", 1, 102.0, 101.0), old, message("A/U", 1, 102.0, 101.0)):
        board.update(heard)
    assert (board.forecasts, row.scored) == (2, 1)
    assert row.message is not None
    assert row.message["last_close"] == 102.0


def test_the_error_of_all_is_the_sum_of_errors_over_the_sum_of_the_last_values() -> None:
    board = Board("title")
    for symbol, predicted, happened in (("A/U", 101.0, 101.0), ("B/U", 100.0, 103.0)):
        board.update(message(symbol, 0, 100.0, predicted))
        board.update(message(symbol, 1, happened, happened))
    # No error against 0.01, and 0.03 against 0.03.
    assert "error ÷ last value's 0.750 (n=2)" in board.summary()


@pytest.mark.parametrize(
    ("count", "p50", "p99"), [(1, 1.0, 1.0), (2, 1.0, 2.0), (100, 50.0, 99.0), (600, 350.0, 595.0)]
)
def test_latencies_are_nearest_ranks_of_the_last_500(count: int, p50: float, p99: float) -> None:
    board = Board("title")
    for at in range(count):
        board.update(message("A/U", at, 1.0, 1.0, latency_ms={"ready": float(at + 1)}))
    assert (board.latency_ms(0.5), board.latency_ms(0.99)) == (p50, p99)


def test_an_empty_board_says_so() -> None:
    board = Board("title")
    assert board.summary() == "no forecast yet"
    assert shown(board, 80)[0] == "title"
    assert shown(board, 80)[-1] == "no forecast yet"


def filled(symbols: tuple[str, ...], price: float, *, intervals: bool) -> Board:
    board, random = Board(TITLE), Random(1)
    for at in range(1_440):
        for symbol in symbols:
            last = price * (1 + random.uniform(-0.05, 0.05))
            band = {"level": 0.9, "lower": last * 0.99, "upper": last * 1.01}
            board.update(
                message(
                    symbol,
                    at,
                    last,
                    last * (1 + random.uniform(-0.01, 0.01)),
                    interval=band if intervals else None,
                    late=random.random() < 0.1,
                    latency_ms={"ready": random.uniform(0.2, 60)},
                )
            )
    return board


NUMBER = re.compile(r"[-+]?\d+(\.\d+)?%?!?|[✓✗–…]")


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
@pytest.mark.parametrize("price", [0.00002345, 0.4, 97_123.4, 1_234_567.8])
@pytest.mark.parametrize("names", [DEMO, tuple(f"S{n:02}/USDT:USDT" for n in range(20))])
def test_no_line_wraps_and_no_number_is_cut(
    width: int, price: float, names: tuple[str, ...]
) -> None:
    lines = shown(filled(names, price, intervals=True), width)
    assert max(map(cell_len, lines)) <= width
    rows = [text.split() for text in lines if text.startswith(names)]
    assert len(rows) == len(names)
    for symbol, *cells in rows:
        assert symbol in names, "cut"
        assert all(NUMBER.fullmatch(cell) for cell in cells)
        assert len(cells) == len(rows[0]) - 1
        # A forecast can be told from the close that it starts from.
        assert cells[0] != cells[1]


def test_what_a_screenshot_shows_in_80_columns() -> None:
    lines = shown(filled(DEMO, 97_000.0, intervals=False), 80, 24)
    assert lines[0] == TITLE
    assert lines[2].split() == [
        *("symbol", "close", "forecast", "change", "happened", "err÷last", "n", "ready", "ms")
    ]
    assert len(lines) <= 12


def test_intervals_are_shown_where_there_is_room() -> None:
    board = filled(DEMO, 97_000.0, intervals=True)
    assert "interval" not in shown(board, 80)[2]
    assert "interval" in shown(board, 120)[2]
    assert " … " in shown(board, 120)[4]


@given(st.integers(1, 300), st.integers(12, 60), st.integers(40, 200))
def test_a_board_never_outgrows_the_terminal(symbols: int, height: int, width: int) -> None:
    board = Board("title")
    for number in range(symbols):
        board.update(message(f"S{number:03}/U", 0, 1.0, 1.1))
    lines = shown(board, width, height)
    # The last row of the terminal is the cursor's.
    assert len(lines) <= height - 1
    visible = sum(text.startswith("S") for text in lines)
    more = [text for text in lines if "more symbols" in text]
    assert visible == symbols or more == [f"… and {symbols - visible} more symbols"]


def test_without_a_terminal_a_forecast_is_a_line() -> None:
    board = Board("title")
    first = message("A/U", 0, 100.0, 101.0)
    assert line(first, board.update(first)) == (
        f"A/U seq {first['seq']} close 100 → 101 (+1.0000%) · ready 0.50 ms"
    )
    second = message("A/U", 1, 102.0, 101.0)
    assert "before: +2.000% · error ÷ last value's 0.500" in line(second, board.update(second))
