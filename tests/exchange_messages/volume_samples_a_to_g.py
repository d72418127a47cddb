"""One candle by websocket and by REST, with the documented fields: exchanges A to G, and OKX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.exchange_messages import volume_sample as v
from tests.exchange_messages.volume_sample import Sample, row


def binance(kind: str) -> Sample:
    first, second = (v.CONTRACTS, v.BASE) if kind == "inverse" else (v.BASE, v.QUOTE)
    kline = {"t": v.OPEN_MS, "T": v.END_MS - 1, "s": "BTCUSDT", "i": "1m", "v": first, "q": second}
    taken = {"V": "1", "Q": "1", "n": 3, "x": True}
    event = {"e": "kline", "E": v.END_MS, "s": "BTCUSDT", "k": kline | v.SHORT | taken}
    host = {"spot": "stream", "linear": "fstream", "inverse": "dstream"}[kind]
    answer = [row(first, v.END_MS - 1, second, 3, "1", "1", "0")]
    return Sample(event, answer, url=f"wss://{host}.binance.com/ws/1")


def okx(kind: str) -> Sample:
    volumes = (v.BASE, v.QUOTE, v.QUOTE) if kind == "spot" else (v.CONTRACTS, v.BASE, v.QUOTE)
    rows = [row(*volumes, "1", at=str(v.OPEN_MS))]
    arg = {"channel": "candle1m", "instId": "BTC-USDT"}
    return Sample({"arg": arg, "data": rows}, {"code": "0", "data": rows}, "BTC-USDT")


def blofin(kind: str) -> Sample:
    sample = okx("linear")
    return sample._replace(market={"type": "swap"}) if kind else sample


def bybit(kind: str) -> Sample:
    volumes = (v.QUOTE, v.BASE) if kind == "inverse" else (v.BASE, v.QUOTE)
    data = {"start": v.OPEN_MS, "end": v.END_MS - 1, "interval": "1", "confirm": True} | v.HIGHS
    data |= {"volume": volumes[0], "turnover": volumes[1], "timestamp": v.END_MS}
    message = {"topic": "kline.1.BTCUSDT", "type": "snapshot", "ts": v.END_MS, "data": [data]}
    answer = {"retCode": 0, "result": {"list": [row(*volumes, at=str(v.OPEN_MS))]}}
    return Sample(message, answer, url=f"wss://stream.bybit.com/v5/public/{kind}")


def alpaca(kind: str) -> Sample:
    bar: dict[str, Any] = {"t": f"{v.AT}Z", "v": 12.5, "n": 3, "vw": 10.5}
    bar |= {key: float(value) for key, value in v.SHORT.items()}
    message = [{"T": "b", "S": "BTC/USDT"} | bar]
    answer = {"bars": {"BTC/USDT": [bar]}, "next_page_token": None}
    return Sample(message, answer, "BTC/USDT", url=f"wss://stream.data.alpaca.markets/{kind}")


def apex(kind: str) -> Sample:
    data = {
        "start": v.OPEN_MS,
        "interval": "1",
        "confirm": True,
        "volume": v.BASE,
        "turnover": v.QUOTE,
    }
    message = {"topic": "candle.1.BTCUSDT", "data": [data | v.HIGHS], "type": "snapshot"}
    line = {"s": "BTCUSDT", "i": "1", "t": v.OPEN_MS, "v": v.BASE, "tr": v.QUOTE} | v.SHORT
    answer = {"data": {"BTCUSDT": [line]}}
    return Sample(message, answer, market={"id2": "BTCUSDT"}, url=f"wss://quote.omni.apex/{kind}")


def aster(kind: str) -> Sample:
    sample = binance("linear")
    host = "sstream" if kind == "spot" else "fstream"
    return sample._replace(url=f"wss://{host}.asterdex.com/stream")


def backpack(kind: str) -> Sample:
    data = {
        "e": "kline",
        "s": "BTC_USDC",
        "t": v.AT,
        "T": "2026-09-21T14:15:00",
        "v": v.BASE,
        "n": 3,
    }
    message = {"data": data | v.SHORT | {"X": True}, "stream": "kline.1m.BTC_USDC"}
    line = {"start": v.AT.replace("T", " "), "volume": v.BASE, "quoteVolume": v.QUOTE} | v.HIGHS
    return Sample(message, [line], "BTC_USDC", url=f"wss://ws.backpack.exchange/{kind}")


def bingx(kind: str) -> Sample:
    if kind == "spot":
        kline = {"t": v.OPEN_MS, "T": v.END_MS - 1, "i": "1min", "s": "BTC-USDT"} | v.SHORT
        inner = {"e": "kline", "s": "BTC-USDT", "K": kline | {"v": v.BASE, "q": v.QUOTE, "n": 3}}
        message: dict[str, Any] = {"code": 0, "data": inner, "dataType": "BTC-USDT@kline_1min"}
        answer = {"code": 0, "data": [row(v.BASE, v.END_MS - 1, v.QUOTE)]}
        return Sample(message, answer, "BTC-USDT", "wss://open-api-ws.bingx.com/market")
    line: dict[str, Any] = {"time": v.OPEN_MS} | v.HIGHS
    if kind == "linear":
        message = {"dataType": "BTC-USDT@kline_1m", "s": "BTC-USDT"}
        message["data"] = [{"T": v.OPEN_MS, "v": v.BASE} | v.SHORT]
        answer = {"code": 0, "data": [line | {"volume": v.BASE}]}
        return Sample(message, answer, "BTC-USDT", "wss://open-api-swap.bingx.com/swap-market")
    message = {"code": 0, "dataType": "BTC-USDT@kline_1m"}
    message["data"] = {
        "t": v.OPEN_MS,
        "a": v.BASE,
        "v": v.CONTRACTS,
        "u": 92,
        "s": "BTC-USDT",
    } | v.SHORT
    answer = {"code": 0, "data": [line | {"volume": v.CONTRACTS}]}
    return Sample(message, answer, "BTC-USDT", "wss://open-api-cswap-ws.bingx.com/market")


def bitfinex(kind: str) -> Sample:
    line = [v.OPEN_MS, 10.4, 10.6, 10.8, 10.2, 12.5]
    subscription = {"channel": "candles", "key": "trade:1m:tBTCUST"}
    url = f"wss://api-pub.bitfinex.com/{kind}"
    return Sample([7, line], [line], "tBTCUST", url, subscriptions={"7": subscription})


def bitget(kind: str) -> Sample:
    volumes = (v.QUOTE, v.BASE, v.QUOTE) if kind == "inverse" else (v.BASE, v.QUOTE, v.QUOTE)
    types = {"spot": "SPOT", "linear": "USDT-FUTURES", "inverse": "COIN-FUTURES"}
    arg = {"instType": types[kind], "channel": "candle1m", "instId": "BTCUSDT"}
    rows = [row(*volumes, at=str(v.OPEN_MS))]
    message = {"action": "update", "arg": arg, "data": rows, "ts": v.END_MS}
    return Sample(message, {"code": "00000", "data": [rows[0][:7]]})


def bitrue(kind: str) -> Sample:
    tick = {"amount": float(v.QUOTE), "vol": float(v.CONTRACTS), "id": v.OPEN_S, "ds": v.AT}
    tick |= {key: float(value) for key, value in v.HIGHS.items()}
    message = {"channel": "market_e_btcusdt_kline_1min", "tick": tick, "ts": v.END_MS}
    answer = [{"idx": v.OPEN_MS, "vol": v.CONTRACTS} | v.HIGHS]
    return Sample(message, answer, f"E-BTC-USDT-{kind}")


def bitvavo(kind: str) -> Sample:
    message = {"event": "candle", "market": "BTC-USDT", "interval": "1m", "candle": [row(v.BASE)]}
    return Sample(message, [row(v.BASE)], "BTC-USDT", url=f"wss://ws.bitvavo.com/{kind}")


def bydfi(kind: str) -> Sample:
    message = {"e": "kline", "s": "BTC-USDT", "t": v.OPEN_MS, "T": v.END_MS, "i": "1m", "v": 125}
    line = {"s": "BTC-USDT", "t": str(v.OPEN_MS), "v": v.CONTRACTS} | v.SHORT
    answer = {"code": 200, "data": [line], "success": True}
    return Sample(message | v.SHORT, answer, "BTC-USDT", url=f"wss://stream.bydfi.com/{kind}")


def deribit(kind: str) -> Sample:
    numbers = {key: float(value) for key, value in v.HIGHS.items()}
    data = {"tick": v.OPEN_MS, "volume": 12.5, "cost": 131.25} | numbers
    params = {"channel": "chart.trades.BTC-PERPETUAL.1", "data": data}
    lists = {key: [value] for key, value in numbers.items()}
    result = lists | {"volume": [12.5], "cost": [131.25], "ticks": [v.OPEN_MS], "status": "ok"}
    message = {"jsonrpc": "2.0", "method": "subscription", "params": params}
    url = f"wss://www.deribit.com/ws/api/v2/{kind}"
    return Sample(message, {"result": result}, "BTC-PERPETUAL", url)


def cryptocom(kind: str) -> Sample:
    line = {"t": v.OPEN_MS, "v": v.BASE} | v.SHORT
    result: dict[str, Any] = {"instrument_name": "BTC_USDT", "channel": "candlestick"}
    result |= {"interval": "1m", "subscription": "candlestick.1m.BTC_USDT", "data": [line]}
    message = {"id": -1, "method": "subscribe", "code": 0, "result": result}
    answer = {"code": 0, "result": {"interval": "1m", "data": [line]}}
    return Sample(message, answer, "BTC_USDT", url=f"wss://stream.crypto.com/{kind}")


def deepcoin(kind: str) -> Sample:
    name, volume = ("BTC/USDT", v.BASE) if kind == "spot" else ("BTCUSDT", v.CONTRACTS)
    data = {"I": name, "P": "1m", "B": v.OPEN_S, "V": float(volume), "M": 131.25}
    data |= {key.upper(): float(value) for key, value in v.SHORT.items()}
    message = {"a": "PK", "tt": v.END_MS, "mt": v.END_MS, "r": [{"d": data, "t": "LK"}]}
    answer = {"code": "0", "data": [row(volume, v.QUOTE, at=str(v.OPEN_MS))]}
    ids = {"spot": "BTC-USDT", "linear": "BTC-USDT-SWAP", "inverse": "BTC-USDT-SWAP"}
    return Sample(message, answer, ids[kind])


def dydx(kind: str) -> Sample:
    line: dict[str, Any] = {"startedAt": f"{v.AT}.000Z", "ticker": "BTC-USD", "resolution": "1MIN"}
    line |= v.HIGHS | {"baseTokenVolume": v.BASE, "usdVolume": v.QUOTE, "trades": 3}
    message = {"type": "channel_data", "channel": "v4_candles", "id": "BTC-USD/1MIN"}
    url = f"wss://indexer.dydx.trade/{kind}"
    return Sample(message | {"contents": line}, {"candles": [line]}, "BTC-USD", url)


def extended(kind: str) -> Sample:
    line = {"T": v.OPEN_MS, "v": v.BASE} | v.SHORT
    subscription = {"name": "ohlcv", "symbol": "BTC/USDT:USDT", "timeframe": "1m"}
    subscription |= {"candleType": "trades", "messageHash": "hash"}
    message, answer = {"ts": v.END_MS, "seq": 1, "data": [line]}, {"status": "OK", "data": [line]}
    url = f"wss://api.extended.exchange/candles/BTC-USD/{kind}"
    return Sample(message, answer, "BTC-USD", url, subscriptions={"hash": subscription})


def gate(kind: str) -> Sample:
    if kind == "spot":
        result: Any = {"t": str(v.OPEN_S), "v": v.QUOTE, "n": "1m_BTC_USDT", "a": v.BASE, "w": True}
        answer: Any = [[str(v.OPEN_S), v.QUOTE, v.C, v.H, v.L, v.O, v.BASE, "true"]]
        message = {"time": v.OPEN_S + 60, "channel": "spot.candlesticks", "event": "update"}
        return Sample(message | {"result": result | v.SHORT}, answer, "BTC_USDT")
    result = [{"t": v.OPEN_S, "v": 125, "n": "1m_BTC_USDT", "a": v.QUOTE, "w": True} | v.SHORT]
    message = {"time": v.OPEN_S + 60, "channel": "futures.candlesticks", "event": "update"}
    answer = [{"t": v.OPEN_S, "v": 125, "sum": v.QUOTE} | v.SHORT]
    return Sample(message | {"result": result}, answer, "BTC_USDT")


def gemini(kind: str) -> Sample:
    line = [v.OPEN_MS, 10.4, 10.8, 10.2, 10.6, 12.5]
    message = {"type": "candles_1m_updates", "symbol": "BTCUSDT", "changes": [line]}
    return Sample(message, [line], "btcusdt", url=f"wss://api.gemini.com/v2/marketdata/{kind}")


def grvt(kind: str) -> Sample:
    line: dict[str, Any] = {"open_time": f"{v.OPEN_MS}000000", "close_time": f"{v.END_MS}000000"}
    line |= v.HIGHS | {
        "volume_b": v.BASE,
        "volume_q": v.QUOTE,
        "trades": 3,
        "instrument": "BTC_USDT_Perp",
    }
    message = {"stream": "v1.candle", "selector": "BTC_USDT_Perp@CI_1_M-TRADE", "feed": line}
    url = f"wss://market-data.grvt.io/{kind}"
    return Sample(message, {"result": [line]}, "BTC_USDT_Perp", url)


def bluehelix(kind: str) -> Sample:
    volume = v.BASE if kind == "spot" else v.CONTRACTS
    line = {"t": v.OPEN_MS, "s": "BTCUSDT", "sn": "BTCUSDT", "v": volume, "st": 0} | v.SHORT
    params = {"realtimeInterval": "24h", "klineType": "1m"}
    message = {"symbol": "BTCUSDT", "topic": "kline", "params": params, "data": [line], "f": False}
    return Sample(message, [row(volume, 0, v.QUOTE, 3, "1", "1")])


SAMPLES: dict[str, Callable[[str], Sample]] = {
    "alpaca": alpaca,
    "apex": apex,
    "aster": aster,
    "backpack": backpack,
    "binance": binance,
    "binancecoinm": binance,
    "binanceus": binance,
    "binanceusdm": binance,
    "bingx": bingx,
    "bitfinex": bitfinex,
    "bitget": bitget,
    "bitrue": bitrue,
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
    "myokx": okx,
    "okx": okx,
    "okxus": okx,
    "toobit": bluehelix,
}
"""By ccxt id: makes the sample of a kind of market."""
