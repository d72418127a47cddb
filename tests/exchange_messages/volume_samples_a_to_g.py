"""One candle by websocket and by REST, with the documented fields: exchanges A to G, and OKX."""

from __future__ import annotations

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
    row,
)


def binance(kind: str) -> Sample:
    first, second = (CONTRACTS, BASE) if kind == "inverse" else (BASE, QUOTE)
    kline = {"t": OPEN_MS, "T": END_MS - 1, "s": "BTCUSDT", "i": "1m", "v": first, "q": second}
    taken = {"V": "1", "Q": "1", "n": 3, "x": True}
    event = {"e": "kline", "E": END_MS, "s": "BTCUSDT", "k": kline | SHORT | taken}
    host = {"spot": "stream", "linear": "fstream", "inverse": "dstream"}[kind]
    answer = [row(first, END_MS - 1, second, 3, "1", "1", "0")]
    return Sample(event, answer, url=f"wss://{host}.binance.com/ws/1")


def okx(kind: str) -> Sample:
    volumes = (BASE, QUOTE, QUOTE) if kind == "spot" else (CONTRACTS, BASE, QUOTE)
    rows = [row(*volumes, "1", at=str(OPEN_MS))]
    arg = {"channel": "candle1m", "instId": "BTC-USDT"}
    return Sample({"arg": arg, "data": rows}, {"code": "0", "data": rows}, "BTC-USDT")


def blofin(kind: str) -> Sample:
    sample = okx("linear")
    return sample._replace(market={"type": "swap"}) if kind else sample


def bybit(kind: str) -> Sample:
    volumes = (QUOTE, BASE) if kind == "inverse" else (BASE, QUOTE)
    data = {"start": OPEN_MS, "end": END_MS - 1, "interval": "1", "confirm": True} | HIGHS
    data |= {"volume": volumes[0], "turnover": volumes[1], "timestamp": END_MS}
    message = {"topic": "kline.1.BTCUSDT", "type": "snapshot", "ts": END_MS, "data": [data]}
    answer = {"retCode": 0, "result": {"list": [row(*volumes, at=str(OPEN_MS))]}}
    return Sample(message, answer, url=f"wss://stream.bybit.com/v5/public/{kind}")


def alpaca(kind: str) -> Sample:
    bar: dict[str, Any] = {"t": f"{AT}Z", "v": 12.5, "n": 3, "vw": 10.5}
    bar |= {key: float(value) for key, value in SHORT.items()}
    message = [{"T": "b", "S": "BTC/USDT"} | bar]
    answer = {"bars": {"BTC/USDT": [bar]}, "next_page_token": None}
    return Sample(message, answer, "BTC/USDT", url=f"wss://stream.data.alpaca.markets/{kind}")


def apex(kind: str) -> Sample:
    data = {"start": OPEN_MS, "interval": "1", "confirm": True, "volume": BASE, "turnover": QUOTE}
    message = {"topic": "candle.1.BTCUSDT", "data": [data | HIGHS], "type": "snapshot"}
    line = {"s": "BTCUSDT", "i": "1", "t": OPEN_MS, "v": BASE, "tr": QUOTE} | SHORT
    answer = {"data": {"BTCUSDT": [line]}}
    return Sample(message, answer, market={"id2": "BTCUSDT"}, url=f"wss://quote.omni.apex/{kind}")


def aster(kind: str) -> Sample:
    sample = binance("linear")
    host = "sstream" if kind == "spot" else "fstream"
    return sample._replace(url=f"wss://{host}.asterdex.com/stream")


def backpack(kind: str) -> Sample:
    data = {"e": "kline", "s": "BTC_USDC", "t": AT, "T": "2026-09-21T14:15:00", "v": BASE, "n": 3}
    message = {"data": data | SHORT | {"X": True}, "stream": "kline.1m.BTC_USDC"}
    line = {"start": AT.replace("T", " "), "volume": BASE, "quoteVolume": QUOTE} | HIGHS
    return Sample(message, [line], "BTC_USDC", url=f"wss://ws.backpack.exchange/{kind}")


