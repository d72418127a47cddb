"""Candle messages of the exchanges from Alpaca to BYDFi."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence

from tests.exchange_messages.descriptions import Bar, Message, Stream, iso, market, one


def gzipped(message: Message) -> bytes:
    """As exchanges send it that pack every message."""
    return gzip.compress(json.dumps(message).encode())


def alpaca(bar: Bar) -> Message:
    return [
        {"T": "b", "S": "BTC/USD", "o": bar.open, "h": bar.high, "l": bar.low, "c": bar.close,
         "v": bar.base, "t": iso(bar.open_ms) + "Z", "n": 3, "vw": bar.open}
    ]  # fmt: skip


def apex(bar: Bar) -> Message:
    o, h, l, c = bar.prices  # noqa: E741
    row = {"start": bar.open_ms, "end": bar.end_ms - 1, "interval": "1", "open": o, "close": c,
           "high": h, "low": l, "volume": str(bar.base), "turnover": str(bar.quote),
           "confirm": bar.closed, "timestamp": bar.open_ms + 5}  # fmt: skip
    return {"topic": "candle.1.BTCUSDT", "data": [row], "ts": bar.open_ms + 5, "type": "snapshot"}


def binance(bar: Bar) -> Message:
    o, h, l, c = bar.prices  # noqa: E741
    kline = {"t": bar.open_ms, "T": bar.end_ms - 1, "s": "BTCUSDT", "i": "1m", "f": 1, "L": 3,
             "o": o, "c": c, "h": h, "l": l, "v": str(bar.base), "n": 3, "x": bar.closed,
             "q": str(bar.quote), "V": "1", "Q": "1", "B": "0"}  # fmt: skip
    return {"e": "kline", "E": bar.open_ms + 5, "s": "BTCUSDT", "k": kline}


def binance_inverse(bar: Bar) -> Message:
    message = binance(bar)
    message["s"] = message["k"]["s"] = "BTCUSD_PERP"
    message["k"] |= {"v": str(bar.contracts), "q": str(bar.base)}
    return message


def backpack(market_id: str) -> Callable[[Bar], Message]:
    def update(bar: Bar) -> Message:
        o, h, l, c = bar.prices  # noqa: E741
        kline = {"e": "kline", "E": bar.open_ms * 1_000, "s": market_id, "t": iso(bar.open_ms),
                 "T": iso(bar.end_ms), "o": o, "c": c, "h": h, "l": l, "v": str(bar.base),
                 "n": 3, "X": bar.closed}  # fmt: skip
        return {"data": kline, "stream": f"kline.1m.{market_id}"}

    return update


def bingx_spot(bar: Bar) -> Message:
    o, h, l, c = bar.prices  # noqa: E741
    kline = {"T": bar.end_ms - 1, "t": bar.open_ms, "c": c, "h": h, "l": l, "o": o, "i": "1min",
             "n": 3, "q": str(bar.quote), "s": "BTC-USDT", "v": str(bar.base)}  # fmt: skip
    data = {"E": bar.open_ms + 5, "K": kline, "e": "kline", "s": "BTC-USDT"}
    return {"code": 0, "data": data, "dataType": "BTC-USDT@kline_1min", "success": True}


def bingx_linear(bar: Bar) -> Message:
    o, h, l, c = bar.prices  # noqa: E741
    row = {"c": c, "o": o, "h": h, "l": l, "v": str(bar.base), "T": bar.open_ms}
    return {"code": 0, "dataType": "BTC-USDT@kline_1m", "s": "BTC-USDT", "data": [row]}


def bingx_inverse(bar: Bar) -> Message:
    data = {"t": bar.open_ms, "o": bar.open, "c": bar.close, "l": bar.low, "h": bar.high,
            "a": bar.base, "v": bar.contracts, "u": 3, "s": "BTC-USD"}  # fmt: skip
    return {"code": 0, "timestamp": bar.open_ms, "dataType": "BTC-USD@kline_1m", "data": data}


def _bitfinex_row(bar: Bar) -> list[float]:
    return [bar.open_ms, bar.open, bar.close, bar.high, bar.low, bar.base]


def bitfinex(bar: Bar) -> Message:
    return [341527, _bitfinex_row(bar)]


def bitfinex_snapshot(bars: Sequence[Bar]) -> Message:
    return [341527, [_bitfinex_row(bar) for bar in reversed(bars)]]


def _bitfinex_subscribed(market_id: str) -> Message:
    return {"event": "subscribed", "channel": "candles", "chanId": 341527,
            "key": f"trade:1m:{market_id}"}  # fmt: skip


def bitget(kind: str, action: str = "update") -> Callable[[Sequence[Bar]], Message]:
    def rows(bars: Sequence[Bar]) -> Message:
        arg = {"instType": kind, "channel": "candle1m", "instId": "BTCUSDT"}
        data = [
            [str(bar.open_ms), *bar.prices, str(bar.base), str(bar.quote), str(bar.quote)]
            for bar in bars
        ]
        return {"action": action, "arg": arg, "data": data, "ts": bars[-1].open_ms + 5}

    return rows


def bitrue(bar: Bar) -> Message:
    tick = {"amount": bar.quote, "close": bar.close, "ds": iso(bar.open_ms, "%Y-%m-%d %H:%M:%S"),
            "high": bar.high, "id": bar.open_s, "low": bar.low, "open": bar.open,
            "vol": bar.contracts}  # fmt: skip
    return {"channel": "market_e_btcusdt_kline_1min", "data": [], "tick": tick,
            "ts": bar.open_ms + 5, "status": "ok"}  # fmt: skip


def huobi(channel: str) -> Callable[[Bar], Message]:
    def update(bar: Bar) -> Message:
        tick = {"id": bar.open_s, "open": bar.open, "close": bar.close, "low": bar.low,
                "high": bar.high, "amount": bar.base, "vol": bar.quote, "count": 3}  # fmt: skip
        return {"ch": channel, "ts": bar.open_ms + 5, "tick": tick}

    return update


def bitvavo(bar: Bar) -> Message:
    row = [bar.open_ms, *bar.prices, str(bar.base)]
    return {"event": "candle", "market": "BTC-EUR", "interval": "1m", "candle": [row]}


def blockchaincom(bar: Bar) -> Message:
    price = [bar.open_ms, bar.open, bar.high, bar.low, bar.close, bar.base]
    return {"seqnum": 2, "event": "updated", "channel": "prices", "symbol": "BTC-USD",
            "price": price}  # fmt: skip


def blofin(bar: Bar) -> Message:
    row = [str(bar.open_ms), *bar.prices, str(bar.contracts), str(bar.base), str(bar.quote),
           "1" if bar.closed else "0"]  # fmt: skip
    return {"arg": {"channel": "candle1m", "instId": "BTC-USDT"}, "data": [row]}


def bybit(volume: str, turnover: str, market_id: str = "BTCUSDT") -> Callable[[Bar], Message]:
    def update(bar: Bar) -> Message:
        o, h, l, c = bar.prices  # noqa: E741
        row = {"start": bar.open_ms, "end": bar.end_ms - 1, "interval": "1", "open": o,
               "close": c, "high": h, "low": l, "volume": str(getattr(bar, volume)),
               "turnover": str(getattr(bar, turnover)), "confirm": bar.closed,
               "timestamp": bar.open_ms + 5}  # fmt: skip
        return {"topic": f"kline.1.{market_id}", "data": [row], "type": "snapshot"}

    return update


def bydfi(bar: Bar) -> Message:
    return {"s": "BTC-USDT", "c": bar.close, "t": bar.open_ms, "T": bar.end_ms, "e": "kline",
            "v": bar.contracts, "h": bar.high, "i": "1m", "l": bar.low, "o": bar.open}  # fmt: skip


SPOT = market("BTC/USDT", "BTCUSDT")
LINEAR = market("BTC/USDT:USDT", "BTCUSDT")
INVERSE = market("BTC/USD:BTC", "BTCUSD")
PERP = market("BTC/USD:BTC", "BTCUSD_PERP")
BINGX_SPOT = market("BTC/USDT", "BTC-USDT")
BINGX_LINEAR = market("BTC/USDT:USDT", "BTC-USDT")

STREAMS: list[Stream] = [
    Stream("alpaca", market("BTC/USD", "BTC/USD"), "bars", alpaca, needs="an API key"),
    Stream("apex", market("BTC/USDT:USDT", "BTC-USDT", id2="BTCUSDT"), "candle.1.BTCUSDT", apex,
           flag=True),
    Stream("aster", SPOT, "btcusdt@kline_1m", binance, twins=(LINEAR,), flag=True),
    Stream("aster", LINEAR, "btcusdt@kline_1m", binance, twins=(SPOT,), flag=True),
    Stream("backpack", market("BTC/USDC", "BTC_USDC"), "kline.1m.BTC_USDC", backpack("BTC_USDC"),
           flag=True, note="ccxt takes the closing time for the opening time; read directly"),
    Stream("backpack", market("BTC/USDC:USDC", "BTC_USDC_PERP"), "kline.1m.BTC_USDC_PERP",
           backpack("BTC_USDC_PERP"), flag=True,
           note="ccxt takes the closing time for the opening time; read directly"),
    Stream("binance", SPOT, "btcusdt@kline_1m", binance, twins=(LINEAR,), flag=True),
    Stream("binance", LINEAR, "btcusdt@kline_1m", binance, twins=(SPOT,), flag=True),
    Stream("binance", PERP, "btcusd_perp@kline_1m", binance_inverse, flag=True),
    Stream("binanceus", SPOT, "btcusdt@kline_1m", binance, flag=True),
    Stream("binanceusdm", LINEAR, "btcusdt@kline_1m", binance, flag=True),
    Stream("binancecoinm", PERP, "btcusd_perp@kline_1m", binance_inverse, flag=True),
    Stream("bingx", BINGX_SPOT, "BTC-USDT@kline_1min", bingx_spot, packed=gzipped,
           twins=(BINGX_LINEAR,)),
    Stream("bingx", BINGX_LINEAR, "BTC-USDT@kline_1m", bingx_linear, packed=gzipped,
           twins=(BINGX_SPOT,)),
    Stream("bingx", market("BTC/USD:BTC", "BTC-USD"), "BTC-USD@kline_1m", bingx_inverse,
           packed=gzipped, volume="contracts", host="open-api-cswap-ws.bingx.com"),
    Stream("bitfinex", market("BTC/USD", "tBTCUSD"), "trade:1m:tBTCUSD", bitfinex,
           bitfinex_snapshot, (_bitfinex_subscribed("tBTCUSD"),)),
    Stream("bitfinex", market("BTC/USDT:USDT", "tBTCF0:USTF0"), "trade:1m:tBTCF0:USTF0", bitfinex,
           bitfinex_snapshot, (_bitfinex_subscribed("tBTCF0:USTF0"),)),
    Stream("bitget", SPOT, "candle1m", one(bitget("SPOT")), bitget("SPOT", "snapshot"),
           twins=(LINEAR,)),
    Stream("bitget", LINEAR, "candle1m", one(bitget("USDT-FUTURES")),
           bitget("USDT-FUTURES", "snapshot"), twins=(SPOT,)),
    Stream("bitrue", market("BTC/USDT:USDT", "E-BTC-USDT"), "market_e_btcusdt_kline_1min", bitrue,
           volume="contracts", note="swap markets only"),
    Stream("bittrade", market("BTC/JPY", "btcjpy"), "market.btcjpy.kline.1min",
           huobi("market.btcjpy.kline.1min"), packed=gzipped),
    Stream("bitvavo", market("BTC/EUR", "BTC-EUR"), "BTC-EUR", bitvavo),
    Stream("blockchaincom", market("BTC/USD", "BTC-USD"), "prices", blockchaincom,
           before=({"seqnum": 0, "event": "subscribed", "channel": "prices", "symbol": "BTC-USD",
                    "granularity": 60},),
           note="no candle history by REST: windows cannot be filled"),
    Stream("blofin", market("BTC/USDT:USDT", "BTC-USDT"), "candle1m", blofin, flag=True),
    Stream("bybit", SPOT, "kline.1.BTCUSDT", bybit("base", "quote"), twins=(LINEAR,), flag=True),
    Stream("bybit", LINEAR, "kline.1.BTCUSDT", bybit("base", "quote"), twins=(SPOT,), flag=True),
    Stream("bybit", INVERSE, "kline.1.BTCUSD", bybit("contracts", "base", "BTCUSD"), flag=True),
    Stream("bybiteu", SPOT, "kline.1.BTCUSDT", bybit("base", "quote"), flag=True),
    Stream("bybitid", SPOT, "kline.1.BTCUSDT", bybit("base", "quote"), flag=True),
    Stream("bydfi", market("BTC/USDT:USDT", "BTC-USDT"), "BTC-USDT@kline_1m", bydfi,
           volume="contracts"),
]  # fmt: skip
