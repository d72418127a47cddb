"""The newest forecast of each symbol is kept, and read as one object."""

from __future__ import annotations

from daemon.forecast.newest_forecasts import NewestForecasts
from tests.support.sample_forecasts import batch_of, forecast_at

T0 = 1_776_859_560_000
MINUTE = 60_000


def test_the_newest_forecast_of_each_symbol_is_kept() -> None:
    newest = NewestForecasts()
    old, new, other = forecast_at(T0), forecast_at(T0 + MINUTE), forecast_at(T0, "ETH/USDT")
    for made in (old, other, new):
        newest.add(batch_of(made))
    assert dict(newest) == {"BTC/USDT": new, "ETH/USDT": other}
    assert newest["BTC/USDT"] is newest["BTC/USDT"]
    newest.keep_only(["ETH/USDT"])
    assert "BTC/USDT" not in newest
    assert newest.get("BTC/USDT") is None
    assert list(newest) == ["ETH/USDT"]
    assert len(newest) == 1
