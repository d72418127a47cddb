"""Reload a real process with other symbols and with a wrong configuration."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.integration.model_harness import ModelHarness, assert_counted, assert_true, model_harness


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelHarness]:
    with model_harness(tmp_path_factory.mktemp("reload")) as made:
        yield made


def rewrite(harness: ModelHarness, section: str, **settings: Any) -> None:
    """Change the configuration file and make the daemon reload it."""
    content = yaml.safe_load(harness.config.read_text())
    content.setdefault(section, {}).update(settings)
    harness.config.write_text(yaml.safe_dump(content))
    harness.running.process.send_signal(signal.SIGHUP)


def forecast_symbols(harness: ModelHarness, since: int) -> set[str]:
    return {forecast["symbol"] for forecast in harness.listen()[since:]}


def test_symbols_are_added_and_removed_without_affecting_the_others(harness: ModelHarness) -> None:
    *everything, unknown = harness.playback.symbols
    few, other = everything[:5], everything[3:]
    version = harness.first.version
    harness.until_served(version, candles=3)

    rewrite(harness, "trading", symbols=few)
    harness.until(lambda: "symbols added: none; removed: S05" in harness.running.log)
    since = len(harness.listen())
    harness.until(lambda: len(harness.listen()) >= since + 3 * len(few))
    assert forecast_symbols(harness, since) <= set(few)

    rewrite(harness, "trading", symbols=other)
    harness.until(lambda: "removed: S00/USDT, S01/USDT, S02/USDT" in harness.running.log)
    since = len(harness.listen())
    harness.until(lambda: len(harness.listen()) >= since + 3 * len(other))
    assert forecast_symbols(harness, since) == set(other)
    metrics = harness.running.get("/metrics")[1]
    assert 'symbol="S03/USDT"' in metrics
    assert 'symbol="S00/USDT"' not in metrics

    # An impossible value is refused, named, and changes nothing.
    rewrite(harness, "trading", symbols=[*other, unknown])
    harness.until(lambda: f"was not trained on {unknown}" in harness.running.log)
    rewrite(harness, "trading", symbols=other, timeframe="7 bananas")
    harness.until(lambda: "trading.timeframe" in harness.running.log)
    rewrite(harness, "trading", timeframe="1s")
    rewrite(harness, "trading", symbols=other)
    rewrite(harness, "accuracy", window=1000)
    harness.until(lambda: "applied only by a restart: accuracy.window" in harness.running.log)
    since = len(harness.listen())
    harness.until(lambda: len(harness.listen()) >= since + 3 * len(other))
    assert forecast_symbols(harness, since) == set(other)

    assert "Traceback" not in harness.running.log
    stayed = {"S03/USDT", "S04/USDT"}
    assert_counted(harness, [f for f in harness.listen() if f["symbol"] in stayed])
    for symbol in everything:
        mine = {f["seq"]: f for f in harness.listen() if f["symbol"] == symbol}
        assert_true(harness, symbol, [mine[seq] for seq in sorted(mine)])


def test_an_unknown_symbol_is_forecast_and_marked_where_configured(
    harness: ModelHarness, repository: Path
) -> None:
    *known, unknown = harness.playback.symbols
    version = harness.first.version
    rewrite(harness, "trading", symbols=known)
    rewrite(harness, "model", unknown_symbols="fit_on_warmup")
    rewrite(harness, "trading", symbols=[*known, unknown])
    harness.until(lambda: unknown in forecast_symbols(harness, 0))
    # A new model fits it anew, and it is served without a break.
    harness.models("promote", harness.second.version)
    harness.until_served(harness.second.version)
    validator = jsonschema.Draft202012Validator(
        json.loads((repository / "docs" / "prediction.schema.json").read_text())
    )
    for forecast in harness.listen():
        validator.validate(forecast)
        says = forecast["model"].get("scaler")
        assert says == ("warmup" if forecast["symbol"] == unknown else None)
    mine = {f["seq"]: f for f in harness.forecasts if f["symbol"] == unknown}
    assert_counted(harness, list(mine.values()))
    assert {f["model"]["version"] for f in mine.values()} == {version, harness.second.version}
    for forecast in mine.values():
        # A scaler of another market would give anything.
        assert forecast["predicted_return"] == pytest.approx(0.0, abs=0.05)
    rewrite(harness, "trading", symbols=[*known, unknown, "NEW/USDT"])
    harness.until(lambda: "binance has no symbol NEW/USDT" in harness.running.log)
    # Back to the safe setting: the symbol has to go first.
    rewrite(harness, "model", unknown_symbols="refuse")
    harness.models("rollback")
    harness.until(lambda: "the champion cannot be served, model" in harness.running.log)
    rewrite(harness, "trading", symbols=known)
    harness.until_served(version)
