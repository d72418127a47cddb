"""One candle as each exchange streams it and as its history holds it, with the documented fields.

The numbers are invented. Volume is 12.5 in base currency, 131.25 in quote currency and 125
contracts, so that a field of another unit shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

OPEN_MS = 1_790_000_040_000
OPEN_S = OPEN_MS // 1_000
END_MS = OPEN_MS + 60_000
AT = "2026-09-21T14:14:00"
O, H, L, C = "10.4", "10.8", "10.2", "10.6"  # noqa: E741 - as exchanges call them
BASE, QUOTE, CONTRACTS = "12.5", "131.25", "125"
HIGHS = {"open": O, "high": H, "low": L, "close": C}
SHORT = {"o": O, "h": H, "l": L, "c": C}


class Sample(NamedTuple):
    """A candle of one market by both ways.

    Attributes:
        stream: message of the websocket.
        answer: body of the REST answer.
        market_id: the exchange's name of the market.
        url: address of the websocket.
        market: further fields of the ccxt market.
        subscriptions: what ccxt's client remembers of the subscription.
    """

    stream: Any
    answer: Any
    market_id: str = "BTCUSDT"
    url: str = "wss://127.0.0.1/ws"
    market: Mapping[str, Any] = {}
    subscriptions: Mapping[str, Any] = {}


def row(volume: str, *more: Any, at: Any = OPEN_MS) -> list[Any]:
    """Time, open, high, low, close and what follows."""
    return [at, O, H, L, C, volume, *more]


def open_close(volume: str, *more: Any, at: Any = OPEN_S) -> list[Any]:
    """Time, open, close, high, low and what follows."""
    return [at, O, C, H, L, volume, *more]


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


def kraken(kind: str) -> Sample:
    begin = f"{AT}.000000000Z"
    data = {"symbol": "BTC/USDT", "interval": 1, "interval_begin": begin, "trades": 3, "vwap": 10.5}
    data |= {key: float(value) for key, value in HIGHS.items()} | {"volume": 12.5}
    message = {"channel": "ohlc", "type": "update", "data": [data]}
    answer = {"error": [], "result": {"BTCUSDT": [[OPEN_S, O, H, L, C, "10.5", BASE, 3]]}}
    return Sample(message, answer, url=f"wss://ws.kraken.com/v2/{kind}")


def alpaca(kind: str) -> Sample:
    bar = {key: float(value) for key, value in SHORT.items()} | {"v": 12.5, "n": 3, "vw": 10.5}
    bar |= {"t": f"{AT}Z"}
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
    message = {"data": data | SHORT, "stream": "kline.1m.BTC_USDC"}
    line = {"start": AT.replace("T", " "), "volume": BASE, "quoteVolume": QUOTE} | HIGHS
    return Sample(message, [line], "BTC_USDC", url=f"wss://ws.backpack.exchange/{kind}")


def hitbtc(kind: str) -> Sample:
    update = {"t": OPEN_MS, "v": BASE, "q": QUOTE} | SHORT
    message = {"ch": "candles/M1", "update": {"BTCUSDT": [update]}}
    line = {"timestamp": f"{AT}.000Z", "open": O, "close": C, "min": L, "max": H}
    line |= {"volume": BASE, "volume_quote": QUOTE}
    return Sample(message, [line], url=f"wss://api.hitbtc.com/{kind}")


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


def htx(kind: str) -> Sample:
    second = float(QUOTE if kind == "spot" else CONTRACTS)
    tick = {"id": OPEN_S, "amount": 12.5, "vol": second, "count": 3}
    tick |= {key: float(value) for key, value in HIGHS.items()}
    message = {"ch": "market.btcusdt.kline.1min", "ts": END_MS, "tick": tick}
    return Sample(message, {"status": "ok", "data": [tick]}, "btcusdt")


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
    result = {"instrument_name": "BTC_USDT", "channel": "candlestick", "interval": "1m"}
    result |= {"subscription": "candlestick.1m.BTC_USDT", "data": [line]}
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
    line = {"startedAt": f"{AT}.000Z", "ticker": "BTC-USD", "resolution": "1MIN"} | HIGHS
    line |= {"baseTokenVolume": BASE, "usdVolume": QUOTE, "trades": 3}
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
    line = {"open_time": f"{OPEN_MS}000000", "close_time": f"{END_MS}000000"} | HIGHS
    line |= {"volume_b": BASE, "volume_q": QUOTE, "trades": 3, "instrument": "BTC_USDT_Perp"}
    message = {"stream": "v1.candle", "selector": "BTC_USDT_Perp@CI_1_M-TRADE", "feed": line}
    url = f"wss://market-data.grvt.io/{kind}"
    return Sample(message, {"result": [line]}, "BTC_USDT_Perp", url)


def bluehelix(kind: str) -> Sample:
    volume = BASE if kind == "spot" else CONTRACTS
    line = {"t": OPEN_MS, "s": "BTCUSDT", "sn": "BTCUSDT", "v": volume, "st": 0} | SHORT
    params = {"realtimeInterval": "24h", "klineType": "1m"}
    message = {"symbol": "BTCUSDT", "topic": "kline", "params": params, "data": [line], "f": False}
    return Sample(message, [row(volume, 0, QUOTE, 3, "1", "1")])


def hyperliquid(kind: str) -> Sample:
    name = "BTC" if kind == "linear" else "@1"
    line = {"t": OPEN_MS, "T": END_MS - 1, "s": name, "i": "1m", "v": BASE, "n": 3} | SHORT
    market = {"baseName": name, "baseId": name, "info": {"name": name}}
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
    common = {"instrument_code": "BTC_USDT", "granularity": {"unit": "MINUTES", "period": 1}}
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