def bingx(kind: str) -> Sample:
    if kind == "spot":
        kline = {"t": OPEN_MS, "T": END_MS - 1, "i": "1min", "s": "BTC-USDT"} | SHORT
        inner = {"e": "kline", "s": "BTC-USDT", "K": kline | {"v": BASE, "q": QUOTE, "n": 3}}
        message: dict[str, Any] = {"code": 0, "data": inner, "dataType": "BTC-USDT@kline_1min"}
        answer = {"code": 0, "data": [row(BASE, END_MS - 1, QUOTE)]}
        return Sample(message, answer, "BTC-USDT", "wss://open-api-ws.bingx.com/market")
    line: dict[str, Any] = {"time": OPEN_MS} | HIGHS
    if kind == "linear":
        message = {"dataType": "BTC-USDT@kline_1m", "s": "BTC-USDT"}
        message["data"] = [{"T": OPEN_MS, "v": BASE} | SHORT]
        answer = {"code": 0, "data": [line | {"volume": BASE}]}
        return Sample(message, answer, "BTC-USDT", "wss://open-api-swap.bingx.com/swap-market")
    message = {"code": 0, "dataType": "BTC-USDT@kline_1m"}
    message["data"] = {"t": OPEN_MS, "a": BASE, "v": CONTRACTS, "u": 92, "s": "BTC-USDT"} | SHORT
    answer = {"code": 0, "data": [line | {"volume": CONTRACTS}]}
    return Sample(message, answer, "BTC-USDT", "wss://open-api-cswap-ws.bingx.com/market")


def bitfinex(kind: str) -> Sample:
    line = [OPEN_MS, 10.4, 10.6, 10.8, 10.2, 12.5]
    subscription = {"channel": "candles", "key": "trade:1m:tBTCUST"}
    url = f"wss://api-pub.bitfinex.com/{kind}"
    return Sample([7, line], [line], "tBTCUST", url, subscriptions={"7": subscription})


def bitget(kind: str) -> Sample:
    volumes = (QUOTE, BASE, QUOTE) if kind == "inverse" else (BASE, QUOTE, QUOTE)
    types = {"spot": "SPOT", "linear": "USDT-FUTURES", "inverse": "COIN-FUTURES"}
    arg = {"instType": types[kind], "channel": "candle1m", "instId": "BTCUSDT"}
    rows = [row(*volumes, at=str(OPEN_MS))]
    message = {"action": "update", "arg": arg, "data": rows, "ts": END_MS}
    return Sample(message, {"code": "00000", "data": [rows[0][:7]]})


def bitrue(kind: str) -> Sample:
    tick = {"amount": float(QUOTE), "vol": float(CONTRACTS), "id": OPEN_S, "ds": AT}
    tick |= {key: float(value) for key, value in HIGHS.items()}
    message = {"channel": "market_e_btcusdt_kline_1min", "tick": tick, "ts": END_MS}
    answer = [{"idx": OPEN_MS, "vol": CONTRACTS} | HIGHS]
    return Sample(message, answer, f"E-BTC-USDT-{kind}")


def bitvavo(kind: str) -> Sample:
    message = {"event": "candle", "market": "BTC-USDT", "interval": "1m", "candle": [row(BASE)]}
    return Sample(message, [row(BASE)], "BTC-USDT", url=f"wss://ws.bitvavo.com/{kind}")


def bydfi(kind: str) -> Sample:
    message = {"e": "kline", "s": "BTC-USDT", "t": OPEN_MS, "T": END_MS, "i": "1m", "v": 125}
    line = {"s": "BTC-USDT", "t": str(OPEN_MS), "v": CONTRACTS} | SHORT
    answer = {"code": 200, "data": [line], "success": True}
    return Sample(message | SHORT, answer, "BTC-USDT", url=f"wss://stream.bydfi.com/{kind}")


def deribit(kind: str) -> Sample:
    numbers = {key: float(value) for key, value in HIGHS.items()}
    data = {"tick": OPEN_MS, "volume": 12.5, "cost": 131.25} | numbers
    params = {"channel": "chart.trades.BTC-PERPETUAL.1", "data": data}
    lists = {key: [value] for key, value in numbers.items()}
    result = lists | {"volume": [12.5], "cost": [131.25], "ticks": [OPEN_MS], "status": "ok"}
    message = {"jsonrpc": "2.0", "method": "subscription", "params": params}
    url = f"wss://www.deribit.com/ws/api/v2/{kind}"
    return Sample(message, {"result": result}, "BTC-PERPETUAL", url)


def cryptocom(kind: str) -> Sample:
    line = {"t": OPEN_MS, "v": BASE} | SHORT
    result: dict[str, Any] = {"instrument_name": "BTC_USDT", "channel": "candlestick"}
    result |= {"interval": "1m", "subscription": "candlestick.1m.BTC_USDT", "data": [line]}
    message = {"id": -1, "method": "subscribe", "code": 0, "result": result}
    answer = {"code": 0, "result": {"interval": "1m", "data": [line]}}
    return Sample(message, answer, "BTC_USDT", url=f"wss://stream.crypto.com/{kind}")


