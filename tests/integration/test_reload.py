"""A SIGHUP takes up other symbols and a wrong configuration harms nobody: a real process."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml

from tests.integration.test_swap import Theatre, assert_true, theatre

__all__ = ["theatre"]


def rewrite(stage: Theatre, section: str, **settings: Any) -> None:
    """Change the configuration file and tell the daemon."""
    content = yaml.safe_load(stage.config.read_text())
    content.setdefault(section, {}).update(settings)
    stage.config.write_text(yaml.safe_dump(content))
    stage.running.process.send_signal(signal.SIGHUP)


def heard_of(stage: Theatre, since: int) -> set[str]:
    return {forecast["symbol"] for forecast in stage.listen()[since:]}


def test_symbols_come_and_go_without_disturbing_the_others(theatre: Theatre) -> None:
    *everything, unknown = theatre.tape.symbols
    few, other = everything[:5], everything[3:]
    version = theatre.first.version
    theatre.until_served(version, candles=3)

    rewrite(theatre, "trading", symbols=few)
    theatre.until(lambda: "symbols added: none; removed: S05" in theatre.running.log)
    since = len(theatre.listen())
    theatre.until(lambda: len(theatre.listen()) >= since + 3 * len(few))
    assert heard_of(theatre, since) <= set(few)

    rewrite(theatre, "trading", symbols=other)
    theatre.until(lambda: "removed: S00/USDT, S01/USDT, S02/USDT" in theatre.running.log)
    since = len(theatre.listen())
    theatre.until(lambda: len(theatre.listen()) >= since + 3 * len(other))
    assert heard_of(theatre, since) == set(other)
    metrics = theatre.running.get("/metrics")[1]
    assert 'symbol="S03/USDT"' in metrics
    assert 'symbol="S00/USDT"' not in metrics

    # What cannot be is refused, named, and changes nothing.
    rewrite(theatre, "trading", symbols=[*other, unknown])
    theatre.until(lambda: f"was not trained on {unknown}" in theatre.running.log)
    rewrite(theatre, "trading", symbols=other, timeframe="7 bananas")
    theatre.until(lambda: "trading.timeframe" in theatre.running.log)
    rewrite(theatre, "trading", timeframe="1s")
    rewrite(theatre, "trading", symbols=other)
    rewrite(theatre, "accuracy", window=1000)
    theatre.until(lambda: "only a restart takes it up: accuracy.window" in theatre.running.log)
    since = len(theatre.listen())
    theatre.until(lambda: len(theatre.listen()) >= since + 3 * len(other))
    assert heard_of(theatre, since) == set(other)

    assert theatre.running.stop() == 0, theatre.running.log
    assert "Traceback" not in theatre.running.log
    time.sleep(0.2)
    for symbol in everything:
        mine = {f["seq"]: f for f in theatre.listen() if f["symbol"] == symbol}
        assert_true(theatre, symbol, [mine[seq] for seq in sorted(mine)])
        if symbol in {"S03/USDT", "S04/USDT"}:
            assert np.all(np.diff(sorted(mine)) == 1), f"{symbol} stayed and misses a candle"


def test_an_unknown_symbol_is_forecast_where_that_is_asked_for_and_says_so(
    theatre: Theatre, repository: Path
) -> None:
    *known, unknown = theatre.tape.symbols
    version = theatre.first.version
    theatre.until_served(version)
    rewrite(theatre, "model", unknown_symbols="fit_on_warmup")
    rewrite(theatre, "trading", symbols=[*known, unknown])
    theatre.until(lambda: unknown in heard_of(theatre, 0))
    # A new model fits it anew, and it is served without a break.
    theatre.models("promote", theatre.second.version)
    theatre.until_served(theatre.second.version)
    validator = jsonschema.Draft202012Validator(
        json.loads((repository / "docs" / "prediction.schema.json").read_text())
    )
    for forecast in theatre.listen():
        validator.validate(forecast)
        says = forecast["model"].get("scaler")
        assert says == ("warmup" if forecast["symbol"] == unknown else None)
    mine = {f["seq"]: f for f in theatre.forecasts if f["symbol"] == unknown}
    assert np.all(np.diff(sorted(mine)) == 1)
    assert {f["model"]["version"] for f in mine.values()} == {version, theatre.second.version}
    for forecast in mine.values():
        # A scaler of another market would give anything.
        assert forecast["predicted_return"] == pytest.approx(0.0, abs=0.05)
    rewrite(theatre, "trading", symbols=[*known, unknown, "NEW/USDT"])
    theatre.until(lambda: "binance has no symbol NEW/USDT" in theatre.running.log)
    # Back to the safe setting: the symbol has to go first.
    rewrite(theatre, "model", unknown_symbols="refuse")
    theatre.models("rollback")
    theatre.until(lambda: f"was not trained on {unknown}" in theatre.running.log)
    rewrite(theatre, "trading", symbols=known)
    theatre.until_served(version)
