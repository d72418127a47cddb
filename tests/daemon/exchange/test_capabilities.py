"""Unsupported exchanges, symbols and timeframes are refused before anything is sent."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, NoReturn

import ccxt.pro
import pytest

from daemon.cli.main import main
from daemon.exchange.capabilities import check_capability
from daemon.exchange.ccxt_client import check_market, make_exchange
from daemon.exchange.exchange_clock import ExchangeClock
from daemon.exchange.rest import RestClient
from daemon.exchange.source import MarketSource
from daemon.jobs.rest_pages import open_pages
from daemon.metrics.metrics import Metrics
from daemon.runtime.clock import SystemClock
from model.core.candle import Timeframe
from model.core.errors import NotOffered

SYMBOLS = ["BTC/USDT", "BTC/USDT:USDT", "BTC/USD:BTC", "BTC/USD:BTC-261225"]
WATCHED = [name for name in ccxt.pro.exchanges if getattr(ccxt.pro, name)().has.get("watchOHLCV")]


@pytest.fixture(autouse=True)
def no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call of ccxt here may open a connection or look up a name."""

    def refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
        pytest.fail("ccxt was about to use the network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def refusal(
    exchange: Any, symbol: str, timeframe: str = "1m", *, capability: str = "watchOHLCV"
) -> str | None:
    """The refusal; None where ccxt has no objection."""
    if isinstance(exchange, str):
        exchange = make_exchange(exchange)
    try:
        check_capability(exchange, [symbol], timeframe, capability=capability)
    except NotOffered as refused:
        return str(refused)
    return None


@pytest.mark.parametrize(
    ("name", "symbol", "timeframe", "expected"),
    [
        # Neither a stream nor a history.
        ("coinbase", "BTC/USDT", "1m", "coinbase has no candle stream; choose another exchange"),
        ("blockchaincom", "BTC/USD", "1m", "blockchaincom has no candle history; choose another"),
        # No candle of this length at all.
        ("binance", "BTC/USDT", "7m", "binance has no timeframe 7m; allowed: 1s, 1m, 3m"),
        ("ndax", "BTC/USD", "1m", "ndax cannot be used: ccxt takes the closing time of its"),
        # Streams have other timeframes than the history; ccxt states this in several ways.
        ("upbit", "BTC/KRW", "1m", "upbit has no candle stream at 1m; allowed: 1s"),
        ("p2b", "ETH/BTC", "1m", "p2b has no candle stream at 1m; allowed: 1h, 1d"),
        ("mudrex", "BTC/USDT:USDT", "1h", "mudrex has no candle stream at 1h; allowed: 1m"),
        (
            "woo",
            "BTC/USDT",
            "4h",
            "woo has no candle stream at 4h; allowed: 1m, 5m, 15m, 30m, 1h, 1d, 1w",
        ),
        # ccxt does not declare it: building the request fails.
        (
            "bitget",
            "BTC/USDT",
            "2h",
            "bitget has no candle stream at 2h; allowed: 1m, 3m, 5m, 15m, 30m, 1h, 4h, 6h, 12h,",
        ),
        # Candles of another kind of market alone.
        (
            "bitrue",
            "BTC/USDT",
            "1m",
            "bitrue has no candle stream of BTC/USDT (bitrue watchOHLCV is only supported for swap",
        ),
        ("lbank", "BTC/USDT:USDT", "1m", "lbank has no candle stream of BTC/USDT:USDT ("),
        ("bingx", "BTC/USDT:USDT-261225", "1m", "bingx has no candle stream of BTC/USDT:USDT-26"),
        ("binanceusdm", "BTC/USDT", "1m", "binanceusdm has no spot markets such as BTC/USDT; "),
        ("kraken", "BTC/USD:USD", "1m", "kraken has no derivatives such as BTC/USD:USD; spot "),
        # Something else that candlecast does not send.
        (
            "alpaca",
            "BTC/USD",
            "1m",
            "alpaca wants an API key for its candle stream, and candlecast has no setting for one;",
        ),
        ("woofipro", "BTC/USDC:USDC", "1m", "woofipro wants an API key for its candle history"),
        ("cex", "BTC/USD", "1m", "cex has no candle history of BTC/USD (cex fetchOHLCV requires"),
    ],
)
def test_unsupported_combinations_are_refused(
    name: str, symbol: str, timeframe: str, expected: str
) -> None:
    assert (refusal(name, symbol, timeframe) or "").startswith(expected)


