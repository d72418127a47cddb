"""Compare windows, history and forecasts with those of a run without faults."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pandas as pd
import pytest

from daemon.sandbox.market import Faults
from daemon.sandbox.recording import Playback
from model.core.market import MarketKey
from model.evaluation.hindcast import hindcast
from model.history.store import History
from model.registry.registry import Registry
from tests.faults.fault_harness import FaultHarness
from tests.integration.harness import frame

_OHLCV = ["open", "high", "low", "close", "volume"]

Truth = Mapping[str, pd.DataFrame]


def truth(playback: Playback, faults: Faults, until_ms: int) -> Truth:
    """The exchange's candles up to then; flat ones where nothing was traded."""
    tables = {}
    for symbol in playback.symbols:
        table = frame(playback, symbol, until_ms)
        ohlcv = table[_OHLCV].to_numpy(copy=True)
        for at, open_ms in enumerate(table["timestamp"].tolist()):
            if (symbol, open_ms) in faults.untraded:
                ohlcv[at] = [*[ohlcv[at - 1, 3]] * 4, 0.0]
        tables[symbol] = table.assign(**dict(zip(_OHLCV, ohlcv.T, strict=True)))
    return tables


def check(harness: FaultHarness) -> None:
    """Hold all that the daemon kept and published against the truth."""
    timeframe = harness.playback.timeframe
    until_ms = timeframe.floor(harness.clock.wall_ms()) + 5 * timeframe.ms
    candles = truth(harness.playback, harness.exchange.faults, until_ms)
    _check_windows(harness, candles)
    _check_history(harness, candles)
    _check_forecasts(harness, candles)


def _check_windows(harness: FaultHarness, candles: Truth) -> None:
    for window in harness.windows:
        table = candles[window.symbol]
        before = table.loc[table["timestamp"] < window.next_open_ms, _OHLCV].to_numpy()
        assert window.ohlcv().tolist() == before[-len(window) :].tolist(), window.symbol


def _check_history(harness: FaultHarness, candles: Truth) -> None:
    history = History(harness.folder / "state" / "history.sqlite")
    try:
        for symbol, table in candles.items():
            rows = table[_OHLCV].to_numpy().tolist()
            true = dict(zip(table["timestamp"].tolist(), rows, strict=True))
            market = MarketKey("binance", harness.playback.timeframe)
            for candle in history.candles(market, symbol, 10_000):
                assert list(candle.ohlcv) == true[candle.open_ms], candle
    finally:
        history.close()


def _check_forecasts(harness: FaultHarness, candles: Truth) -> None:
    """Each identity has one content, from closed candles alone, in time, and the right price."""
    registry = Registry(harness.folder / "state" / "registry")
    scored = hindcast(registry.open(registry.champion()), candles, lambda *_: None)
    symbols = list(candles)
    rows = zip(*(column.tolist() for column in scored), strict=True)
    clean = {(symbols[n], target_ms): (last, price) for n, target_ms, last, _, price in rows}
    words: dict[tuple[str, int], bytes] = {}
    for at_ms, payload in harness.published:
        forecast = json.loads(payload)
        identity = forecast["symbol"], forecast["candle_close_ms"]
        assert words.setdefault(identity, payload) == payload
        last, price = clean[identity]
        assert forecast["last_close"] == last, forecast
        assert forecast["predicted_close"] == pytest.approx(price, rel=1e-6), forecast
        assert at_ms >= forecast["candle_close_ms"], forecast
        assert at_ms <= forecast["valid_until_ms"] + harness.behind_ms, forecast
