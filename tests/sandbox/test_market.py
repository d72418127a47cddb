from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.sandbox.market import Faults, Kline, Market
from daemon.sandbox.protocols.binance import event_json, rest_row
from daemon.sandbox.recording import Playback, build_playback
from model.core.candle import Ohlcv, Timeframe

SECOND = Timeframe.parse("1s")
ORIGIN_MS = 1_700_000_000_000
PLAYBACK: Playback = build_playback(2, SECOND, ORIGIN_MS)
RECORDINGS = ("binance_us_candles", "binance_tr_candles", "binance_futures_candles")


def recorded_events(shared_dir: Path, name: str) -> list[dict[str, Any]]:
    lines = (shared_dir / "fixtures" / "ws" / f"{name}.jsonl").read_text().splitlines()
    return [m["data"]["data"] for m in map(json.loads, lines) if "data" in m["data"]]


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, shape(inner)) for key, inner in value.items()]
    return type(value)


def test_events_have_the_keys_order_and_types_of_the_recordings(shared_dir: Path) -> None:
    market = Market(PLAYBACK, Faults())
    kline = market.kline("S00/USDT", ORIGIN_MS, 0.5, revised=False)
    ours = shape(json.loads(event_json(kline, "S00USDT", "1s", ORIGIN_MS + 500, closed=False)))
    theirs = [event for name in RECORDINGS for event in recorded_events(shared_dir, name)]
    assert len(theirs) == 67 + 5 + 8
    assert all(shape(event) == ours for event in theirs)


def test_a_recorded_event_is_rewritten_byte_for_byte(shared_dir: Path) -> None:
    # The sandbox derives quote and taker volumes itself, so those four fields are left out.
    for event in recorded_events(shared_dir, "binance_us_candles"):
        k = event["k"]
        ohlcv = Ohlcv(*(float(k[name]) for name in "ohlcv"))
        kline = Kline(k["t"], k["T"], ohlcv, k["f"], k["L"], k["n"])
        ours = json.loads(event_json(kline, k["s"], k["i"], event["E"], closed=k["x"]))
        for derived in "qVQB":
            del k[derived], ours["k"][derived]
        assert ours == event


def test_a_candle_without_trades_carries_binances_marks() -> None:
    market = Market(PLAYBACK, Faults())
    kline = market.kline("S00/USDT", ORIGIN_MS, 0.0, revised=False)
    assert (kline.first_id, kline.last_id, kline.trades, kline.ohlcv.volume) == (-1, -1, 0, 0.0)


@given(k=st.integers(0, 3_000), part=st.floats(0.01, 1))
def test_trade_ids_count_the_trades_and_never_go_back(k: int, part: float) -> None:
    market = Market(PLAYBACK, Faults())
    now = market.kline("S01/USDT", ORIGIN_MS + k * 1_000, part, revised=False)
    later = market.kline("S01/USDT", ORIGIN_MS + (k + 1) * 1_000, part, revised=False)
    assert now.last_id - now.first_id + 1 == now.trades
    assert now.last_id < later.first_id


@given(
    start=st.none() | st.integers(-50, 120),
    end=st.none() | st.integers(-50, 120),
    limit=st.integers(1, 60),
    now=st.integers(-10, 100_000),
)
def test_klines_are_the_candles_that_binance_would_list(
    start: int | None, end: int | None, limit: int, now: int
) -> None:
    now_ms = ORIGIN_MS + now
    start_ms = None if start is None else ORIGIN_MS + start * 997
    end_ms = None if end is None else ORIGIN_MS + end * 997
    exist = [t for t in range(ORIGIN_MS, ORIGIN_MS + 100_001, 1_000) if t <= now_ms]
    inside = [
        t for t in exist if (start_ms is None or start_ms <= t) and (end_ms is None or t <= end_ms)
    ]
    expected = inside[-limit:] if start_ms is None else inside[:limit]
    got = Market(PLAYBACK, Faults()).klines("S00/USDT", start_ms, end_ms, limit, now_ms)
    assert [kline.open_ms for kline in got] == expected
    for kline in got:
        whole = PLAYBACK.candle("S00/USDT", kline.open_ms)
        assert kline.close_ms == kline.open_ms + 999
        if kline.open_ms + 1_000 <= now_ms:
            assert kline.ohlcv == whole
        else:
            assert kline.ohlcv.volume < whole.volume


def test_values_on_the_wire_read_back_as_the_very_same_numbers() -> None:
    market = Market(PLAYBACK, Faults())
    for k in range(PLAYBACK.slice_rows):
        whole = PLAYBACK.candle("S00/USDT", ORIGIN_MS + k * 1_000)
        kline = market.kline("S00/USDT", ORIGIN_MS + k * 1_000, 1.0, revised=False)
        assert tuple(float(x) for x in rest_row(kline)[1:6]) == whole
        event = json.loads(event_json(kline, "S00USDT", "1s", 0, closed=True))["k"]
        assert tuple(float(event[name]) for name in "ohlcv") == whole


@pytest.mark.parametrize("shift", [0.5, 1.5])
def test_a_revision_shows_by_rest_once_the_candle_is_closed(shift: float) -> None:
    whole = PLAYBACK.candle("S00/USDT", ORIGIN_MS)
    close = round(whole.close * shift, 2)
    market = Market(PLAYBACK, Faults(revised={("S00/USDT", ORIGIN_MS): close}))
    (before,) = market.klines("S00/USDT", ORIGIN_MS, None, 1, ORIGIN_MS + 999)
    (after,) = market.klines("S00/USDT", ORIGIN_MS, None, 1, ORIGIN_MS + 1_000)
    assert before.ohlcv.close != close
    assert after.ohlcv.close == close
    assert after.ohlcv.low <= close <= after.ohlcv.high
