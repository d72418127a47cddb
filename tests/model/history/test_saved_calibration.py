"""Test calibration states and scalers in the history, and their pruning."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from model.core.market import MarketKey
from model.history.rows import FittedScaler, Rows
from model.history.store import History

MARKET = MarketKey.parse("binance", "1m")
OLD, NEW = ("v1", "a" * 64), ("v2", "b" * 64)
T0 = 1_776_859_560_000
DAY_MS = 86_400_000


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with closing(History(tmp_path / "history.sqlite")) as opened:
        yield opened


def test_each_market_and_model_has_its_own_and_the_newest_stays(history: History) -> None:
    assert history.calibration(MARKET, OLD[1]) == {}
    history.save_calibration(MARKET, OLD, (T0, {"A/U": b"1", "B/U": b"2"}))
    history.save_calibration(MARKET, NEW, (T0, {"A/U": b"3"}))
    history.save_calibration(MarketKey.parse("kraken", "1m"), OLD, (T0, {"A/U": b"4"}))
    history.save_calibration(MARKET, OLD, (T0 + 1000, {"A/U": b"\x00\xff"}))
    assert history.calibration(MARKET, OLD[1]) == {"A/U": b"\x00\xff", "B/U": b"2"}
    assert history.calibration(MARKET, NEW[1]) == {"A/U": b"3"}
    assert history.calibration(MarketKey.parse("kraken", "1m"), OLD[1]) == {"A/U": b"4"}
    assert history.calibration(MarketKey.parse("kraken", "5m"), OLD[1]) == {}


def test_old_states_are_pruned(history: History) -> None:
    history.save_calibration(MARKET, OLD, (T0, {"A/U": b"1"}))
    history.save_calibration(MARKET, NEW, (T0 + 2 * DAY_MS, {"A/U": b"2"}))
    assert history.prune(1.0, T0 + 2 * DAY_MS) == 1
    assert history.calibration(MARKET, OLD[1]) == {}
    assert history.calibration(MARKET, NEW[1]) == {"A/U": b"2"}


def test_every_day_keeps_its_last_state_and_the_newest_is_restored(history: History) -> None:
    for saved_ms, state in ((T0, b"1"), (T0 + 1000, b"2"), (T0 + DAY_MS, b"3")):
        history.save_calibration(MARKET, OLD, (saved_ms, {"A/U": state}))
    history.save_calibration(MARKET, OLD, (T0 + 2000, {"B/U": b"4"}))
    assert history.calibration(MARKET, OLD[1]) == {"A/U": b"3", "B/U": b"4"}
    assert history.prune(1.0, T0 + 2 * DAY_MS) == 2
    assert history.calibration(MARKET, OLD[1]) == {"A/U": b"3"}


def test_fitted_scalers_stay_as_long_as_their_model_is_remembered(history: History) -> None:
    def fitted(symbol: str, fitted_ms: int, state: bytes) -> FittedScaler:
        return FittedScaler(OLD, symbol, fitted_ms, state)

    history.add(MARKET, Rows(scalers=[fitted("A/U", T0, b"1"), fitted("B/U", T0, b"2")]))
    history.add(MARKET, Rows(scalers=[fitted("A/U", T0 + 1, b"3")]))
    assert history.scalers(MARKET, OLD[1]) == {"A/U": b"3", "B/U": b"2"}
    assert (
        history.scalers(MARKET, NEW[1])
        == history.scalers(MarketKey.parse("okx", "1m"), OLD[1])
        == {}
    )
    history.save_calibration(MARKET, OLD, (T0 + 9 * DAY_MS, {"A/U": b"9"}))
    assert history.prune(1.0, T0 + 9 * DAY_MS) == 1
    assert history.scalers(MARKET, OLD[1]) == {"A/U": b"3"}
