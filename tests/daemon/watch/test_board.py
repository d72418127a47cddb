"""The board shows and scores the published forecasts and cuts no number."""

from __future__ import annotations

import io
import json
import re
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from daemon.watch.board import SORTS, Board, Row
from daemon.watch.keyboard import TableView, parse_keys
from daemon.watch.messages import parse_forecast, parse_status
from daemon.watch.subscriber import format_line
from daemon.watch.table import render

T0 = 1_776_859_560_000
DEMO = ("BTCAPR/USDT", "BTCFEB/USDT", "BTCJAN/USDT", "BTCMAR/USDT")
TITLE = "candlecast demo · recorded BTC/USDT candles, one a second · Ctrl-C ends it"


def message(symbol: str, at: int, last: float, predicted: float, **more: Any) -> dict[str, Any]:
    close_ms = T0 + at * 1_000
    return {
        "symbol": symbol,
        "exchange": "binance",
        "timeframe": "1s",
        "seq": close_ms // 1_000,
        "candle_close_ms": close_ms,
        "target_close_ms": close_ms + 1_000,
        "valid_until_ms": close_ms + 1_000,
        "last_close": last,
        "predicted_close": predicted,
        "predicted_return": predicted / last - 1,
        "interval": None,
        "latency_ms": {"ready": 0.5, "queue": 0.1, "inference": 0.1},
        "late": False,
    } | more


def shown(
    board: Board, width: int, height: int = 200, now_ms: int = T0, view: TableView | None = None
) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(render(board, (width, height), now_ms, view or TableView()))
    return [text.rstrip() for text in capture.get().splitlines()]


def hit(row: Row) -> bool | None:
    assert row.outcome is not None
    return row.outcome.hit


def test_a_forecast_is_scored_by_the_close_that_the_next_one_starts_from() -> None:
    board = Board("title")
    row = board.on_forecast(message("A/U", 0, 100.0, 101.0))
    assert row.outcome is None
    board.on_forecast(message("A/U", 1, 102.0, 101.0))
    assert row.outcome == pytest.approx((0.01, 0.02))
    assert row.mae_ratio == pytest.approx(0.5)
    directions = [hit(row)]
    for at in (2, 3):
        board.on_forecast(message("A/U", at, 103.0, 103.0))
        directions.append(hit(row))
    assert directions == [True, False, None]
    assert row.scored == 3


def test_a_forecast_whose_candle_was_missed_is_not_scored() -> None:
    board = Board("title")
    board.on_forecast(message("A/U", 0, 100.0, 101.0))
    row = board.on_forecast(message("A/U", 2, 102.0, 101.0))
    assert (row.outcome, row.scored) == (None, 0)
    assert board.forecasts == 2


def test_messages_received_twice_or_late_count_once() -> None:
    board = Board("title")
    old = message("A/U", 0, 100.0, 101.0)
    row = board.on_forecast(old)
    for received in (message("A/U", 1, 102.0, 101.0), old, message("A/U", 1, 102.0, 101.0)):
        board.on_forecast(received)
    assert (board.forecasts, row.scored) == (2, 1)
    assert row.message["last_close"] == 102.0


def test_the_error_of_all_is_the_sum_of_errors_over_the_sum_of_the_last_values() -> None:
    board = Board("title")
    for symbol, predicted, happened in (("A/U", 101.0, 101.0), ("B/U", 100.0, 103.0)):
        board.on_forecast(message(symbol, 0, 100.0, predicted))
        board.on_forecast(message(symbol, 1, happened, happened))
    # No error against 0.01, and 0.03 against 0.03.
    assert "error ÷ last value's 0.750 (n=2)" in board.summary()


@pytest.mark.parametrize(
    ("count", "p50", "p99"), [(1, 1.0, 1.0), (2, 1.0, 2.0), (100, 50.0, 99.0), (600, 350.0, 595.0)]
)
def test_latencies_are_nearest_ranks_of_the_last_500(count: int, p50: float, p99: float) -> None:
    board = Board("title")
    for at in range(count):
        board.on_forecast(message("A/U", at, 1.0, 1.0, latency_ms={"ready": float(at + 1)}))
    assert (board.latency_ms(0.5), board.latency_ms(0.99)) == (p50, p99)


