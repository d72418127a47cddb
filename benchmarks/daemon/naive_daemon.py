"""Run a simple forecasting daemon, for comparison.

    python -m benchmarks.daemon.naive_daemon CONFIG

It reads the same configuration, watches each symbol with ccxt's `watch_ohlcv`, computes the
features with TA-Lib, calls `keras.Model.predict` on the candles that have closed, and awaits an
aiomqtt publish for every forecast. It avoids slowness that would be easy to avoid: it uses uvloop,
one batch for everything that is ready, publishes that are awaited together, and no rate limit while
it fetches its history. Each 200 symbols have their own ccxt instance, and so their own connection:
ccxt puts all candles of an instance on one connection, Binance ends one that asks for more than
1,024 streams, and the sandbox one that asks for more than 256 before reading an answer. Prints a
line when it is ready.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

import aiomqtt
import ccxt
import numpy as np
import uvloop
import yaml
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from benchmarks.harness.tiny_champion import LOOKBACK, UNITS
from daemon.exchange.ccxt_client import make_exchange

_ROWS: Final = 120
_FEATURES: Final = 6
_STEP_MS: Final = 1_000
_SYMBOLS_OF_ONE: Final = 200
_RETRY_S: Final = 1.0

Row = list[float]


def features(rows: list[Row]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The newest window of one symbol, shape ``(LOOKBACK, 6)``."""
    import talib

    table = np.array(rows, np.float64)
    close, volume = table[:, 4], table[:, 5]
    upper, _, lower = talib.BBANDS(close, 20, 2.0, 2.0)
    macd, _, _ = talib.MACD(close, 12, 26, 9)
    columns = (close, volume, talib.RSI(close, 14), macd, upper, lower)
    return np.column_stack(columns)[-LOOKBACK:].astype(np.float32)


def network() -> Any:  # noqa: ANN401 - Keras is untyped
    """The reference network with weights at random, every batch size up to 32 traced."""
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((LOOKBACK, _FEATURES)),
            layers.LSTM(UNITS[0], return_sequences=True),
            layers.Dropout(0.2),
            layers.LSTM(UNITS[1]),
            layers.Dropout(0.2),
            layers.Dense(1),
        ]
    )
    for size in (1, 2, 3, 5, 31, 32, 33, 64):
        model.predict(np.zeros((size, LOOKBACK, _FEATURES), np.float32), verbose=0)
    return model


class Straightforward:
    """One process, one loop."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.symbols: list[str] = config["trading"]["symbols"]
        self.port: int = config["mqtt"]["port"]
        self.endpoint: dict[str, str] = config["exchange"]["endpoint"]
        self.rows: dict[str, list[Row]] = {}
        self.ready: asyncio.Queue[str] = asyncio.Queue()
        self.model = network()

    def connect(self) -> Any:  # noqa: ANN401 - ccxt is untyped
        """A ccxt instance that is pointed at the sandbox."""
        exchange = make_exchange("binance", self.endpoint["rest"], self.endpoint["ws"])
        exchange.enableRateLimit = False
        return exchange

    async def run(self, stop: asyncio.Event) -> None:
        """Warm up, say so, forecast until told to stop."""
        instances = [self.connect() for _ in range(0, len(self.symbols), _SYMBOLS_OF_ONE)]
        first, *others = instances
        try:
            await first.load_markets()
            for exchange in others:
                exchange.set_markets_from_exchange(first)
            for symbol in self.symbols:
                self.rows[symbol] = await first.fetch_ohlcv(symbol, "1s", limit=_ROWS)
            await self.serve(instances, stop)
        finally:
            for exchange in instances:
                await exchange.close()

    async def serve(self, instances: list[Any], stop: asyncio.Event) -> None:
        """Watch all symbols and forecast."""
        async with (
            aiomqtt.Client("127.0.0.1", self.port, protocol=aiomqtt.ProtocolVersion.V5) as client,
            asyncio.TaskGroup() as group,
        ):
            tasks = [
                group.create_task(self.watch(instances[number // _SYMBOLS_OF_ONE], symbol))
                for number, symbol in enumerate(self.symbols)
            ]
            tasks.append(group.create_task(self.forecast(client)))
            print("ready", flush=True)
            await stop.wait()
            for task in tasks:
                task.cancel()

    async def watch(self, exchange: Any, symbol: str) -> None:  # noqa: ANN401
        """Keep one symbol's candles; ccxt hides the closed flag, so the clock decides."""
        rows = self.rows[symbol]
        while True:
            try:
                update = await exchange.watch_ohlcv(symbol, "1s")
            except ccxt.NetworkError as error:
                print(f"{symbol}: {error}", file=sys.stderr, flush=True)
                await asyncio.sleep(_RETRY_S)
                continue
            for row in update:
                if row[0] + _STEP_MS > time.time() * 1e3 or row[0] < rows[-1][0]:
                    continue
                if row[0] > rows[-1][0]:
                    rows.append(row)
                    del rows[:-_ROWS]
                    self.ready.put_nowait(symbol)

    async def forecast(self, client: aiomqtt.Client) -> None:
        """Forecast whatever has closed, in one batch."""
        while True:
            symbols = [await self.ready.get()]
            # Lets the others that are about to arrive into the batch.
            await asyncio.sleep(0)
            while not self.ready.empty():
                symbols.append(self.ready.get_nowait())
            batch = np.stack([features(self.rows[symbol]) for symbol in symbols])
            values = self.model.predict(batch, verbose=0)[:, 0].tolist()
            await asyncio.gather(
                *(self.publish(client, s, v) for s, v in zip(symbols, values, strict=True))
            )

    async def publish(self, client: aiomqtt.Client, symbol: str, value: float) -> None:
        """One forecast, with what a consumer needs to make use of it."""
        opened, _, _, _, close, _ = self.rows[symbol][-1]
        closed = int(opened) + _STEP_MS
        payload = {
            "schema": 1,
            "instance": "straightforward",
            "exchange": "binance",
            "symbol": symbol,
            "timeframe": "1s",
            "seq": closed // _STEP_MS,
            "candle_open_ms": int(opened),
            "candle_close_ms": closed,
            "target_close_ms": closed + _STEP_MS,
            "valid_until_ms": closed + _STEP_MS,
            "published_ms": time.time_ns() // 1_000_000,
            "last_close": close,
            "predicted_close": close * (1.0 + value / 1e3),
            "predicted_normalized": value,
            "interval": None,
            "probabilities": None,
            "model": {"version": "20261123T020000Z-3f9a1c", "sha256": "0" * 64, "target": "close"},
        }
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = 1
        topic = f"candlecast/v1/binance/{symbol.replace('/', '-')}/1s/prediction"
        await client.publish(
            topic, json.dumps(payload), qos=1, retain=True, properties=properties, timeout=30
        )


async def main(config: dict[str, Any]) -> None:
    """Run until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await Straightforward(config).run(stop)


if __name__ == "__main__":
    uvloop.run(main(yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))))