def deepcoin(kind: str) -> Sample:
    name, volume = ("BTC/USDT", BASE) if kind == "spot" else ("BTCUSDT", CONTRACTS)
    data = {"I": name, "P": "1m", "B": OPEN_S, "V": float(volume), "M": 131.25}
    data |= {key.upper(): float(value) for key, value in SHORT.items()}
    message = {"a": "PK", "tt": END_MS, "mt": END_MS, "r": [{"d": data, "t": "LK"}]}
    answer = {"code": "0", "data": [row(volume, QUOTE, at=str(OPEN_MS))]}
    ids = {"spot": "BTC-USDT", "linear": "BTC-USDT-SWAP", "inverse": "BTC-USDT-SWAP"}
    return Sample(message, answer, ids[kind])


def dydx(kind: str) -> Sample:
    line: dict[str, Any] = {"startedAt": f"{AT}.000Z", "ticker": "BTC-USD", "resolution": "1MIN"}
    line |= HIGHS | {"baseTokenVolume": BASE, "usdVolume": QUOTE, "trades": 3}
    message = {"type": "channel_data", "channel": "v4_candles", "id": "BTC-USD/1MIN"}
    url = f"wss://indexer.dydx.trade/{kind}"
    return Sample(message | {"contents": line}, {"candles": [line]}, "BTC-USD", url)


def extended(kind: str) -> Sample:
    line = {"T": OPEN_MS, "v": BASE} | SHORT
    subscription = {"name": "ohlcv", "symbol": "BTC/USDT:USDT", "timeframe": "1m"}
    subscription |= {"candleType": "trades", "messageHash": "hash"}
    message, answer = {"ts": END_MS, "seq": 1, "data": [line]}, {"status": "OK", "data": [line]}
    url = f"wss://api.extended.exchange/candles/BTC-USD/{kind}"
    return Sample(message, answer, "BTC-USD", url, subscriptions={"hash": subscription})


def gate(kind: str) -> Sample:
    if kind == "spot":
        result: Any = {"t": str(OPEN_S), "v": QUOTE, "n": "1m_BTC_USDT", "a": BASE, "w": True}
        answer: Any = [[str(OPEN_S), QUOTE, C, H, L, O, BASE, "true"]]
        message = {"time": OPEN_S + 60, "channel": "spot.candlesticks", "event": "update"}
        return Sample(message | {"result": result | SHORT}, answer, "BTC_USDT")
    result = [{"t": OPEN_S, "v": 125, "n": "1m_BTC_USDT", "a": QUOTE, "w": True} | SHORT]
    message = {"time": OPEN_S + 60, "channel": "futures.candlesticks", "event": "update"}
    answer = [{"t": OPEN_S, "v": 125, "sum": QUOTE} | SHORT]
    return Sample(message | {"result": result}, answer, "BTC_USDT")


def gemini(kind: str) -> Sample:
    line = [OPEN_MS, 10.4, 10.8, 10.2, 10.6, 12.5]
    message = {"type": "candles_1m_updates", "symbol": "BTCUSDT", "changes": [line]}
    return Sample(message, [line], "btcusdt", url=f"wss://api.gemini.com/v2/marketdata/{kind}")


def grvt(kind: str) -> Sample:
    line: dict[str, Any] = {"open_time": f"{OPEN_MS}000000", "close_time": f"{END_MS}000000"}
    line |= HIGHS | {
        "volume_b": BASE,
        "volume_q": QUOTE,
        "trades": 3,
        "instrument": "BTC_USDT_Perp",
    }
    message = {"stream": "v1.candle", "selector": "BTC_USDT_Perp@CI_1_M-TRADE", "feed": line}
    url = f"wss://market-data.grvt.io/{kind}"
    return Sample(message, {"result": [line]}, "BTC_USDT_Perp", url)


def bluehelix(kind: str) -> Sample:
    volume = BASE if kind == "spot" else CONTRACTS
    line = {"t": OPEN_MS, "s": "BTCUSDT", "sn": "BTCUSDT", "v": volume, "st": 0} | SHORT
    params = {"realtimeInterval": "24h", "klineType": "1m"}
    message = {"symbol": "BTCUSDT", "topic": "kline", "params": params, "data": [line], "f": False}
    return Sample(message, [row(volume, 0, QUOTE, 3, "1", "1")])