@pytest.mark.parametrize(
    ("name", "symbol", "timeframe"),
    [
        ("binance", "BTC/USDT", "1s"),
        ("binance", "BTC/USDT:USDT", "1m"),
        ("binance", "BTC/USD:BTC-261225", "1m"),
        ("binanceusdm", "BTC/USDT:USDT", "1m"),
        ("okx", "BTC/USDT", "1m"),
        ("bybit", "BTC/USD:BTC", "1h"),
        ("kraken", "BTC/USD", "1m"),
        ("upbit", "BTC/KRW", "1s"),
        ("p2b", "ETH/BTC", "1h"),
        ("bitrue", "BTC/USDT:USDT", "1m"),
        ("coinbaseinternational", "BTC/USDC:USDC", "1m"),
        ("hyperliquid", "BTC/USDC:USDC", "1m"),
    ],
)
def test_supported_combinations_are_accepted(name: str, symbol: str, timeframe: str) -> None:
    assert refusal(name, symbol, timeframe) is None


def test_history_is_available_without_a_stream() -> None:
    assert refusal("coinbase", "BTC/USDT", capability="fetchOHLCV") is None
    assert refusal("upbit", "BTC/KRW", "1m", capability="fetchOHLCV") is None
    history = "blockchaincom has no candle history; choose another exchange.name"
    assert refusal("blockchaincom", "BTC/USD", capability="fetchOHLCV") == history


@pytest.mark.parametrize("name", WATCHED)
def test_every_exchange_is_refused_in_one_line_or_accepted(name: str) -> None:
    exchange = make_exchange(name)
    lines = {
        (symbol, timeframe): refusal(exchange, symbol, timeframe)
        for symbol in SYMBOLS
        for timeframe in exchange.timeframes
    }
    for line in lines.values():
        assert line is None or (line.startswith(f"{name} ") and len(line) < 400)
        assert line is None or "\n" not in line
    # The alternatives named by a refusal are accepted.
    for (symbol, _), line in lines.items():
        if line and " at " in line and "; allowed: " in line:
            for timeframe in line.partition("; allowed: ")[2].split(", "):
                assert lines[symbol, timeframe] is None


def test_loaded_markets_are_checked_and_not_changed() -> None:
    exchange = make_exchange("bitrue")
    spot = {"id": "btcusdt", "symbol": "BTC/USDT", "type": "spot", "spot": True, "swap": False}
    exchange.set_markets([spot])
    check_market(exchange, ["BTC/USDT"], "1m", capability="fetchOHLCV")
    with pytest.raises(NotOffered) as refused:
        check_market(exchange, ["BTC/USDT"], "1m", capability="watchOHLCV")
    assert str(refused.value) == refusal("bitrue", "BTC/USDT")
    assert refused.value.exit_code == 2
    # The exchange itself is as it was.
    assert exchange.markets["BTC/USDT"]["id"] == "btcusdt"
    assert not exchange.clients


async def test_daemon_and_doctor_refuse_before_they_send_anything() -> None:
    source = MarketSource("upbit", None, None, ("BTC/KRW",), Timeframe.parse("1m"))
    garbage: list[Exception] = []
    rest = RestClient(source, ExchangeClock(SystemClock()), Metrics(1), garbage.append)
    try:
        with pytest.raises(NotOffered) as refused:
            await rest.open()
    finally:
        await rest.close()
    assert str(refused.value) == refusal("upbit", "BTC/KRW")
    assert garbage == []


async def test_fetch_refuses_before_it_sends_anything() -> None:
    frame = Timeframe.parse("1m")
    with pytest.raises(NotOffered) as refused:
        async with open_pages(
            "blockchaincom", None, ("BTC/USD",), frame, SystemClock(), "try again"
        ):
            pytest.fail("there is no history")
    assert str(refused.value) == refusal("blockchaincom", "BTC/USD")


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("upbit", "BTC/KRW"),
        ("p2b", "ETH/BTC"),
        ("bitrue", "BTC/USDT"),
        ("blockchaincom", "BTC/USD"),
        ("alpaca", "BTC/USD"),
    ],
)
def test_check_config_says_the_same(
    name: str, symbol: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    trading = f"trading: {{symbols: [{symbol}], timeframe: 1m}}"
    config.write_text(f"exchange: {{name: {name}}}\n{trading}\n", encoding="utf-8")
    assert main(["check-config", "--config", str(config)]) == 2
    assert capsys.readouterr().err == f"candlecast: {refusal(name, symbol)}\n"
