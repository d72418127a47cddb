"""Check that every browser, also a slow one, ends up with the same and correct table."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from daemon.candles.window import Window
from daemon.web.page_rows import FIELDS, RowTable, row, series
from model.core.candle import Candle, Ohlcv, Timeframe
from model.forecasts.forecast import (
    Forecast,
    ForecastRow,
    Interval,
    Latency,
    Skill,
)
from tests.support.sample_forecasts import forecast_at

MINUTE = Timeframe.parse("1m")
T0 = 1_776_859_560_000
NAMES = tuple(f"S{n}/U" for n in range(5))


def candle(symbol: str, at: int, close: float = 100.0) -> Candle:
    open_ms = T0 + at * MINUTE.ms
    prices = Ohlcv(close, close + 1, close - 1, close, 3.0)
    return Candle(symbol, open_ms, open_ms + MINUTE.ms, prices, open_ms, 0.0, "exchange_flag")


def forecast(symbol: str, at: int, **more: Any) -> Forecast:
    odd = {"predicted_close": 100.123456789012, "latency": Latency(1.23456, 0.1, 0.1)}
    return forecast_at(T0 + (at + 1) * MINUTE.ms, symbol, **(odd | more))


def window(symbol: str, candles: int) -> Window:
    made = Window(symbol, MINUTE, 10)
    made.merge_history([candle(symbol, at) for at in range(candles)])
    return made


def named(values: list[Any]) -> dict[str, Any]:
    return dict(zip(FIELDS, values, strict=True))


def test_a_symbol_without_data_is_all_none() -> None:
    shown = named(row("A/U", Window("A/U", MINUTE, 10), None, stale=True))
    assert shown.pop("symbol") == "A/U"
    assert shown.pop("stale") is True
    assert set(shown.values()) == {None}


def test_a_candle_without_a_forecast_has_no_forecast() -> None:
    shown = named(row("A/U", window("A/U", 3), None, stale=False))
    assert (shown["open_ms"], shown["high"]) == (T0 + 2 * MINUTE.ms, 101.0)
    assert shown["predicted"] is None
    assert shown["valid_until_ms"] is None


def test_a_forecast_is_shown_with_interval_and_skill() -> None:
    bare = named(row("A/U", window("A/U", 3), forecast("A/U", 2), stale=False))
    assert (bare["last"], bare["predicted"], bare["lower"]) == (100.0, 100.123457, None)
    assert (bare["target_ms"], bare["valid_until_ms"]) == (
        T0 + 3 * MINUTE.ms,
        T0 + 4 * MINUTE.ms,
    )
    assert (bare["ready_ms"], bare["late"], bare["ratio"], bare["n"]) == (1.235, False, None, 0)
    full_forecast = forecast(
        "A/U", 2, interval=Interval(0.9, 99.0, 101.0), skill=Skill(0.998, 0.001, 1440)
    )
    full = named(row("A/U", window("A/U", 3), full_forecast, stale=False))
    assert (full["lower"], full["upper"]) == (99.0, 101.0)
    assert (full["ratio"], full["stderr"], full["n"]) == (0.998, 0.001, 1440)


def test_only_changed_rows_are_sent_again() -> None:
    table, windows = RowTable(), [window(name, 3) for name in NAMES]
    newest = {name: forecast(name, 2) for name in NAMES}
    assert len(table.update(windows, newest, frozenset())) == len(NAMES)
    assert table.update(windows, newest, frozenset()) == []
    newest[NAMES[1]] = forecast(NAMES[1], 3)
    windows[2].add_closed(candle(NAMES[2], 3))
    changed = table.update(windows, newest, frozenset({NAMES[4]}))
    assert [values[0] for values in changed] == [NAMES[1], NAMES[2], NAMES[4]]


def test_nothing_new_makes_no_frame() -> None:
    table = RowTable()
    table.make_frame([], None)
    assert table.frame.number == 0
    table.make_frame([], {"warming_up": False})
    assert table.frame == (1, b'event: state\ndata: {"warming_up":false}\n\n')


class Browser:
    """Applies events as the page does."""

    def __init__(self) -> None:
        self.seen = 0
        self.rows: dict[str, list[Any]] = {}
        self.state: dict[str, Any] = {}

    def read(self, table: RowTable) -> None:
        if table.frame.number == self.seen:
            return
        for text in table.events_after(self.seen).decode().split("\n\n")[:-1]:
            head, data = text.split("\n")
            content = json.loads(data.removeprefix("data: "))
            if head == "event: all":
                self.rows = {values[0]: values for values in content["rows"]}
                assert tuple(content["fields"]) == FIELDS
            elif head == "event: rows":
                self.rows |= {values[0]: values for values in content}
            else:
                self.state = content
        self.seen = table.frame.number


STEPS = st.lists(
    st.tuples(
        st.sets(st.sampled_from(NAMES)),  # get a new forecast
        st.sets(st.sampled_from(NAMES)),  # are stale
        st.sets(st.sampled_from(NAMES), min_size=1),  # are there at all
        st.booleans(),  # the state is due
        st.sets(st.integers(0, 2)),  # browsers that read
    ),
    max_size=12,
)


@given(STEPS)
def test_slow_browsers_end_up_with_the_same_table(steps: Any) -> None:
    table, browsers = RowTable(), [Browser() for _ in range(3)]
    windows = {name: window(name, 1) for name in NAMES}
    newest: dict[str, Forecast] = {}
    present: set[str] = set()
    for number, (fresh, stale, present, due, reading) in enumerate(steps):
        newest |= {name: forecast(name, number) for name in fresh}
        table.remove_all_but(present)
        some = [windows[name] for name in NAMES if name in present]
        changed = table.update(some, newest, frozenset(stale))
        table.make_frame(changed, {"number": number} if due else None)
        for browser in reading:
            browsers[browser].read(table)
    for browser in browsers:
        browser.read(table)
        assert browser.rows.keys() == present
        assert (browser.rows, browser.state) == (browsers[0].rows, browsers[0].state)
    stale = steps[-1][1] if steps else set()
    for name, shown in browsers[0].rows.items():
        expected = row(name, windows[name], newest.get(name), stale=name in stale)
        assert shown == json.loads(json.dumps(expected))


def test_a_series_ends_with_the_newest_candle_and_holds_no_older_forecast() -> None:
    made = window("A/U", 10)
    known = [
        ForecastRow("A/U", T0 + at * MINUTE.ms, T0 + (at + 1) * MINUTE.ms, 100.0, 101.0, None, None)
        for at in range(11)
    ]
    shown = series(made, MINUTE.ms, known, 4)
    opens = [T0 + at * MINUTE.ms for at in (6, 7, 8, 9)]
    assert shown["candles"] == [[open_ms, 100.0, 101.0, 99.0, 100.0] for open_ms in opens]
    assert [f[0] for f in shown["forecasts"]] == [*opens, T0 + 10 * MINUTE.ms]
    assert series(Window("B/U", MINUTE, 10), MINUTE.ms, [], 4) == {"candles": [], "forecasts": []}
