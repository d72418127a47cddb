"""Candles are found in every shape of value that ccxt resolves."""

from __future__ import annotations

from typing import Any

import pytest
from ccxt.async_support.base.ws.cache import ArrayCacheByTimestamp

from daemon.exchange.resolved_candles import (
    ResolvedCandles,
    StoreIndex,
    Subscription,
    parse_resolved,
    symbols_by_name,
)
from model.core.errors import BadCandle
from tests.exchange_messages.descriptions import market

ROW = [1_764_460_800_000, 1.0, 2.0, 0.5, 1.5, 9.0]
BTC = market("BTC/USDT", "BTC_USDT")
LTC = market("LTC/USDT", "LTC_USDT")
SUBSCRIPTION = Subscription(
    symbols_by_name([BTC, LTC]), "1m", {"1m": "60", "5m": "300", "1w": "7d", "7d": "7d"}
)


def cache() -> Any:
    made = ArrayCacheByTimestamp(8)
    made.append(list(ROW))
    return made


def read(value: object, message_hash: object, stored: dict[str, Any]) -> ResolvedCandles | None:
    return parse_resolved(value, message_hash, StoreIndex(), stored, SUBSCRIPTION)


@pytest.mark.parametrize("key", ["1m", "unknown", "", None])
def test_a_cache_is_found_wherever_it_is_stored(key: str | None) -> None:
    rows = cache()
    stored = {"LTC/USDT": {"1m": cache()}, "BTC/USDT": {key: rows}}
    assert read(rows, "anything", stored) == ("BTC/USDT", key, rows)


def test_a_cache_without_a_timeframe_is_found() -> None:
    rows = cache()
    assert read(rows, "anything", {"BTC/USDT": rows}) == ("BTC/USDT", None, rows)


def test_a_cache_that_replaces_another_is_found() -> None:
    index, stored = StoreIndex(), {"BTC/USDT": {"1m": cache()}}
    for _ in range(3):
        rows = stored["BTC/USDT"]["1m"] = cache()
        assert parse_resolved(rows, "x", index, stored, SUBSCRIPTION) == ("BTC/USDT", "1m", rows)


def test_a_triple_names_its_market() -> None:
    rows = cache()
    assert read(["BTC/USDT", "1m", rows], "anything", {}) == ("BTC/USDT", "1m", rows)


@pytest.mark.parametrize("name", ["candles:BTC/USDT", "BTC_USDT@kline", "x::BTC/USDT::1m"])
@pytest.mark.parametrize("value", [list(ROW), [list(ROW)]])
def test_a_value_that_is_not_cached_is_identified_by_its_hash(name: str, value: list[Any]) -> None:
    found = read(value, name, {})
    assert found is not None
    assert (found.symbol, found.timeframe, found.rows) == ("BTC/USDT", None, [ROW])


@pytest.mark.parametrize(
    ("value", "message_hash"),
    [
        (None, "BTC/USDT"),
        ({"BTC/USDT": [ROW]}, "BTC/USDT"),
        ([], "BTC/USDT"),
        ([ROW], 7),
        ([ROW], "XBTC/USDT"),
        ([ROW], "BTC/USDT and LTC/USDT"),
        ([ROW[:4]], "BTC/USDT"),
        ([[[1.0, 2.0]] * 6], "BTC/USDT"),
    ],
)
def test_values_other_than_a_candle_of_one_market_are_ignored(
    value: object, message_hash: object
) -> None:
    assert read(value, message_hash, {}) is None


def test_a_market_is_found_by_its_symbol_its_id_and_its_pair() -> None:
    swap = market("BTC/USDT:USDT", "BTC-USDT-SWAP")
    names = symbols_by_name([swap])
    assert {names[name] for name in ("BTC/USDT:USDT", "BTC-USDT-SWAP", "BTCUSDT")} == {
        swap["symbol"]
    }


def test_a_pair_shared_by_two_markets_is_ambiguous() -> None:
    future = market("BTC/USDT:USDT", "BTCM6")
    june = future | {"symbol": "BTC/USDT:USDT-260626"}
    march = future | {"id": "BTCH6", "symbol": "BTC/USDT:USDT-260327"}
    names = symbols_by_name([june, march])
    assert "BTCUSDT" not in names
    assert names["BTCM6"] == june["symbol"]


def test_a_name_shared_by_spot_and_swap_means_the_watched_one() -> None:
    swap = market("BTC/USDT:USDT", "BTCUSDT")
    subscription = SUBSCRIPTION._replace(symbols=symbols_by_name([swap]))
    assert subscription.check(ResolvedCandles("BTC/USDT", "1m", []), "BTCUSDT") == "BTC/USDT:USDT"
    with pytest.raises(BadCandle, match="LTC/USDT, which is not watched"):
        subscription.check(ResolvedCandles("LTC/USDT", "1m", []), "LTCUSDT")


@pytest.mark.parametrize(
    ("watched", "received", "good"),
    [
        ("1m", "1m", True),
        ("1m", "5m", False),
        ("1m", "unknown", True),
        ("1m", None, True),
        ("1w", "7d", True),
    ],
)
def test_another_timeframe_is_refused(watched: str, received: str | None, *, good: bool) -> None:
    subscription, found = (
        SUBSCRIPTION._replace(timeframe=watched),
        ResolvedCandles("BTC/USDT", received, []),
    )
    if good:
        assert subscription.check(found, None) == "BTC/USDT"
    else:
        with pytest.raises(BadCandle, match="of timeframe 5m instead of 1m"):
            subscription.check(found, None)
