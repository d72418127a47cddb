"""Check that a champion that must not forecast ends the start with one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.features.definitions import LOG_RETURN_FEATURES, Indicators
from model.registry.bundle import Bundle
from model.registry.registry import Registry
from tests.integration.harness import (
    HISTORY,
    SECOND,
    playback_of,
    predictions,
    sections,
    write_config,
)
from tests.support.servers import MAX_WAIT_S, free_port, mosquitto, mosquitto_sub, sandbox_process
from tests.support.tiny_models import (
    drawn_weights,
    fitted_scalers,
    promote,
    random_candles,
    shifted,
)

UNITS = (6, 4)
CANDLES = {"A/USDT": random_candles(400, 1), "B/USDT": random_candles(400, 2)}
CONFIG = """
trading: {symbols: [A/USDT, B/USDT], timeframe: 1m}
model: {lookback_periods: 8}
"""


def run(config: Path) -> tuple[int, str]:
    """`candlecast run`: exit code and output."""
    done = subprocess.run(
        [sys.executable, "-m", "daemon", "run", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=MAX_WAIT_S,
        check=False,
    )
    return done.returncode, done.stderr


def spoiled(part: str) -> dict[str, Any]:
    """What makes a bundle unservable."""
    weights = drawn_weights(len(LOG_RETURN_FEATURES), UNITS)
    if part == "units":
        return {"weights": drawn_weights(len(LOG_RETURN_FEATURES), UNITS[::-1])}
    if part == "features":
        return {"weights": drawn_weights(3, UNITS)}
    if part == "step":
        weights.dense_bias[:] = np.nan
    else:
        weights.layers[0].kernel[0, 0] = np.nan
    return {"weights": weights}


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ("prefix", "the network's weights are not all finite"),
        ("step", "the network's weights are not all finite"),
        ("units", "manifest.json says LSTM layers of [6, 4] units, prefix.onnx has [4, 6]"),
        ("features", "are not the prefix and the step of one network with"),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_a_champion_that_is_no_network_ends_the_start(
    tmp_path: Path, part: str, why: str, *, before: bool
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    registry = tmp_path / "state" / "registry"
    good = promote(registry, CANDLES, indicators=Indicators()) if before else None
    bad = promote(registry, CANDLES, indicators=Indicators(), units=UNITS, **spoiled(part))
    code, output = run(config)
    # What is logged on the way has a time and a module; the last line is the one.
    line = output.splitlines()[-1]
    assert code == 2, output
    assert "Traceback" not in output
    assert f"the champion {bad.version} cannot be served: " in line
    assert why in line
    assert line.endswith(advice(good))
    assert Registry(registry).champion() == bad.version


def advice(good: Bundle | None) -> str:
    if good is None:
        return "train another one: candlecast train --promote"
    return f"to serve {good.version}, the model before it, run: candlecast models rollback"


def test_promoting_an_unservable_model_warns(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    registry = tmp_path / "state" / "registry"
    bad = promote(registry, CANDLES, indicators=Indicators(), **spoiled("prefix"))
    done = subprocess.run(
        [sys.executable, "-m", "daemon", "models", "promote", bad.version, "--config", str(config)],
        capture_output=True, text=True, timeout=MAX_WAIT_S, check=True,
    )  # fmt: skip
    assert "the daemon will not serve it: the network's weights are not all finite" in done.stdout


def test_a_champion_whose_forecasts_are_absurd_ends_the_start(tmp_path: Path) -> None:
    """On an empty machine the history that it is held against comes from the exchange first."""
    with (
        sandbox_process("--symbols", "2", "--history", str(HISTORY)) as exchange,
        mosquitto(tmp_path) as broker,
        mosquitto_sub(broker.port, "candlecast/#") as subscriber,
    ):
        playback = playback_of(exchange)
        config = write_config(tmp_path, sections(exchange, broker.port, free_port()))
        until_ms = playback.origin_ms + HISTORY * SECOND.ms
        past = {s: playback.history(s, playback.origin_ms, until_ms)[1] for s in playback.symbols}
        scalers = fitted_scalers(past, LOG_RETURN_FEATURES, Indicators(), "log_return")
        odd = playback.symbols[-1]
        registry = tmp_path / "state" / "registry"
        common: dict[str, Any] = {
            "timeframe": SECOND.text, "indicators": Indicators(), "lookback": 60,
        }  # fmt: skip
        good = promote(registry, past, scalers=scalers, **common)
        absurd = shifted(scalers, [odd], target_offset=20.0)
        bad = promote(registry, past, scalers=absurd, **common)
        code, output = run(config)
        assert code == 2, output
        line = output.splitlines()[-1]
        assert f"the champion {bad.version} cannot be served: " in line
        assert f"the forecasts of 1 of 2 symbols cannot be published: that of {odd} is " in line
        assert "e+08 times away from the last close" in line
        assert line.endswith(advice(good))
        assert "Traceback" not in output
        messages = subscriber.received()
        assert all(forecast["symbol"] != odd for forecast in predictions(messages))
        states = [json.loads(m["payload"])["state"] for m in messages if "/status/" in m["topic"]]
        assert states
        assert "online" not in states
