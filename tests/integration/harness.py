"""Run a daemon process with recorded candles, a model and a configuration."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from daemon.sandbox.recording import Playback, build_playback
from model.core.candle import Timeframe
from model.features.definitions import Indicators
from model.features.scaler import ScalerSet
from model.inference.onnx_export import export_onnx
from model.lstm_model import LSTMPricePredictor
from model.preprocess import DataPreprocessor, features_of
from model.registry.bundle import BundleParts
from model.registry.registry import Registry
from tests.support.servers import HOST, MAX_WAIT_S, SandboxProcess, Subscriber
from tests.support.tiny_models import promote

SECOND = Timeframe.parse("1s")
HISTORY = 900


def playback_of(ready: SandboxProcess) -> Playback:
    """The sandbox process's playback, rebuilt from its first output."""
    return build_playback(len(ready.symbols), SECOND, ready.origin_ms, slice_rows=ready.slice_rows)


def frame(playback: Playback, symbol: str, until_ms: int) -> pd.DataFrame:
    """A symbol's candles from its listing up to ``until_ms``, as the preprocessor takes them."""
    opens, ohlcv = playback.history(symbol, playback.origin_ms, until_ms)
    table = pd.DataFrame(ohlcv, columns=["open", "high", "low", "close", "volume"])
    return table.assign(timestamp=opens, datetime=pd.to_datetime(opens, unit="ms"))


def write_config(folder: Path, sections: dict[str, dict[str, Any]]) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(sections), encoding="utf-8")
    return path


def promote_model(config: Path, playback: Playback) -> LSTMPricePredictor:
    """Make the reference network, with scalers fitted on recorded candles, the champion.

    Its weights are drawn, not trained: what is tested is that they are served as they are.
    """
    predictor = LSTMPricePredictor(config)
    scalers = {}
    names = features_of(predictor.config)
    for symbol in playback.symbols:
        preprocessor = DataPreprocessor(config)
        preprocessor.create_sequences(
            preprocessor.add_technical_indicators(
                frame(playback, symbol, playback.origin_ms + HISTORY * SECOND.ms)
            )
        )
        scalers[symbol] = preprocessor.symbol_scaler()
    predictor.build_model((60, len(names)))
    # Glorot's weights barely react to their input; larger ones make a difference visible.
    rng = np.random.default_rng(7)
    assert predictor.model is not None
    predictor.model.set_weights(
        [rng.normal(0, 0.3, w.shape).astype(np.float32) for w in predictor.model.get_weights()]
    )
    keras_file = config.parent / "model.keras"
    predictor.save_model(keras_file)
    registry = Registry(config.parent / "state" / "registry")
    target = predictor.config["model"]["target"]
    version = registry.write(
        BundleParts(
            keras=keras_file.read_bytes(),
            onnx=export_onnx(predictor.lstm_weights()),
            scalers=ScalerSet(names, target, scalers),
            timeframe=SECOND.text,
            indicators=Indicators(),
            lookback=60,
            units=(64, 32),
            metrics={},
            trained_from_ms=playback.origin_ms,
            trained_to_ms=playback.origin_ms + HISTORY * SECOND.ms,
            data_sha256="0" * 64,
            created_ms=playback.origin_ms,
        )
    )
    registry.promote(version)
    return predictor


def promote_drawn(folder: Path, playback: Playback) -> None:
    """Make a champion with drawn weights for the playback's symbols, without Keras."""
    until_ms = playback.origin_ms + HISTORY * playback.timeframe.ms
    promote(
        folder / "state" / "registry",
        {s: playback.history(s, playback.origin_ms, until_ms)[1] for s in playback.symbols},
        timeframe=playback.timeframe.text,
        indicators=Indicators(),
        lookback=60,
    )


class Daemon:
    """A running `candlecast run`."""

    def __init__(self, config: Path, http_port: int, **env: str) -> None:
        self._log = config.parent / "daemon.log"
        self.http_port = http_port
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "daemon", "run", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | env,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def get(self, path: str) -> tuple[int, str]:
        """GET a page of its HTTP server: status and body; status 0 while no server listens."""
        try:
            url = f"http://{HOST}:{self.http_port}{path}"
            with urllib.request.urlopen(url, timeout=MAX_WAIT_S) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def wait_ready(self, within_s: float = MAX_WAIT_S) -> None:
        self.until(lambda: self.get("/readyz")[0] == 200, within_s)

    def stop(self) -> int:
        """End it the way systemd does; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(MAX_WAIT_S)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(MAX_WAIT_S)

    def until(self, condition: Callable[[], bool], within_s: float = MAX_WAIT_S) -> None:
        """Wait until a condition is true; the daemon must run meanwhile."""
        deadline = time.monotonic() + within_s
        while not condition():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, f"{self.log}{self.get('/readyz')[1]}"
            time.sleep(0.05)


@contextmanager
def daemon(config: Path, http_port: int, **env: str) -> Iterator[Daemon]:
    running = Daemon(config, http_port, **env)
    try:
        yield running
    finally:
        running.kill()


def sections(
    exchange: SandboxProcess, mqtt_port: int, http_port: int, **more: Any
) -> dict[str, dict[str, Any]]:
    """A configuration that points at a sandbox exchange and a test's broker."""
    chosen: dict[str, dict[str, Any]] = {
        "exchange": {
            "name": "binance",
            "endpoint": {"rest": exchange.rest_url, "ws": exchange.ws_url},
        },
        "trading": {"symbols": exchange.symbols, "timeframe": exchange.timeframe},
        "mqtt": {"port": mqtt_port, "instance": "tester"},
        "http": {"port": http_port},
    }
    for name, section in more.items():
        chosen[name] = chosen.get(name, {}) | section
    return chosen


def sample(metrics: str, name: str) -> float:
    """The value of a series without labels."""
    (line,) = [line for line in metrics.splitlines() if line.startswith(name + " ")]
    return float(line.split()[1])


def counted_without_forecast(metrics: str) -> float:
    """Candles that the daemon counted because a later candle overtook their forecast."""
    skipped = [f'skipped_total{{reason="{reason}"}}' for reason in ("gap", "window", "expired")]
    names = ['total{outcome="dropped"}', *skipped]
    return sum(sample(metrics, f"candlecast_predictions_{name}") for name in names)


def candles_without_forecast(forecasts: Iterable[dict[str, Any]]) -> int:
    """Candles between the first and the last forecast of each symbol that have no forecast."""
    numbers = defaultdict(set)
    for forecast in forecasts:
        numbers[forecast["symbol"]].add(forecast["seq"])
    return sum(max(seqs) - min(seqs) + 1 - len(seqs) for seqs in numbers.values())


def longest_run(numbers: Iterable[int]) -> int:
    """How many of the numbers follow each other without a gap, at most."""
    chosen = set(numbers)
    longest = 0
    for start in chosen:
        if start - 1 not in chosen:
            end = start
            while end in chosen:
                end += 1
            longest = max(longest, end - start)
    return longest


def until_offline(subscriber: Subscriber) -> list[dict[str, Any]]:
    """The next messages of a subscriber to all topics, up to the daemon's last one."""
    messages = [subscriber.next()]
    while not is_offline(messages[-1]):
        messages.append(subscriber.next())
    return messages


def is_offline(message: dict[str, Any]) -> bool:
    """Whether a message is the status of an ended daemon."""
    return "/status/" in message["topic"] and json.loads(message["payload"])["state"] == "offline"


def predictions(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The decoded forecasts among the messages of a subscriber."""
    return [json.loads(m["payload"]) for m in messages if m["topic"].endswith("/prediction")]