def test_an_empty_board_shows_a_notice() -> None:
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
            board.on_forecast(
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


NUMBER = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]\d\d)?%?!?|[✓✗–…]|s|min")
BARS = re.compile("[▁▂▃▄▅▆▇█]+")


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
@pytest.mark.parametrize("price", [8e-11, 1.116e-7, 0.00002345, 0.4, 97_123.4, 1_234_567.8, 4e16])
@pytest.mark.parametrize("names", [DEMO, tuple(f"S{n:02}/USDT:USDT" for n in range(20))])
def test_no_line_wraps_and_no_number_is_cut(
    width: int, price: float, names: tuple[str, ...]
) -> None:
    lines = shown(filled(names, price, intervals=True), width)
    assert max(map(cell_len, lines)) <= width
    rows = [BARS.sub("", text).split() for text in lines if text.startswith(names)]
    assert len(rows) == len(names)
    for symbol, *cells in rows:
        assert symbol in names, "cut"
        assert all(NUMBER.fullmatch(cell) for cell in cells)
        assert len(cells) == len(rows[0]) - 1
        # A forecast differs visibly from the close it starts from.
        assert cells[0] != cells[1]


def test_the_board_in_80_columns() -> None:
    lines = shown(filled(DEMO, 97_000.0, intervals=False), 80, 24)
    assert lines[0] == TITLE
    assert lines[2].split() == [
        *("symbol", "close", "forecast", "change", "happened", "err÷last", "n", "ready", "ms")
    ]
    assert len(lines) <= 12


def test_intervals_are_shown_where_there_is_room() -> None:
    board = filled(DEMO, 97_000.0, intervals=True)
    assert "interval" not in shown(board, 80)[2]
    assert "interval" in shown(board, 140)[2]
    assert " … " in shown(board, 140)[4]


@given(st.integers(1, 300), st.integers(12, 60), st.integers(40, 200))
def test_a_board_always_fits_the_terminal(symbols: int, height: int, width: int) -> None:
    board = Board("title")
    for number in range(symbols):
        board.on_forecast(message(f"S{number:03}/U", 0, 1.0, 1.1))
    lines = shown(board, width, height)
    # The last row of the terminal is the cursor's.
    assert len(lines) <= height - 1
    visible = sum(text.startswith("S") for text in lines)
    more = [text for text in lines if "more symbols" in text]
    assert visible == symbols or more == [f"… and {symbols - visible} more symbols"]


def test_without_a_terminal_a_forecast_is_a_line() -> None:
    board = Board("title")
    first = message("A/U", 0, 100.0, 101.0)
    assert format_line(first, board.on_forecast(first)) == (
        f"A/U seq {first['seq']} close 100 → 101 (+1.0000%) · ready 0.50 ms"
    )
    second = message("A/U", 1, 102.0, 101.0)
    assert "before: +2.000% · error ÷ last value's 0.500" in format_line(
        second, board.on_forecast(second)
    )


AFTER = T0 + 1_439_000 + 1_000


def test_an_expired_forecast_is_shown_as_none() -> None:
    board = filled(("A/U",), 97_000.0, intervals=True)
    before, after = (shown(board, 140, now_ms=now_ms) for now_ms in (AFTER - 1, AFTER))
    assert "no forecast" not in before[4]
    assert "1 s" in before[4]
    assert "no forecast" in after[4]
    assert " … " not in after[4]
    assert before[4].split()[1][:-1] == after[4].split()[1], "bars of the closes, forecast left out"
    assert "−10 min" in shown(board, 140, now_ms=AFTER + 600_500)[4]


def test_the_bars_follow_the_closes() -> None:
    board = Board("title")
    for at, last in enumerate((1.0, 2.0, 8.0)):
        board.on_forecast(message("A/U", at, last, 1.0))
    assert shown(board, 140)[4].split()[1] == "▁▂█▁"
    board.on_forecast(message("A/U", 9, 8.0, 8.0))
    assert shown(board, 140)[4].split()[1] == "▁▁", "after a gap it begins anew"


def several() -> Board:
    board = Board("title")
    for number, symbol in enumerate(("C/U", "A/U", "B/U")):
        for at in (0, 1):
            ready = {"ready": 10.0 + number}
            board.on_forecast(message(symbol, at, 100.0, 101.0 + number, latency_ms=ready))
    return board


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("symbol", ["A/U", "B/U", "C/U"]),
        ("change", ["B/U", "A/U", "C/U"]),
        ("ready", ["B/U", "A/U", "C/U"]),
    ],
)
def test_rows_are_sorted(sort: str, order: list[str]) -> None:
    assert [name for name, _ in several().select_rows("", sort, T0)] == order


def test_the_longest_without_a_forecast_comes_first() -> None:
    board = several()
    board.on_forecast(message("C/U", 500, 100.0, 101.0))
    names = [name for name, _ in board.select_rows("", "staleness", T0 + 400_000)]
    assert names == ["A/U", "B/U", "C/U"]
    assert set(SORTS) == {"symbol", "error", "ready", "change", "staleness"}


