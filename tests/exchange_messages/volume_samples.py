"""One candle by websocket and by REST, with the documented fields, for every exchange."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.exchange_messages.volume_sample import (
    AT,
    BASE,
    CONTRACTS,
    END_MS,
    HIGHS,
    OPEN_MS,
    OPEN_S,
    QUOTE,
    SHORT,
    C,
    H,
    L,
    O,
    Sample,
    open_close,
    row,
)
from tests.exchange_messages.volume_samples_a_to_g import (
    alpaca,
    apex,
    aster,
    backpack,
    binance,
    bingx,
    bitfinex,
    bitget,
    bitrue,
    bitvavo,
    blofin,
    bluehelix,
    bybit,
    bydfi,
    cryptocom,
    deepcoin,
    deribit,
    dydx,
    extended,
    gate,
    gemini,
    grvt,
    okx,
)


def kraken(kind: str) -> Sample:
    begin = f"{AT}.000000000Z"
    data = {"symbol": "BTC/USDT", "interval": 1, "interval_begin": begin, "trades": 3, "vwap": 10.5}
    data |= {key: float(value) for key, value in HIGHS.items()} | {"volume": 12.5}
    message = {"channel": "ohlc", "type": "update", "data": [data]}
    answer = {"error": [], "result": {"BTCUSDT": [[OPEN_S, O, H, L, C, "10.5", BASE, 3]]}}
    return Sample(message, answer, url=f"wss://ws.kraken.com/v2/{kind}")


def hitbtc(kind: str) -> Sample:
    update = {"t": OPEN_MS, "v": BASE, "q": QUOTE} | SHORT
    message = {"ch": "candles/M1", "update": {"BTCUSDT": [update]}}
    line = {"timestamp": f"{AT}.000Z", "open": O, "close": C, "min": L, "max": H}
    line |= {"volume": BASE, "volume_quote": QUOTE}
    return Sample(message, [line], url=f"wss://api.hitbtc.com/{kind}")


def htx(kind: str) -> Sample:
    second = float(QUOTE if kind == "spot" else CONTRACTS)
    tick = {"id": OPEN_S, "amount": 12.5, "vol": second, "count": 3}
    tick |= {key: float(value) for key, value in HIGHS.items()}
    message = {"ch": "market.btcusdt.kline.1min", "ts": END_MS, "tick": tick}
    return Sample(message, {"status": "ok", "data": [tick]}, "btcusdt")


def hyperliquid(kind: str) -> Sample:
    name = "BTC" if kind == "linear" else "@1"
    line = {"t": OPEN_MS, "T": END_MS - 1, "s": name, "i": "1m", "v": BASE, "n": 3} | SHORT
    market: dict[str, Any] = {"baseName": name, "baseId": name, "info": {"name": name}}
    if kind == "linear":
        # ccxt finds perpetuals by their base currency alone.
        market |= {"symbol": "BTC/USDC:USDC", "quote": "USDC", "settle": "USDC"}
    answer = [line]
    market_id = "0" if kind == "linear" else name
    return Sample({"channel": "candle", "data": line}, answer, market_id, market=market)


def kucoin(kind: str) -> Sample:
    if kind == "spot":
        candles = open_close(BASE, QUOTE, at=str(OPEN_S))
        data: dict[str, Any] = {"symbol": "BTC-USDT", "candles": candles, "time": END_MS}
        message = {"topic": "/market/candles:BTC-USDT_1min", "subject": "trade.candles.update"}
        answer = {"code": "200000", "data": [candles]}
        return Sample(message | {"type": "message", "data": data}, answer, "BTC-USDT")
    candles = open_close(QUOTE, CONTRACTS, at=str(OPEN_S))
    data = {"symbol": "XBTUSDTM", "candles": candles, "time": END_MS}
    message = {"topic": "/contractMarket/limitCandle:XBTUSDTM_1min", "subject": "candle.stick"}
    answer = {"code": "200000", "data": [[OPEN_MS, 10.4, 10.8, 10.2, 10.6, 125, 131.25]]}
    return Sample(message | {"type": "message", "data": data}, answer, "XBTUSDTM")


def lbank(kind: str) -> Sample:
    kbar = {"a": float(QUOTE), "v": 12.5, "t": f"{AT}.000", "slot": "1min", "n": 3}
    kbar |= {key: float(value) for key, value in SHORT.items()}
    message = {"SERVER": "V2", "kbar": kbar, "type": "kbar", "pair": "btc_usdt", "TS": AT}
    answer = {"result": "true", "data": [[OPEN_S, 10.4, 10.8, 10.2, 10.6, 12.5]]}
    return Sample(message, answer, "btc_usdt", url=f"wss://www.lbkex.net/ws/V2/{kind}")


def mexc(kind: str) -> Sample:
    if kind == "spot":
        numbers = {key: float(value) for key, value in SHORT.items()}
        kline = {"t": OPEN_S, "T": OPEN_S + 60, "i": "Min1", "v": 12.5, "a": 131.25} | numbers
        inner = {"e": "spot@public.kline.v3.api", "k": kline}
        channel = "spot@public.kline.v3.api@BTCUSDT@Min1"
        message: dict[str, Any] = {"c": channel, "s": "BTCUSDT", "t": END_MS, "d": inner}
        return Sample(message, [row(BASE, END_MS, QUOTE)])
    numbers = {key: float(value) for key, value in SHORT.items()}
    data = {"symbol": "BTC_USDT", "interval": "Min1", "t": OPEN_S, "a": 131.25, "q": 125} | numbers
    message = {"channel": "push.kline", "symbol": "BTC_USDT", "data": data, "ts": END_MS}
    lists = {key: [float(value)] for key, value in HIGHS.items()} | {"time": [OPEN_S]}
    answer = {"success": True, "code": 0, "data": lists | {"vol": [125.0], "amount": [131.25]}}
    return Sample(message, answer, "BTC_USDT")


def orderly(kind: str) -> Sample:
    numbers = {key: float(value) for key, value in HIGHS.items()}
    numbers |= {"volume": 12.5, "amount": 131.25}
    data = {"symbol": "PERP_BTC_USDC", "type": "1m", "startTime": OPEN_MS, "endTime": END_MS}
    message = {"topic": "PERP_BTC_USDC@kline_1m", "ts": END_MS, "data": data | numbers}
    line = numbers | {"start_timestamp": OPEN_MS, "startTimestamp": OPEN_MS}
    answer = {"success": True, "data": {"rows": [line]}}
    return Sample(message, answer, "PERP_BTC_USDC", url=f"wss://ws.orderly.org/{kind}")


def nado(kind: str) -> Sample:
    digits = {key: f"{round(float(value) * 10)}{'0' * 17}" for key, value in HIGHS.items()}
    scaled = {f"{key}_x18": value for key, value in digits.items()}
    line = {"product_id": 2, "granularity": 60, "timestamp": str(OPEN_S)}
    line |= {"volume": f"125{'0' * 17}"}
    message = {"type": "latest_candlestick"} | line | scaled
    url = f"wss://gateway.nado.xyz/{kind}"
    return Sample(message, {"candlesticks": [line | scaled]}, "2", url)


def onetrading(kind: str) -> Sample:
    granularity = {"unit": "MINUTES", "period": 1}
    common: dict[str, Any] = {"instrument_code": "BTC_USDT", "granularity": granularity}
    common |= HIGHS | {"volume": QUOTE, "time": "2026-09-21T14:14:59.999Z", "last_sequence": 7}
    message = common | {"channel_name": "CANDLESTICKS", "type": "CANDLESTICK"}
    answer = {"candlesticks": [common | {"total_amount": BASE}]}
    return Sample(message, answer, "BTC_USDT", url=f"wss://streams.onetrading.com/{kind}")


def viabtc(kind: str) -> Sample:
    line = [*open_close(BASE, QUOTE), "BTC_USDT"]
    url = f"wss://apiws.p2pb2b.com/{kind}"
    message = {"method": "kline.update", "params": [line], "id": None}
    return Sample(message, {"success": True, "result": [line]}, "BTC_USDT", url)


def whitebit(kind: str) -> Sample:
    sample = viabtc(kind)
    return sample._replace(stream=sample.stream | {"method": "candles_update"})


def pacifica(kind: str) -> Sample:
    line = {"t": OPEN_MS, "T": END_MS, "s": "BTC", "i": "1m", "v": BASE, "n": 3} | SHORT
    message, answer = {"channel": "candle", "data": line}, {"success": True, "data": [line]}
    return Sample(message, answer, "BTC", url=f"wss://ws.pacifica.fi/{kind}")


def phemex(kind: str) -> Sample:
    if kind == "linear":
        line: list[Any] = [OPEN_S, 60, C, O, H, L, C, BASE, QUOTE]
        message = {"kline_p": [line], "symbol": "BTCUSDT", "type": "incremental", "sequence": 7}
        return Sample(message, {"code": 0, "data": {"rows": [[*line, "BTCUSDT"]]}})
    places, volume = (8, 1_250_000_000) if kind == "spot" else (4, 125)
    prices = [round(float(value) * 10**places) for value in (C, O, H, L, C)]
    line = [OPEN_S, 60, *prices, volume, 1_312_500]
    name = "sBTCUSDT" if kind == "spot" else "BTCUSD"
    message = {"kline": [line], "symbol": name, "type": "incremental", "sequence": 7}
    market = {"priceScale": places, "valueScale": 8}
    return Sample(message, {"code": 0, "data": {"rows": [line]}}, name, market=market)


def poloniex(kind: str) -> Sample:
    data = {"symbol": "BTC_USDT", "amount": QUOTE, "quantity": BASE, "tradeCount": 3} | HIGHS
    data |= {"startTime": OPEN_MS, "closeTime": END_MS - 1, "ts": END_MS}
    message = {"channel": "candles_minute_1", "data": [data]}
    line = [L, H, O, C, QUOTE, BASE, "1", "1", 3, 0, "10.5", "MINUTE_1", OPEN_MS, END_MS - 1]
    return Sample(message, [line], "BTC_USDT", url=f"wss://ws.poloniex.com/ws/{kind}")


def polymarket(kind: str) -> Sample:
    message = {"ch": "klines::1::1m", "ts": END_MS, "sq": 7, "data": [row(BASE, 3)]}
    return Sample(message, {"data": [row(BASE, 3)]}, "1", url=f"wss://127.0.0.1/{kind}")


def upbit(kind: str) -> Sample:
    line = {"candle_date_time_utc": AT, "opening_price": 10.4, "high_price": 10.8}
    line |= {"low_price": 10.2, "trade_price": 10.6, "candle_acc_trade_volume": 12.5}
    line |= {"candle_acc_trade_price": 131.25, "timestamp": END_MS}
    message = {"type": "candle.1s", "code": "KRW-BTC", "stream_type": "REALTIME"} | line
    return Sample(message, [line | {"market": "KRW-BTC"}], "KRW-BTC", url=f"wss://u/{kind}")


def weex(kind: str) -> Sample:
    line = {"t": OPEN_MS, "T": END_MS, "s": "BTCUSDT", "i": "1m", "v": BASE, "q": QUOTE} | SHORT
    message = {"e": "kline", "E": END_MS, "s": "BTCUSDT", "p": "LAST_PRICE", "d": [line]}
    host = "ws-spot" if kind == "spot" else "ws-contract"
    return Sample(message, [row(BASE, END_MS, QUOTE, 3, "1", "1")], url=f"wss://{host}.weex.com/v3")


def xt(kind: str) -> Sample:
    volumes = {"q": BASE, "v": QUOTE} if kind == "spot" else {"a": CONTRACTS, "v": BASE}
    line = {"s": "btc_usdt", "t": OPEN_MS, "i": "1m"} | SHORT | volumes
    message = {"topic": "kline", "event": "kline@btc_usdt,1m", "data": line}
    answer = {"returnCode": 0, "rc": 0, "result": [line]}
    return Sample(message, answer, "btc_usdt")


SAMPLES: dict[str, Callable[[str], Sample]] = {
    "alpaca": alpaca,
    "apex": apex,
    "aster": aster,
    "backpack": backpack,
    "bequant": hitbtc,
    "binance": binance,
    "binancecoinm": binance,
    "binanceus": binance,
    "binanceusdm": binance,
    "bingx": bingx,
    "bitfinex": bitfinex,
    "bitget": bitget,
    "bitrue": bitrue,
    "bittrade": htx,
    "bitvavo": bitvavo,
    "blofin": blofin,
    "bybit": bybit,
    "bybiteu": bybit,
    "bybitid": bybit,
    "bydfi": bydfi,
    "coinbaseinternational": deribit,
    "cryptocom": cryptocom,
    "deepcoin": deepcoin,
    "deribit": deribit,
    "dydx": dydx,
    "extended": extended,
    "gate": gate,
    "gateeu": gate,
    "gemini": gemini,
    "grvt": grvt,
    "hashkey": bluehelix,
    "hitbtc": hitbtc,
    "htx": htx,
    "hyperliquid": hyperliquid,
    "kraken": kraken,
    "kucoin": kucoin,
    "kucoinfutures": kucoin,
    "lbank": lbank,
    "mexc": mexc,
    "modetrade": orderly,
    "myokx": okx,
    "nado": nado,
    "okx": okx,
    "okxus": okx,
    "onetrading": onetrading,
    "p2b": viabtc,
    "pacifica": pacifica,
    "phemex": phemex,
    "poloniex": poloniex,
    "polymarket": polymarket,
    "toobit": bluehelix,
    "upbit": upbit,
    "weex": weex,
    "whitebit": whitebit,
    "woo": orderly,
    "woofipro": orderly,
    "xt": xt,
}
"""By ccxt id: makes the sample of a kind of market."""
