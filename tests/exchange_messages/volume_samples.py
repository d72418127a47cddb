"""One candle by websocket and by REST, with the documented fields, for every exchange."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.exchange_messages import volume_sample as v
from tests.exchange_messages.volume_sample import Sample, open_close, row
from tests.exchange_messages.volume_samples_a_to_g import SAMPLES as SAMPLES_A_TO_G


def kraken(kind: str) -> Sample:
    begin = f"{v.AT}.000000000Z"
    data = {"symbol": "BTC/USDT", "interval": 1, "interval_begin": begin, "trades": 3, "vwap": 10.5}
    data |= {key: float(value) for key, value in v.HIGHS.items()} | {"volume": 12.5}
    message = {"channel": "ohlc", "type": "update", "data": [data]}
    answer = {
        "error": [],
        "result": {"BTCUSDT": [[v.OPEN_S, v.O, v.H, v.L, v.C, "10.5", v.BASE, 3]]},
    }
    return Sample(message, answer, url=f"wss://ws.kraken.com/v2/{kind}")


def hitbtc(kind: str) -> Sample:
    update = {"t": v.OPEN_MS, "v": v.BASE, "q": v.QUOTE} | v.SHORT
    message = {"ch": "candles/M1", "update": {"BTCUSDT": [update]}}
    line = {"timestamp": f"{v.AT}.000Z", "open": v.O, "close": v.C, "min": v.L, "max": v.H}
    line |= {"volume": v.BASE, "volume_quote": v.QUOTE}
    return Sample(message, [line], url=f"wss://api.hitbtc.com/{kind}")


def htx(kind: str) -> Sample:
    second = float(v.QUOTE if kind == "spot" else v.CONTRACTS)
    tick = {"id": v.OPEN_S, "amount": 12.5, "vol": second, "count": 3}
    tick |= {key: float(value) for key, value in v.HIGHS.items()}
    message = {"ch": "market.btcusdt.kline.1min", "ts": v.END_MS, "tick": tick}
    return Sample(message, {"status": "ok", "data": [tick]}, "btcusdt")


def hyperliquid(kind: str) -> Sample:
    name = "BTC" if kind == "linear" else "@1"
    line = {"t": v.OPEN_MS, "T": v.END_MS - 1, "s": name, "i": "1m", "v": v.BASE, "n": 3} | v.SHORT
    market: dict[str, Any] = {"baseName": name, "baseId": name, "info": {"name": name}}
    if kind == "linear":
        # ccxt finds perpetuals by their base currency alone.
        market |= {"symbol": "BTC/USDC:USDC", "quote": "USDC", "settle": "USDC"}
    answer = [line]
    market_id = "0" if kind == "linear" else name
    return Sample({"channel": "candle", "data": line}, answer, market_id, market=market)


def kucoin(kind: str) -> Sample:
    if kind == "spot":
        candles = open_close(v.BASE, v.QUOTE, at=str(v.OPEN_S))
        data: dict[str, Any] = {"symbol": "BTC-USDT", "candles": candles, "time": v.END_MS}
        message = {"topic": "/market/candles:BTC-USDT_1min", "subject": "trade.candles.update"}
        answer = {"code": "200000", "data": [candles]}
        return Sample(message | {"type": "message", "data": data}, answer, "BTC-USDT")
    candles = open_close(v.QUOTE, v.CONTRACTS, at=str(v.OPEN_S))
    data = {"symbol": "XBTUSDTM", "candles": candles, "time": v.END_MS}
    message = {"topic": "/contractMarket/limitCandle:XBTUSDTM_1min", "subject": "candle.stick"}
    answer = {"code": "200000", "data": [[v.OPEN_MS, 10.4, 10.8, 10.2, 10.6, 125, 131.25]]}
    return Sample(message | {"type": "message", "data": data}, answer, "XBTUSDTM")


def lbank(kind: str) -> Sample:
    kbar = {"a": float(v.QUOTE), "v": 12.5, "t": f"{v.AT}.000", "slot": "1min", "n": 3}
    kbar |= {key: float(value) for key, value in v.SHORT.items()}
    message = {"SERVER": "V2", "kbar": kbar, "type": "kbar", "pair": "btc_usdt", "TS": v.AT}
    answer = {"result": "true", "data": [[v.OPEN_S, 10.4, 10.8, 10.2, 10.6, 12.5]]}
    return Sample(message, answer, "btc_usdt", url=f"wss://www.lbkex.net/ws/V2/{kind}")


def mexc(kind: str) -> Sample:
    if kind == "spot":
        numbers = {key: float(value) for key, value in v.SHORT.items()}
        kline = {"t": v.OPEN_S, "T": v.OPEN_S + 60, "i": "Min1", "v": 12.5, "a": 131.25} | numbers
        inner = {"e": "spot@public.kline.v3.api", "k": kline}
        channel = "spot@public.kline.v3.api@BTCUSDT@Min1"
        message: dict[str, Any] = {"c": channel, "s": "BTCUSDT", "t": v.END_MS, "d": inner}
        return Sample(message, [row(v.BASE, v.END_MS, v.QUOTE)])
    numbers = {key: float(value) for key, value in v.SHORT.items()}
    data = {
        "symbol": "BTC_USDT",
        "interval": "Min1",
        "t": v.OPEN_S,
        "a": 131.25,
        "q": 125,
    } | numbers
    message = {"channel": "push.kline", "symbol": "BTC_USDT", "data": data, "ts": v.END_MS}
    lists = {key: [float(value)] for key, value in v.HIGHS.items()} | {"time": [v.OPEN_S]}
    answer = {"success": True, "code": 0, "data": lists | {"vol": [125.0], "amount": [131.25]}}
    return Sample(message, answer, "BTC_USDT")


def orderly(kind: str) -> Sample:
    numbers = {key: float(value) for key, value in v.HIGHS.items()}
    numbers |= {"volume": 12.5, "amount": 131.25}
    data = {"symbol": "PERP_BTC_USDC", "type": "1m", "startTime": v.OPEN_MS, "endTime": v.END_MS}
    message = {"topic": "PERP_BTC_USDC@kline_1m", "ts": v.END_MS, "data": data | numbers}
    line = numbers | {"start_timestamp": v.OPEN_MS, "startTimestamp": v.OPEN_MS}
    answer = {"success": True, "data": {"rows": [line]}}
    return Sample(message, answer, "PERP_BTC_USDC", url=f"wss://ws.orderly.org/{kind}")


def nado(kind: str) -> Sample:
    digits = {key: f"{round(float(value) * 10)}{'0' * 17}" for key, value in v.HIGHS.items()}
    scaled = {f"{key}_x18": value for key, value in digits.items()}
    line = {"product_id": 2, "granularity": 60, "timestamp": str(v.OPEN_S)}
    line |= {"volume": f"125{'0' * 17}"}
    message = {"type": "latest_candlestick"} | line | scaled
    url = f"wss://gateway.nado.xyz/{kind}"
    return Sample(message, {"candlesticks": [line | scaled]}, "2", url)


def onetrading(kind: str) -> Sample:
    granularity = {"unit": "MINUTES", "period": 1}
    common: dict[str, Any] = {"instrument_code": "BTC_USDT", "granularity": granularity}
    common |= v.HIGHS | {"volume": v.QUOTE, "time": "2026-09-21T14:14:59.999Z", "last_sequence": 7}
    message = common | {"channel_name": "CANDLESTICKS", "type": "CANDLESTICK"}
    answer = {"candlesticks": [common | {"total_amount": v.BASE}]}
    return Sample(message, answer, "BTC_USDT", url=f"wss://streams.onetrading.com/{kind}")


def viabtc(kind: str) -> Sample:
    line = [*open_close(v.BASE, v.QUOTE), "BTC_USDT"]
    url = f"wss://apiws.p2pb2b.com/{kind}"
    message = {"method": "kline.update", "params": [line], "id": None}
    return Sample(message, {"success": True, "result": [line]}, "BTC_USDT", url)


def whitebit(kind: str) -> Sample:
    sample = viabtc(kind)
    return sample._replace(stream=sample.stream | {"method": "candles_update"})


def pacifica(kind: str) -> Sample:
    line = {"t": v.OPEN_MS, "T": v.END_MS, "s": "BTC", "i": "1m", "v": v.BASE, "n": 3} | v.SHORT
    message, answer = {"channel": "candle", "data": line}, {"success": True, "data": [line]}
    return Sample(message, answer, "BTC", url=f"wss://ws.pacifica.fi/{kind}")


def phemex(kind: str) -> Sample:
    if kind == "linear":
        line: list[Any] = [v.OPEN_S, 60, v.C, v.O, v.H, v.L, v.C, v.BASE, v.QUOTE]
        message = {"kline_p": [line], "symbol": "BTCUSDT", "type": "incremental", "sequence": 7}
        return Sample(message, {"code": 0, "data": {"rows": [[*line, "BTCUSDT"]]}})
    places, volume = (8, 1_250_000_000) if kind == "spot" else (4, 125)
    prices = [round(float(value) * 10**places) for value in (v.C, v.O, v.H, v.L, v.C)]
    line = [v.OPEN_S, 60, *prices, volume, 1_312_500]
    name = "sBTCUSDT" if kind == "spot" else "BTCUSD"
    message = {"kline": [line], "symbol": name, "type": "incremental", "sequence": 7}
    market = {"priceScale": places, "valueScale": 8}
    return Sample(message, {"code": 0, "data": {"rows": [line]}}, name, market=market)


def poloniex(kind: str) -> Sample:
    data = {"symbol": "BTC_USDT", "amount": v.QUOTE, "quantity": v.BASE, "tradeCount": 3} | v.HIGHS
    data |= {"startTime": v.OPEN_MS, "closeTime": v.END_MS - 1, "ts": v.END_MS}
    message = {"channel": "candles_minute_1", "data": [data]}
    line = [
        v.L,
        v.H,
        v.O,
        v.C,
        v.QUOTE,
        v.BASE,
        "1",
        "1",
        3,
        0,
        "10.5",
        "MINUTE_1",
        v.OPEN_MS,
        v.END_MS - 1,
    ]
    return Sample(message, [line], "BTC_USDT", url=f"wss://ws.poloniex.com/ws/{kind}")


def polymarket(kind: str) -> Sample:
    message = {"ch": "klines::1::1m", "ts": v.END_MS, "sq": 7, "data": [row(v.BASE, 3)]}
    return Sample(message, {"data": [row(v.BASE, 3)]}, "1", url=f"wss://127.0.0.1/{kind}")


def upbit(kind: str) -> Sample:
    line = {"candle_date_time_utc": v.AT, "opening_price": 10.4, "high_price": 10.8}
    line |= {"low_price": 10.2, "trade_price": 10.6, "candle_acc_trade_volume": 12.5}
    line |= {"candle_acc_trade_price": 131.25, "timestamp": v.END_MS}
    message = {"type": "candle.1s", "code": "KRW-BTC", "stream_type": "REALTIME"} | line
    return Sample(message, [line | {"market": "KRW-BTC"}], "KRW-BTC", url=f"wss://u/{kind}")


def weex(kind: str) -> Sample:
    line = {
        "t": v.OPEN_MS,
        "T": v.END_MS,
        "s": "BTCUSDT",
        "i": "1m",
        "v": v.BASE,
        "q": v.QUOTE,
    } | v.SHORT
    message = {"e": "kline", "E": v.END_MS, "s": "BTCUSDT", "p": "LAST_PRICE", "d": [line]}
    host = "ws-spot" if kind == "spot" else "ws-contract"
    return Sample(
        message, [row(v.BASE, v.END_MS, v.QUOTE, 3, "1", "1")], url=f"wss://{host}.weex.com/v3"
    )


def xt(kind: str) -> Sample:
    volumes = {"q": v.BASE, "v": v.QUOTE} if kind == "spot" else {"a": v.CONTRACTS, "v": v.BASE}
    line = {"s": "btc_usdt", "t": v.OPEN_MS, "i": "1m"} | v.SHORT | volumes
    message = {"topic": "kline", "event": "kline@btc_usdt,1m", "data": line}
    answer = {"returnCode": 0, "rc": 0, "result": [line]}
    return Sample(message, answer, "btc_usdt")


SAMPLES: dict[str, Callable[[str], Sample]] = SAMPLES_A_TO_G | {
    "bequant": hitbtc,
    "bittrade": htx,
    "hitbtc": hitbtc,
    "htx": htx,
    "hyperliquid": hyperliquid,
    "kraken": kraken,
    "kucoin": kucoin,
    "kucoinfutures": kucoin,
    "lbank": lbank,
    "mexc": mexc,
    "modetrade": orderly,
    "nado": nado,
    "onetrading": onetrading,
    "p2b": viabtc,
    "pacifica": pacifica,
    "phemex": phemex,
    "poloniex": poloniex,
    "polymarket": polymarket,
    "upbit": upbit,
    "weex": weex,
    "whitebit": whitebit,
    "woo": orderly,
    "woofipro": orderly,
    "xt": xt,
}
"""By ccxt id: makes the sample of a kind of market."""
