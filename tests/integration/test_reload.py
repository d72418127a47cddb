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

from tests.integration.model_harness import Theatre, assert_counted, assert_true, theatre


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    with theatre(tmp_path_factory.mktemp("reload")) as made:
        yield made


def rewrite(stage: Theatre, section: str, **settings: Any) -> None:
    """Change the configuration file and tell the daemon."""
    content = yaml.safe_load(stage.config.read_text())
    content.setdefault(section, {}).update(settings)
    stage.config.write_text(yaml.safe_dump(content))
    stage.running.process.send_signal(signal.SIGHUP)


def heard_of(stage: Theatre, since: int) -> set[str]:
    return {forecast["symbol"] for forecast in stage.listen()[since:]}


def test_symbols_come_and_go_without_disturbing_the_others(stage: Theatre) -> None:
    *everything, unknown = stage.playback.symbols
    few, other = everything[:5], everything[3:]
    version = stage.first.version
    stage.until_served(version, candles=3)

    rewrite(stage, "trading", symbols=few)
    stage.until(lambda: "symbols added: none; removed: S05" in stage.running.log)
    since = len(stage.listen())
    stage.until(lambda: len(stage.listen()) >= since + 3 * len(few))
    assert heard_of(stage, since) <= set(few)

    rewrite(stage, "trading", symbols=other)
    stage.until(lambda: "removed: S00/USDT, S01/USDT, S02/USDT" in stage.running.log)
    since = len(stage.listen())
    stage.until(lambda: len(stage.listen()) >= since + 3 * len(other))
    assert heard_of(stage, since) == set(other)
    metrics = stage.running.get("/metrics")[1]
    assert 'symbol="S03/USDT"' in metrics
    assert 'symbol="S00/USDT"' not in metrics

    # What cannot be is refused, named, and changes nothing.
    rewrite(stage, "trading", symbols=[*other, unknown])
    stage.until(lambda: f"was not trained on {unknown}" in stage.running.log)
    rewrite(stage, "trading", symbols=other, timeframe="7 bananas")
    stage.until(lambda: "trading.timeframe" in stage.running.log)
    rewrite(stage, "trading", timeframe="1s")
    rewrite(stage, "trading", symbols=other)
    rewrite(stage, "accuracy", window=1000)
    stage.until(lambda: "applied only by a restart: accuracy.window" in stage.running.log)
    since = len(stage.listen())
    stage.until(lambda: len(stage.listen()) >= since + 3 * len(other))
    assert heard_of(stage, since) == set(other)

    assert "Traceback" not in stage.running.log
    stayed = {"S03/USDT", "S04/USDT"}
    assert_counted(stage, [f for f in stage.listen() if f["symbol"] in stayed])
    for symbol in everything:
        mine = {f["seq"]: f for f in stage.listen() if f["symbol"] == symbol}
        assert_true(stage, symbol, [mine[seq] for seq in sorted(mine)])


def test_an_unknown_symbol_is_forecast_where_that_is_asked_for_and_says_so(
    stage: Theatre, repository: Path
) -> None:
    *known, unknown = stage.playback.symbols
    version = stage.first.version
    rewrite(stage, "trading", symbols=known)
    rewrite(stage, "model", unknown_symbols="fit_on_warmup")
    rewrite(stage, "trading", symbols=[*known, unknown])
    stage.until(lambda: unknown in heard_of(stage, 0))
    # A new model fits it anew, and it is served without a break.
    stage.models("promote", stage.second.version)
    stage.until_served(stage.second.version)
    validator = jsonschema.Draft202012Validator(
        json.loads((repository / "docs" / "prediction.schema.json").read_text())
    )
    for forecast in stage.listen():
        validator.validate(forecast)
        says = forecast["model"].get("scaler")
        assert says == ("warmup" if forecast["symbol"] == unknown else None)
    mine = {f["seq"]: f for f in stage.forecasts if f["symbol"] == unknown}
    assert_counted(stage, list(mine.values()))
    assert {f["model"]["version"] for f in mine.values()} == {version, stage.second.version}
    for forecast in mine.values():
        # A scaler of another market would give anything.
        assert forecast["predicted_return"] == pytest.approx(0.0, abs=0.05)
    rewrite(stage, "trading", symbols=[*known, unknown, "NEW/USDT"])
    stage.until(lambda: "binance has no symbol NEW/USDT" in stage.running.log)
    # Back to the safe setting: the symbol has to go first.
    rewrite(stage, "model", unknown_symbols="refuse")
    stage.models("rollback")
    stage.until(lambda: "the champion cannot be served, model" in stage.running.log)
    rewrite(stage, "trading", symbols=known)
    stage.until_served(version)
