"""Candle messages of the exchanges from CEX.IO to KuCoin, and of Bequant, which is like HitBTC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.exchange_messages.a_to_b import gzipped, huobi
from tests.exchange_messages.descriptions import Bar, Message, Stream, iso, market, one


def cex(bar: Bar) -> Message:
    row = [bar.open_s, *bar.prices, bar.base]
    return {"e": "ohlcv", "data": [row], "pair": "BTC:USD"}


def cex_snapshot(bars: Sequence[Bar]) -> Message:
    rows = [[bar.open_s, *bar.prices, str(bar.base)] for bar in bars]
    return {"e": "init-ohlcv-data", "data": rows, "pair": "BTC:USD"}


def chart(market_id: str, volume: str, cost: str) -> Callable[[Bar], Message]:
    def update(bar: Bar) -> Message:
        data = {"volume": getattr(bar, volume), "tick": bar.open_ms, "open": bar.open,
                "low": bar.low, "high": bar.high, "cost": getattr(bar, cost),
                "close": bar.close}  # fmt: skip
        params = {"channel": f"chart.trades.{market_id}.1", "data": data}
        return {"jsonrpc": "2.0", "method": "subscription", "params": params}

    return update


def cryptocom(market_id: str) -> Callable[[Sequence[Bar]], Message]:
    def rows(bars: Sequence[Bar]) -> Message:
        data = []
        for bar in bars:
            o, h, l, c = bar.prices  # noqa: E741
            data.append({"o": o, "h": h, "l": l, "c": c, "v": str(bar.base), "t": bar.open_ms,
                         "ut": bar.open_ms + 5})  # fmt: skip
        name = f"candlestick.1m.{market_id}"
        result = {"instrument_name": market_id, "subscription": name, "channel": "candlestick",
                  "depth": 300, "interval": "1m", "data": data}  # fmt: skip
        return {"id": -1, "method": "subscribe", "code": 0, "result": result}

    return rows


def deepcoin(name: str) -> Callable[[Bar], Message]:
    def update(bar: Bar) -> Message:
        data = {"I": name, "P": "1m", "B": bar.open_s, "O": bar.open, "C": bar.close,
                "H": bar.high, "L": bar.low, "V": bar.base, "M": bar.quote}  # fmt: skip
        return {"a": "PK", "tt": bar.open_ms, "mt": bar.open_ms, "r": [{"d": data, "t": "LK"}]}

    return update


def _dydx_row(bar: Bar) -> dict[str, Any]:
    o, h, l, c = bar.prices  # noqa: E741
    return {"startedAt": iso(bar.open_ms) + ".000Z", "ticker": "BTC-USD", "resolution": "1MIN",
            "low": l, "high": h, "open": o, "close": c, "baseTokenVolume": str(bar.base),
            "usdVolume": str(bar.quote), "trades": 3, "startingOpenInterest": "1"}  # fmt: skip


def dydx(bar: Bar) -> Message:
    return {"type": "channel_data", "connection_id": "x", "message_id": 3, "id": "BTC-USD/1MIN",
            "channel": "v4_candles", "version": "1.0.0", "contents": _dydx_row(bar)}  # fmt: skip


def dydx_snapshot(bars: Sequence[Bar]) -> Message:
    rows = [_dydx_row(bar) for bar in reversed(bars)]
    return {"type": "subscribed", "connection_id": "x", "message_id": 1, "channel": "v4_candles",
            "id": "BTC-USD/1MIN", "contents": {"candles": rows}}  # fmt: skip


def extended(bar: Bar) -> Message:
    o, h, l, c = bar.prices  # noqa: E741
    row = {"T": bar.open_ms, "o": o, "l": l, "h": h, "c": c, "v": str(bar.base)}
    return {"ts": bar.open_ms + 5, "data": [row]}


def _gate_row(bar: Bar) -> dict[str, Any]:
    o, h, l, c = bar.prices  # noqa: E741
    return {"c": c, "h": h, "l": l, "o": o, "n": "1m_BTC_USDT", "w": bar.closed}


def gate_spot(bar: Bar) -> Message:
    result = _gate_row(bar) | {"t": str(bar.open_s), "v": str(bar.quote), "a": str(bar.base)}
    return {"time": bar.open_s, "channel": "spot.candlesticks", "event": "update",
            "result": result}  # fmt: skip


def gate_swap(bar: Bar) -> Message:
    row = _gate_row(bar) | {"t": bar.open_s, "v": bar.contracts, "a": str(bar.quote)}
    return {"time": bar.open_s, "channel": "futures.candlesticks", "event": "update",
            "result": [row]}  # fmt: skip


def gemini(bars: Sequence[Bar]) -> Message:
    changes = [
        [bar.open_ms, bar.open, bar.high, bar.low, bar.close, bar.base] for bar in reversed(bars)
    ]
    return {"type": "candles_1m_updates", "symbol": "BTCUSD", "changes": changes}


def grvt(bar: Bar) -> Message:
    o, h, l, c = bar.prices  # noqa: E741
    feed = {"open_time": f"{bar.open_ms}000000", "close_time": f"{bar.end_ms}000000", "open": o,
            "close": c, "high": h, "low": l, "volume_b": str(bar.base),
            "volume_q": str(bar.quote), "trades": 3, "instrument": "BTC_USDT_Perp"}  # fmt: skip
    return {"stream": "v1.candle", "selector": "BTC_USDT_Perp@CI_1_M-TRADE",
            "sequence_number": "0", "feed": feed, "prev_sequence_number": "0"}  # fmt: skip


def hashkey(name: str, volume: str) -> Callable[[Bar], Message]:
    def update(bar: Bar) -> Message:
        o, h, l, c = bar.prices  # noqa: E741
        row = {"t": bar.open_ms, "s": name, "sn": name, "c": c, "h": h, "l": l, "o": o,
               "v": str(getattr(bar, volume))}  # fmt: skip
        return {"symbol": name, "symbolName": name, "topic": "kline",
                "params": {"realtimeInterval": "24h", "klineType": "1m"}, "data": [row],
                "f": True, "sendTime": bar.open_ms + 5, "shared": False}  # fmt: skip

    return update


def hitbtc(what: str, name: str = "BTCUSDT") -> Callable[[Sequence[Bar]], Message]:
    def rows(bars: Sequence[Bar]) -> Message:
        candles = []
        for bar in bars:
            o, h, l, c = bar.prices  # noqa: E741
            candles.append({"t": bar.open_ms, "o": o, "c": c, "h": h, "l": l,
                            "v": str(bar.base), "q": str(bar.quote)})  # fmt: skip
        return {"ch": "candles/M1", what: {name: candles}}

    return rows


def hyperliquid(coin: str) -> Callable[[Bar], Message]:
    def update(bar: Bar) -> Message:
        o, h, l, c = bar.prices  # noqa: E741
        data = {"t": bar.open_ms, "T": bar.end_ms - 1, "s": coin, "i": "1m", "o": o, "c": c,
                "h": h, "l": l, "v": str(bar.base), "n": 3}  # fmt: skip
        return {"channel": "candle", "data": data}

    return update


def kraken(what: str) -> Callable[[Sequence[Bar]], Message]:
    def rows(bars: Sequence[Bar]) -> Message:
        data = [
            {"symbol": "BTC/USD", "open": bar.open, "high": bar.high, "low": bar.low,
             "close": bar.close, "trades": 3, "volume": bar.base, "vwap": bar.open,
             "interval_begin": iso(bar.open_ms) + ".000000000Z", "interval": 1,
             "timestamp": iso(bar.end_ms) + ".000000Z"}
            for bar in bars
        ]  # fmt: skip
        return {"channel": "ohlc", "type": what, "timestamp": iso(bars[-1].open_ms), "data": data}

    return rows


def kucoin_spot(bar: Bar) -> Message:
    o, h, l, c = bar.prices  # noqa: E741
    candles = [str(bar.open_s), o, c, h, l, str(bar.base), str(bar.quote)]
    data = {"symbol": "BTC-USDT", "candles": candles, "time": bar.open_ms * 1_000_000}
    return {"type": "message", "topic": "/market/candles:BTC-USDT_1min",
            "subject": "trade.candles.update", "data": data}  # fmt: skip


def kucoin_swap(bar: Bar) -> Message:
    o, h, l, c = bar.prices  # noqa: E741
    candles = [str(bar.open_s), o, c, h, l, str(bar.base), str(bar.contracts)]
    data = {"symbol": "XBTUSDTM", "candles": candles, "time": bar.open_ms}
    return {"topic": "/contractMarket/limitCandle:XBTUSDTM_1min", "type": "message",
            "data": data, "subject": "candle.stick"}  # fmt: skip


BTCUSD = market("BTC/USD", "BTC_USD")
GATE_SPOT = market("BTC/USDT", "BTC_USDT")
GATE_LINEAR = market("BTC/USDT:USDT", "BTC_USDT")
DEEPCOIN_SPOT = market("BTC/USDT", "BTC-USDT")
DEEPCOIN_LINEAR = market("BTC/USDT:USDT", "BTC-USDT-SWAP")
HYPERLIQUID: dict[str, Any] = {"hip3TokensByName": {}, "cachedCurrenciesById": {}}
XBT = market("BTC/USDT:USDT", "XBTUSDTM", baseId="XBT")

STREAMS: list[Stream] = [
    Stream("cex", market("BTC/USD", "BTC-USD"), "pair-BTC-USD", cex,
           before=(cex_snapshot([Bar(0, 1, 1, 1, 1, 1, 1, 1)]),), refused=1,
           note="ccxt cannot read the history that comes first, nor `ohlcv1m`; heard is `ohlcv`"),
    Stream("coinbaseinternational", market("BTC/USDC:USDC", "BTC-PERP"), "chart.trades.BTC-PERP.1",
           chart("BTC-PERP", "base", "quote")),
    Stream("cryptocom", market("BTC/USDT", "BTC_USDT"), "candlestick.1m.BTC_USDT",
           one(cryptocom("BTC_USDT")), cryptocom("BTC_USDT")),
    Stream("cryptocom", market("BTC/USD:USD", "BTCUSD-PERP"), "candlestick.1m.BTCUSD-PERP",
           one(cryptocom("BTCUSD-PERP")), cryptocom("BTCUSD-PERP")),
    Stream("deepcoin", DEEPCOIN_SPOT, "DeepCoin_BTC/USDT_1m", deepcoin("BTC/USDT"),
           twins=(DEEPCOIN_LINEAR,)),
    Stream("deepcoin", DEEPCOIN_LINEAR, "DeepCoin_BTCUSDT_1m", deepcoin("BTCUSDT"),
           twins=(DEEPCOIN_SPOT,)),
    Stream("deribit", market("BTC/USDC:USDC", "BTC_USDC-PERPETUAL"),
           "chart.trades.BTC_USDC-PERPETUAL.1", chart("BTC_USDC-PERPETUAL", "base", "quote")),
    Stream("deribit", market("BTC/USD:BTC", "BTC-PERPETUAL"), "chart.trades.BTC-PERPETUAL.1",
           chart("BTC-PERPETUAL", "base", "quote")),
    Stream("dydx", market("BTC/USDC:USDC", "BTC-USD"), "BTC-USD/1MIN", dydx, dydx_snapshot),
    Stream("extended", market("BTC/USD:USD", "BTC-USD"), "/candles/BTC-USD/trades", extended,
           greets=True),
    Stream("gate", GATE_SPOT, "spot.candlesticks", gate_spot, twins=(GATE_LINEAR,), flag=True),
    Stream("gate", GATE_LINEAR, "futures.candlesticks", gate_swap, twins=(GATE_SPOT,), flag=True,
           volume="contracts"),
    Stream("gateeu", GATE_SPOT, "spot.candlesticks", gate_spot, flag=True),
    Stream("gemini", market("BTC/USD", "btcusd"), "candles_1m", one(gemini), gemini),
    Stream("grvt", market("BTC/USDT:USDT", "BTC_USDT_Perp"), "BTC_USDT_Perp@CI_1_M-TRADE", grvt),
    Stream("hashkey", market("BTC/USDT", "BTCUSDT"), "kline_1m", hashkey("BTCUSDT", "base")),
    Stream("hashkey", market("BTC/USDT:USDT", "BTCUSDT-PERPETUAL"), "kline_1m",
           hashkey("BTCUSDT-PERPETUAL", "contracts"), volume="contracts"),
    Stream("hitbtc", market("BTC/USDT", "BTCUSDT"), "candles/M1", one(hitbtc("update")),
           hitbtc("snapshot")),
    Stream("hitbtc", market("BTC/USDT:USDT", "BTCUSDT_PERP"), "candles/M1",
           one(hitbtc("update", "BTCUSDT_PERP")), hitbtc("snapshot", "BTCUSDT_PERP")),
    Stream("bequant", market("BTC/USDT", "BTCUSDT"), "candles/M1", one(hitbtc("update")),
           hitbtc("snapshot")),
    Stream("htx", market("BTC/USDT", "btcusdt"), "market.btcusdt.kline.1min",
           huobi("market.btcusdt.kline.1min"), packed=gzipped),
    Stream("htx", market("BTC/USDT:USDT", "BTC-USDT"), "market.BTC-USDT.kline.1min",
           huobi("market.BTC-USDT.kline.1min"), packed=gzipped),
    Stream("htx", market("BTC/USD:BTC", "BTC-USD"), "market.BTC-USD.kline.1min",
           huobi("market.BTC-USD.kline.1min"), packed=gzipped),
    Stream("hyperliquid", market("BTC/USDC:USDC", "0", baseName="BTC", info={"name": "BTC"}),
           '"coin":"BTC"', hyperliquid("BTC"), options=HYPERLIQUID),
    Stream("hyperliquid", market("PURR/USDC", "PURR/USDC", baseName="PURR"), "PURR/USDC",
           hyperliquid("PURR/USDC"), options=HYPERLIQUID),
    Stream("kraken", market("BTC/USD", "XXBTZUSD"), '"ohlc"', one(kraken("update")),
           kraken("snapshot")),
    Stream("kucoin", market("BTC/USDT", "BTC-USDT"), "/market/candles:BTC-USDT_1min",
           kucoin_spot),
    Stream("kucoin", XBT, "/contractMarket/limitCandle:XBTUSDTM_1min", kucoin_swap,
           volume="contracts"),
    Stream("kucoinfutures", XBT, "/contractMarket/limitCandle:XBTUSDTM_1min", kucoin_swap,
           volume="contracts"),
]  # fmt: skip
