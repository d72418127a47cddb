"""Stream and history count volume in the same unit, for every exchange and kind of market."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ccxt.pro
import pytest

from daemon.exchange.ccxt_client import make_exchange
from daemon.exchange.ccxt_tap import tapped_class
from daemon.exchange.source import market_fields, parse_symbol
from daemon.exchange.volume_units import VOLUME_UNITS, Alignment, Unit, VolumeUnit, is_unit_known
from tests.exchange_messages.volume_sample import BASE, CONTRACTS, OPEN_MS, QUOTE, Sample
from tests.exchange_messages.volume_samples import SAMPLES
from tests.support.ccxt_connection import FakeConnection
from tests.support.recording_listener import RecordingListener

VOLUMES = {Unit.BASE: float(BASE), Unit.QUOTE: float(QUOTE), Unit.CONTRACTS: float(CONTRACTS)}
COMPARED = [
    row for row in VOLUME_UNITS if row.alignment not in {Alignment.MEASURED, Alignment.NO_HISTORY}
]

WITH_EXPIRY = [
    row
    for row in COMPARED
    if row.kind != "spot"
    and row.exchange
    in {
        *("binance", "binancecoinm", "binanceusdm", "bitget", "bybit", "bybitid", "cryptocom"),
        *(
            "coinbaseinternational",
            "deribit",
            "gate",
            "htx",
            "kucoin",
            "kucoinfutures",
            "okx",
            "xt",
        ),
    }
]


class ResolvingLine(FakeConnection):
    """A connection that keeps what ccxt resolves."""

    def __init__(self, sample: Sample) -> None:
        super().__init__()
        self.url = sample.url
        self.subscriptions |= sample.subscriptions
        self.resolved: list[Any] = []

    def resolve(self, result: object, _hash: object = None) -> object:
        self.resolved.append(result)
        return result

    def volume(self) -> float:
        """Of the newest row that was resolved; perhaps beside its symbol and timeframe."""
        result = self.resolved[-1]
        while isinstance(result[-1], list):
            result = result[-1]
        return float(result[5])


def market_of(kind: str, sample: Sample, *, dated: bool = False) -> dict[str, Any]:
    """A ccxt market, as far as candles need it."""
    contract = {"spot": "", "linear": ":USDT", "inverse": ":BTC"}[kind]
    symbol = f"BTC/USDT{contract}" + ("-271231" if dated else "")
    market = market_fields(symbol) | {
        "id": sample.market_id,
        "contractSize": 0.1 if contract else None,
        "expiry": 1_830_211_200_000 if dated else None,
    }
    return market | dict(sample.market)


def knowing(exchange: Any, market: dict[str, Any]) -> Any:
    """An exchange that has loaded this market alone."""
    exchange.set_markets([exchange.safe_market_structure(market) | market])
    return exchange


def streamed(name: str, sample: Sample, market: dict[str, Any]) -> float:
    """The volume that the daemon reads from the stream."""
    listener, line = RecordingListener(), ResolvingLine(sample)
    exchange = knowing(make_exchange(name, wrap=lambda base: tapped_class(base, listener)), market)
    exchange.watch_candles([market["symbol"]], "1m")
    # Some classes of ccxt cannot use a cache that they have not made themselves.
    exchange.ohlcvs = {}
    exchange.handle_message(line, sample.stream)
    assert listener.errors == []
    if not listener.updates:
        return line.volume()
    values: Sequence[Any] = listener.updates[-1][2]
    return float(values[4])


async def fetched(name: str, sample: Sample, market: dict[str, Any]) -> float:
    """The volume that the daemon reads from the history."""

    async def request(*_args: object, **_more: object) -> Any:
        return sample.answer

    exchange = knowing(make_exchange(name), market)
    exchange.request = request
    try:
        (row,) = await exchange.fetch_ohlcv(market["symbol"], "1m", OPEN_MS, 1_000)
    finally:
        await exchange.close()
    return float(row[5])


async def compare(known: VolumeUnit, *, dated: bool) -> None:
    sample = SAMPLES[known.exchange](known.kind)
    market = market_of(known.kind, sample, dated=dated)
    assert parse_symbol(market["symbol"]).volume_kind == known.kind
    assert is_unit_known(known.exchange, market["symbol"])
    unit = known.stream if known.alignment is Alignment.REST_OPTION else known.rest
    assert unit is not None
    volume = VOLUMES[unit]
    assert await fetched(known.exchange, sample, market) == volume
    assert streamed(known.exchange, sample, market) == volume


@pytest.mark.parametrize("known", COMPARED, ids=lambda row: f"{row.exchange}-{row.kind}")
async def test_both_ways_give_the_volume_in_the_unit_of_the_table(known: VolumeUnit) -> None:
    await compare(known, dated=False)


@pytest.mark.parametrize("known", WITH_EXPIRY, ids=lambda row: f"{row.exchange}-{row.kind}")
async def test_futures_that_expire_count_as_perpetuals_do(known: VolumeUnit) -> None:
    await compare(known, dated=True)


async def test_a_spot_candle_of_gate_without_a_base_volume_is_refused() -> None:
    sample = SAMPLES["gate"]("spot")
    market = market_of("spot", sample)
    listener = RecordingListener()
    exchange = knowing(
        make_exchange("gate", wrap=lambda base: tapped_class(base, listener)), market
    )
    exchange.watch_candles([market["symbol"]], "1m")
    result = {key: value for key, value in sample.stream["result"].items() if key != "a"}
    exchange.handle_message(ResolvingLine(sample), sample.stream | {"result": result})
    assert listener.updates == []
    assert len(listener.errors) == 1


def test_every_exchange_that_ccxt_can_watch_candles_of_is_in_the_table() -> None:
    watched = {
        name for name in ccxt.pro.exchanges if getattr(ccxt.pro, name)().has.get("watchOHLCV")
    }
    assert {row.exchange for row in VOLUME_UNITS} == watched
    keys = [(row.exchange, row.kind) for row in VOLUME_UNITS]
    assert len(keys) == len(set(keys))


def test_a_kind_of_market_outside_the_table_is_unknown() -> None:
    assert not is_unit_known("kraken", "BTC/USD:BTC")
    assert not is_unit_known("ndax", "BTC/CAD")
    assert not is_unit_known("an exchange of tomorrow", "BTC/USDT")
