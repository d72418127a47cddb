"""ccxt clients are created with other addresses, and their errors become one line."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import ccxt
import ccxt.pro
import pytest

from daemon.exchange.ccxt_client import (
    check_exchange,
    check_market,
    exchange_error,
    is_transient,
    make_exchange,
    network_errors,
    override_hosts,
)
from model.core.errors import ConfigError, ExchangeError

REST, WS = "http://127.0.0.1:1001", "ws://127.0.0.1:1002"


def addresses(urls: Any) -> Iterator[str]:
    if isinstance(urls, str):
        yield urls
    elif isinstance(urls, dict):
        for value in urls.values():
            yield from addresses(value)
    elif isinstance(urls, list):
        for value in urls:
            yield from addresses(value)


def test_repoint_keeps_paths_and_shapes() -> None:
    urls: dict[str, Any] = {
        "api": {
            "rest": "https://{hostname}",
            "public": "https://api.example:8443/api/v3?x=1",
            "ws": {"spot": "wss://stream.{hostname}:9443/ws", "all": ["wss://a/b", "wss://c"]},
        },
        "hostnames": {"spot": "api.example"},
        "fees": None,
    }
    assert override_hosts(urls, REST, WS) == {
        "api": {
            "rest": REST,
            "public": f"{REST}/api/v3?x=1",
            "ws": {"spot": f"{WS}/ws", "all": [f"{WS}/b", WS]},
        },
        "hostnames": {"spot": "api.example"},
        "fees": None,
    }
    assert override_hosts(urls, None, None) == urls
    assert override_hosts(urls, None, WS)["api"]["public"] == urls["api"]["public"]


@pytest.mark.parametrize("name", ccxt.pro.exchanges)
def test_every_address_of_every_exchange_is_repointed(name: str) -> None:
    exchange = make_exchange(name, REST, WS)
    escaped = [
        url
        for url in addresses(exchange.urls)
        if "://" in url and urlsplit(url).netloc not in {REST[7:], WS[5:]}
    ]
    assert escaped == []


def test_a_subclass_may_be_made_first() -> None:
    exchange = make_exchange("binance", wrap=lambda base: type("binance", (base,), {"mine": True}))
    assert exchange.mine
    assert exchange.id == "binance"
    assert exchange.enableRateLimit


def test_unknown_exchange() -> None:
    with pytest.raises(ConfigError, match=r"exchange\.name: .* 'binanse'; did you mean binance"):
        check_exchange("binanse")
    with pytest.raises(ConfigError, match="one of "):
        check_exchange("zzzzzz")


def test_unknown_symbols_list_near_ones() -> None:
    binance = make_exchange("binance")
    binance.set_markets(
        [
            {"id": symbol.replace("/", ""), "symbol": symbol, "type": "spot", "spot": True}
            for symbol in ("BTC/USDT", "BTC/EUR", "ETH/USDT")
        ]
    )
    check_market(binance, ["BTC/USDT"], "1m", capability="fetchOHLCV")
    with pytest.raises(ExchangeError, match="no symbol BTC/USD; did you mean BTC/USDT"):
        check_market(binance, ["BTC/USD"], "1m", capability="fetchOHLCV")
    with pytest.raises(ExchangeError, match="no symbol ETH/QQQQQQQQQ; it has ETH/USDT"):
        check_market(binance, ["ETH/QQQQQQQQQ"], "1m", capability="fetchOHLCV")
    for symbol in ("btc/usdt", "Btc/Usdt", "BTCUSDT", "BTC-USDT", "BTC_USDT"):
        with pytest.raises(ExchangeError, match=rf"no symbol {symbol}; did you mean BTC/USDT\?$"):
            check_market(binance, [symbol], "1m", capability="fetchOHLCV")
    with pytest.raises(ExchangeError, match="no symbol QQ/ZZ; see the exchange's own list"):
        check_market(binance, ["QQ/ZZ"], "1m", capability="fetchOHLCV")


async def test_an_unreachable_exchange_is_one_line() -> None:
    exchange = make_exchange("binance", "http://127.0.0.1:9")
    try:
        with pytest.raises(network_errors()) as caught:
            await exchange.load_markets()
    finally:
        await exchange.close()
    assert is_transient(caught.value)
    line = str(exchange_error("binance", "loading its markets", caught.value))
    assert line.startswith("binance: loading its markets: it cannot be reached (")
    assert "127.0.0.1:9" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("error", "transient", "expected"),
    [
        (ccxt.DDoSProtection("418"), False, "slow down"),
        (ccxt.RequestTimeout("binance GET"), True, "no answer in time"),
        (ccxt.BadRequest("<html>\n" * 99), False, "it refused (<html> <html>"),
    ],
)
def test_refusals(error: Exception, transient: bool, expected: str) -> None:  # noqa: FBT001
    assert is_transient(error) is transient
    line = str(exchange_error("binance", "asking", error))
    assert expected in line
    assert len(line) < 300


@pytest.mark.parametrize(
    ("name", "symbols", "expected"),
    [
        ("binance", [], ["spot", "linear", "inverse"]),
        ("binance", ["BTC/USDT", "ETH/BTC"], ["spot"]),
        ("binance", ["BTC/USDT:USDT"], ["linear"]),
        ("binance", ["BTC/USD:BTC"], ["inverse"]),
        ("binance", ["BTC/USDT", "BTC/USD:BTC-261225"], ["spot", "inverse"]),
        ("binanceusdm", ["BTC/USDT"], ["linear"]),
        ("okx", ["BTC/USDT"], ["spot"]),
        ("okx", ["BTC/USDT:USDT"], ["future", "swap"]),
        ("okx", ["BTC/USD:BTC-261225-60000-C"], ["future", "swap", "option"]),
    ],
)
def test_only_the_kinds_of_markets_asked_for_are_loaded(
    name: str, symbols: list[str], expected: list[str]
) -> None:
    exchange = make_exchange(name, symbols=symbols)
    assert exchange.options["fetchMarkets"]["types"] == expected


def test_an_exchange_without_a_choice_of_markets_loads_all_of_them() -> None:
    assert "fetchMarkets" not in make_exchange("kraken", symbols=["BTC/USD"]).options
    kinds = make_exchange("mexc", symbols=["BTC/USDT"]).options["fetchMarkets"]["types"]
    assert {"spot", "swap"} <= set(kinds)


async def test_a_new_connection_freezes_no_further_objects() -> None:
    make_exchange("binance")
    # What is frozen is never collected: once for the import, not for every exchange.
    before = gc.get_freeze_count()
    make_exchange("binance")
    assert gc.get_freeze_count() == before