def test_the_filter_takes_any_case_and_the_market_where_there_are_several() -> None:
    board = several()
    assert [name for name, _ in board.select_rows("a/", "symbol", T0)] == ["A/U"]
    board.on_forecast(message("A/U", 0, 100.0, 101.0, exchange="kraken"))
    assert [name for name, _ in board.select_rows("KRAK", "symbol", T0)] == ["A/U kraken 1s"]
    assert len(board.select_rows("a/u", "symbol", T0)) == 2


def pressing(text: str) -> tuple[TableView, bool]:
    view, quits = TableView(), False
    for key in parse_keys(text):
        quits = view.press(key)
    return view, quits


@pytest.mark.parametrize(
    ("text", "pattern", "sort", "typing", "quits"),
    [
        ("q", "", "symbol", False, True),
        ("/q", "q", "symbol", True, False),
        ("/btc\x7f\r", "bt", "symbol", False, False),
        ("/btc\rq", "btc", "symbol", False, True),
        ("/btc\x1b", "", "symbol", False, False),
        ("/btc\r\x1b", "", "symbol", False, False),
        ("s", "", "error", False, False),
        ("s" * 5, "", "symbol", False, False),
        ("/" + "x" * 99, "x" * 40, "symbol", True, False),
        ("/a\x07\x1b[Ab", "ab", "symbol", True, False),
    ],
)
def test_keys(text: str, pattern: str, sort: str, typing: bool, quits: bool) -> None:  # noqa: FBT001
    view, quit_now = pressing(text)
    assert (view.pattern, view.sort, view.typing, quit_now) == (pattern, sort, typing, quits)


PRESSES = st.sampled_from([*"/qsab\r\x1b\x7f", "\x1b[A", "\x1b[B", "\x1b[6~", "\x1b[F"])


@given(st.lists(PRESSES).map("".join))
def test_any_keys_leave_a_visible_board(text: str) -> None:
    board = Board("title")
    for number in range(60):
        board.on_forecast(message(f"S{number:03}/U", 0, 1.0, 1.1))
    view, _ = pressing(text)
    lines = shown(board, 100, 24, view=view)
    assert len(lines) <= 23
    found = board.select_rows(view.pattern, view.sort, T0)
    assert any(text.startswith("S") for text in lines) == bool(found)


def test_scrolling_reaches_the_last_row() -> None:
    board = Board("title")
    for number in range(60):
        board.on_forecast(message(f"S{number:03}/U", 0, 1.0, 1.1))
    view, _ = pressing("\x1b[F")
    lines = shown(board, 100, 24, view=view)
    assert any(text.startswith("S059/U") for text in lines)
    view.press("up")
    assert not any(text.startswith("S059/U") for text in shown(board, 100, 24, view=view))


def test_errors_and_failing_instances_are_shown() -> None:
    board = several()
    board.on_status({"instance": "a", "state": "online"})
    assert "a is" not in "\n".join(shown(board, 100))
    board.on_status({"instance": "b", "state": "offline"})
    board.error = "no broker at x"
    lines = shown(board, 100)
    assert "b is offline" in lines
    assert lines[1] == "no broker at x"


GOOD = json.dumps(message("A/U", 0, 100.0, 101.0))


def test_a_valid_message_is_accepted() -> None:
    assert parse_forecast(GOOD.encode()) == json.loads(GOOD)
    assert parse_status(b'{"instance": "a", "state": "online"}') is not None


@pytest.mark.parametrize(
    "change",
    [
        {"symbol": "A\x1b[2J"},
        {"symbol": "x" * 81},
        {"symbol": None},
        {"last_close": 0},
        {"last_close": "1"},
        {"predicted_close": -1.0},
        {"seq": None},
        {"seq": True},
        {"interval": {"lower": 1.0}},
        {"interval": [1, 2]},
        {"latency_ms": None},
        {"latency_ms": {"ready": "fast"}},
        {"late": 0},
        {"valid_until_ms": []},
    ],
)
def test_a_message_that_cannot_be_shown_is_rejected(change: dict[str, Any]) -> None:
    assert parse_forecast(json.dumps(json.loads(GOOD) | change).encode()) is None


@pytest.mark.parametrize("name", json.loads(GOOD))
def test_any_incomplete_message_is_rejected_or_can_be_shown(name: str) -> None:
    lacking = {key: value for key, value in json.loads(GOOD).items() if key != name}
    taken = parse_forecast(json.dumps(lacking).encode())
    board = Board("title")
    if taken is not None:
        board.on_forecast(taken)
    assert shown(board, 100)


@given(st.binary(max_size=60) | st.sampled_from([b"[]", b"{}", b"null", b"1", b" " * 70_000]))
def test_garbage_is_rejected(payload: bytes) -> None:
    assert parse_forecast(payload) is None
    assert parse_status(payload) is None
