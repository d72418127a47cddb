"""Candle messages of the exchanges from LBank to XT."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from tests.exchange_messages.descriptions import Bar, Message, Stream, iso, market, one


def lbank(bar: Bar) -> Message:
    kbar = {"a": bar.quote, "c": bar.close, "t": iso(bar.open_ms) + ".000", "v": bar.base,
            "h": bar.high, "slot": "1min", "l": bar.low, "n": 3, "o": bar.open}  # fmt: skip
    return {"SERVER": "V2", "kbar": kbar, "type": "kbar", "pair": "btc_usdt",
            "TS": iso(bar.open_ms + 5_000) + ".865"}  # fmt: skip


def mexc_spot(bar: Bar) -> Message:
    o, h, l, c = bar.prices  # noqa: E741
    kline = {"interval": "Min1", "windowStart": bar.open_s, "openingPrice": o, "closingPrice": c,
             "highestPrice": h, "lowestPrice": l, "volume": str(bar.base),
             "amount": str(bar.quote), "windowEnd": bar.end_ms // 1_000}  # fmt: skip
    return {"channel": "spot@public.kline.v3.api.pb@BTCUSDT@Min1", "symbol": "BTCUSDT",
            "publicSpotKline": kline}  # fmt: skip


def protobuf(message: Message) -> bytes:
    """As MEXC sends it."""
    from ccxt.protobuf.mexc import PushDataV3ApiWrapper_pb2 as wrapper

    packed: bytes = wrapper.PushDataV3ApiWrapper(**message).SerializeToString()
    return packed


def mexc_swap(bar: Bar) -> Message:
    data = {"a": bar.quote, "c": bar.close, "h": bar.high, "interval": "Min1", "l": bar.low,
            "o": bar.open, "q": bar.contracts, "rc": bar.close, "rh": bar.high, "rl": bar.low,
            "ro": bar.open, "symbol": "BTC_USDT", "t": bar.open_s}  # fmt: skip
    return {"channel": "push.kline", "data": data, "symbol": "BTC_USDT", "ts": bar.open_ms + 5}


def woo(name: str) -> Callable[[Bar], Message]:
    def update(bar: Bar) -> Message:
        data = {"symbol": name, "type": "1m", "open": bar.open, "close": bar.close,
                "high": bar.high, "low": bar.low, "volume": bar.base, "amount": bar.quote,
                "startTime": bar.open_ms, "endTime": bar.end_ms}  # fmt: skip
        return {"topic": f"{name}@kline_1m", "ts": bar.open_ms + 5, "data": data}

    return update


def mudrex(bar: Bar) -> Message:
    o, h, l, c = bar.prices  # noqa: E741
    data = {"s": "btcusdt", "t": bar.open_s, "o": o, "h": h, "l": l, "c": c, "v": str(bar.base)}
    return {"stream": "kline@1m@btcusdt", "data": data}


def nado(bar: Bar) -> Message:
    def x18(value: float) -> str:
        return str(round(value * 1_000)) + "0" * 15

    return {"type": "latest_candlestick", "timestamp": str(bar.open_s), "product_id": 2,
            "granularity": 60, "open_x18": x18(bar.open), "high_x18": x18(bar.high),
            "low_x18": x18(bar.low), "close_x18": x18(bar.close),
            "volume": x18(bar.base)}  # fmt: skip


def ndax(bar: Bar) -> Message:
    row = [bar.end_ms, bar.high, bar.low, bar.open, bar.close, bar.base, 99, 101, 1, bar.open_ms]
    return {"m": 3, "i": 2, "n": "TickerDataUpdateEvent", "o": json.dumps([row])}


def okx(channel: str, name: str) -> Callable[[Bar], Message]:
    def update(bar: Bar) -> Message:
        first = bar.base if channel == "spot" else bar.contracts
        second = bar.quote if channel == "spot" else bar.base
        row = [str(bar.open_ms), *bar.prices, str(first), str(second), str(bar.quote),
               "1" if bar.closed else "0"]  # fmt: skip
        return {"arg": {"channel": "candle1m", "instId": name}, "data": [row]}

    return update


def onetrading(bar: Bar) -> Message:
    o, h, l, c = bar.prices  # noqa: E741
    return {"instrument_code": "BTC_EUR", "granularity": {"unit": "MINUTES", "period": 1},
            "high": h, "low": l, "open": o, "close": c, "volume": str(bar.base),
            "last_sequence": 3, "channel_name": "CANDLESTICKS", "type": "CANDLESTICK",
            "time": iso(bar.end_ms - 1) + ".999000Z"}  # fmt: skip


def p2b(bar: Bar) -> Message:
    o, h, l, c = bar.prices  # noqa: E741
    row = [bar.open_s, o, c, h, l, str(bar.base), str(bar.quote), "BTC_USDT"]
    return {"method": "kline.update", "params": [row], "id": None}


def pacifica(bar: Bar) -> Message:
    o, h, l, c = bar.prices  # noqa: E741
    data = {"t": bar.open_ms, "T": bar.end_ms, "s": "BTC", "i": "1m", "o": o, "c": c, "h": h,
            "l": l, "v": str(bar.base), "n": 3}  # fmt: skip
    return {"channel": "candle", "data": data}


def phemex_spot(bars: Sequence[Bar]) -> Message:
    def scaled(value: float) -> int:
        return round(value * 100_000_000)

    rows = [
        [bar.open_s, 60, scaled(bar.open), scaled(bar.open), scaled(bar.high), scaled(bar.low),
         scaled(bar.close), scaled(bar.base), scaled(bar.quote)]
        for bar in reversed(bars)
    ]  # fmt: skip
    return {"kline": rows, "sequence": 3, "symbol": "sBTCUSDT", "type": "snapshot"}


def phemex_swap(bars: Sequence[Bar]) -> Message:
    rows = [
        [bar.open_s, 60, str(bar.open), *bar.prices, str(bar.base), str(bar.quote)]
        for bar in reversed(bars)
    ]
    return {"kline_p": rows, "sequence": 3, "symbol": "BTCUSDT", "type": "snapshot"}


def poloniex(bar: Bar) -> Message:
    o, h, l, c = bar.prices  # noqa: E741
    row = {"symbol": "BTC_USDT", "amount": str(bar.quote), "high": h, "quantity": str(bar.base),
           "tradeCount": 3, "low": l, "closeTime": bar.end_ms - 1, "startTime": bar.open_ms,
           "close": c, "open": o, "ts": bar.open_ms + 5}  # fmt: skip
    return {"channel": "candles_minute_1", "data": [row]}


def polymarket(bar: Bar) -> Message:
    row = [bar.open_ms, *bar.prices, str(bar.base), 3]
    return {"ch": "klines::1::1m", "ts": bar.open_ms + 5, "ets": bar.open_ms + 5, "sq": 3,
            "data": [row]}  # fmt: skip


def toobit(name: str, volume: str) -> Callable[[Bar], Message]:
    def update(bar: Bar) -> Message:
        o, h, l, c = bar.prices  # noqa: E741
        row = {"t": bar.open_ms, "s": name, "sn": name, "c": c, "h": h, "l": l, "o": o,
               "v": str(getattr(bar, volume)), "st": 0}  # fmt: skip
        return {"symbol": name, "symbolName": name, "klineType": "1m", "topic": "kline",
                "params": {"realtimeInterval": "24h", "klineType": "1m", "binary": "false"},
                "data": [row], "f": True, "sendTime": bar.open_ms + 5, "shared": False}  # fmt: skip

    return update


def upbit(bar: Bar) -> Message:
    return {"type": "candle.1s", "code": "KRW-BTC", "candle_date_time_utc": iso(bar.open_ms),
            "candle_date_time_kst": iso(bar.open_ms + 9 * 3_600_000), "opening_price": bar.open,
            "high_price": bar.high, "low_price": bar.low, "trade_price": bar.close,
            "candle_acc_trade_volume": bar.base, "candle_acc_trade_price": bar.quote,
            "timestamp": bar.open_ms + 5, "stream_type": "REALTIME"}  # fmt: skip


def weex(bar: Bar) -> Message:
    o, h, l, c = bar.prices  # noqa: E741
    row = {"t": bar.open_ms, "T": bar.end_ms, "s": "BTCUSDT", "i": "1m", "o": o, "c": c, "h": h,
           "l": l, "v": str(bar.base), "n": 3, "q": str(bar.quote), "V": "1", "Q": "1"}  # fmt: skip
    return {"e": "kline", "E": bar.open_ms + 5, "s": "BTCUSDT", "p": "LAST_PRICE", "d": [row]}


def whitebit(bar: Bar) -> Message:
    o, h, l, c = bar.prices  # noqa: E741
    row = [bar.open_s, o, c, h, l, str(bar.base), str(bar.quote), "BTC_USDT"]
    return {"method": "candles_update", "params": [row], "id": None}


def xt_spot(bar: Bar) -> Message:
    o, h, l, c = bar.prices  # noqa: E741
    data = {"s": "btc_usdt", "t": bar.open_ms, "i": "1m", "o": o, "c": c, "h": h, "l": l,
            "q": str(bar.base), "v": str(bar.quote)}  # fmt: skip
    return {"topic": "kline", "event": "kline@btc_usdt,1m", "data": data}


def xt_swap(bar: Bar) -> Message:
    o, h, l, c = bar.prices  # noqa: E741
    data = {"s": "btc_usdt", "o": o, "c": c, "h": h, "l": l, "a": str(bar.contracts),
            "v": str(bar.quote), "ch": "0.2", "t": bar.open_ms}  # fmt: skip
    return {"topic": "kline", "event": "kline@btc_usdt,1m", "data": data}


OKX_SPOT = market("BTC/USDT", "BTC-USDT")
WEEX_SPOT = market("BTC/USDT", "BTCUSDT")
WEEX_LINEAR = market("BTC/USDT:USDT", "BTCUSDT")
XT_SPOT = market("BTC/USDT", "btc_usdt")
XT_LINEAR = market("BTC/USDT:USDT", "btc_usdt")
PHEMEX_SPOT = market("BTC/USDT", "sBTCUSDT", info={"priceScale": "8", "ratioScale": "8"},
                     priceScale=8, valueScale=8)  # fmt: skip

STREAMS: list[Stream] = [
    Stream("lbank", market("BTC/USDT", "btc_usdt"), '"kbar":"1min"', lbank,
           note="spot markets only"),
    Stream("mexc", market("BTC/USDT", "BTCUSDT"), "spot@public.kline.v3.api.pb@BTCUSDT@Min1",
           mexc_spot, packed=protobuf),
    Stream("mexc", market("BTC/USDT:USDT", "BTC_USDT"), "sub.kline", mexc_swap,
           volume="contracts"),
    Stream("modetrade", market("BTC/USDC:USDC", "PERP_BTC_USDC"), "PERP_BTC_USDC@kline_1m",
           woo("PERP_BTC_USDC")),
    Stream("mudrex", market("BTC/USDT:USDT", "BTCUSDT"), "kline@1m@btcusdt", mudrex),
    Stream("nado", market("BTC/USDT0:USDT0", "2"), "latest_candlestick", nado),
    Stream("ndax", market("BTC/CAD", "1"), "SubscribeTicker", ndax, needs="another ccxt",
           note="ccxt takes the closing time for the opening time, in history too; refused"),
    Stream("okx", OKX_SPOT, "candle1m", okx("spot", "BTC-USDT"), flag=True),
    Stream("okx", market("BTC/USDT:USDT", "BTC-USDT-SWAP"), "candle1m",
           okx("swap", "BTC-USDT-SWAP"), flag=True),
    Stream("okx", market("BTC/USD:BTC", "BTC-USD-SWAP"), "candle1m", okx("swap", "BTC-USD-SWAP"),
           flag=True),
    Stream("okxus", OKX_SPOT, "candle1m", okx("spot", "BTC-USDT"), flag=True),
    Stream("myokx", OKX_SPOT, "candle1m", okx("spot", "BTC-USDT"), flag=True),
    Stream("onetrading", market("BTC/EUR", "BTC_EUR"), "CANDLESTICKS", onetrading,
           note="ccxt takes the closing time for the opening time; read directly"),
    Stream("p2b", market("BTC/USDT", "BTC_USDT"), "kline.subscribe", p2b, timeframe="1h"),
    Stream("pacifica", market("BTC/USDC:USDC", "BTC"), '"candle"', pacifica),
    Stream("phemex", PHEMEX_SPOT, "kline.subscribe", one(phemex_spot), phemex_spot),
    Stream("phemex", market("BTC/USDT:USDT", "BTCUSDT"), "kline_p.subscribe", one(phemex_swap),
           phemex_swap),
    Stream("poloniex", market("BTC/USDT", "BTC_USDT"), "candles_minute_1", poloniex),
    Stream("polymarket", market("BTC/PUSD:PUSD", "1"), "klines::1::1m", polymarket),
    Stream("toobit", market("BTC/USDT", "BTCUSDT"), "kline_1m", toobit("BTCUSDT", "base")),
    Stream("toobit", market("BTC/USDT:USDT", "BTC-SWAP-USDT"), "kline_1m",
           toobit("BTC-SWAP-USDT", "contracts"), volume="contracts"),
    Stream("upbit", market("BTC/KRW", "KRW-BTC"), "candle.1s", upbit, timeframe="1s",
           note="candles of one second only"),
    Stream("weex", WEEX_SPOT, "BTCUSDT@kline_1m", weex, twins=(WEEX_LINEAR,)),
    Stream("weex", WEEX_LINEAR, "BTCUSDT@kline_1m", weex, twins=(WEEX_SPOT,)),
    Stream("whitebit", market("BTC/USDT", "BTC_USDT"), "candles_subscribe", whitebit),
    Stream("woo", market("BTC/USDT", "SPOT_BTC_USDT"), "SPOT_BTC_USDT@kline_1m",
           woo("SPOT_BTC_USDT")),
    Stream("woo", market("BTC/USDT:USDT", "PERP_BTC_USDT"), "PERP_BTC_USDT@kline_1m",
           woo("PERP_BTC_USDT")),
    Stream("woofipro", market("BTC/USDC:USDC", "PERP_BTC_USDC"), "PERP_BTC_USDC@kline_1m",
           woo("PERP_BTC_USDC")),
    Stream("xt", XT_SPOT, "kline@btc_usdt,1m", xt_spot, twins=(XT_LINEAR,)),
    Stream("xt", XT_LINEAR, "kline@btc_usdt,1m", xt_swap, twins=(XT_SPOT,), volume="contracts"),
]  # fmt: skip
