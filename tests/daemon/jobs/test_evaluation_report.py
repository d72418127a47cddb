from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from daemon.jobs.evaluation_report import Scores, as_json, lines, notes, table
from model.stats.bootstrap import Estimate
from model.stats.scores import Evaluation

NONE = Estimate(np.nan, np.nan, np.nan)
ONE = Evaluation(
    n=43_200,
    candles=43_200,
    moves=41_000,
    mae=Estimate(32.0882, 28.8, 36.0),
    mae_percent=Estimate(0.04213, 0.03778, 0.04735),
    last_value_mae=32.1,
    last_value_percent=0.04214,
    mae_ratio=Estimate(0.99969, 0.9991, 0.9998),
    direction=Estimate(0.5217, 0.505, 0.538),
)
WIDE = ONE._replace(
    n=1_000_000,
    candles=1_000_000,
    mae=Estimate(0.000043321, 0.00004, 0.00005),
    mae_ratio=Estimate(18.9856, 15.5571, 23.1156),
    direction=NONE,
)
UNDECIDED = "On these candles, the model and the last-value forecast do not differ significantly."
SCORES = Scores(
    model="20261123T020000Z-3f9a1c",
    target="log_return",
    timeframe="1m",
    from_ms=1_776_681_480_000,
    to_ms=1_776_859_620_000,
    symbols={"BTC/USDT:USDT": ONE, "1000000MOG/USDT:USDT": WIDE},
    overall=ONE._replace(n=1_043_200, mae=NONE),
    reference_direction=None,
)


def shown(scores: Scores) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=80).print(table(scores))
    return text.getvalue().splitlines()


def test_the_widest_table_fits_eighty_columns_uncut() -> None:
    text = shown(SCORES)
    assert max(map(len, text)) <= 80
    assert not any("…" in line for line in text)
    for cell in ("1000000", "4.3321e-05", "19.0", "15.6 23.1", "0.9991 0.9998", "52.2"):
        assert any(cell in line for line in text)


def test_all_symbols_together_have_no_error_in_price() -> None:
    assert next(line for line in shown(SCORES) if line.split()[:1] == ["all"]).split() == [
        "all", "43200", "0.0421", "0.0421", "0.9997", "52.2",
    ]  # fmt: skip
    *_, last = lines(SCORES)
    assert last.startswith("all: 43200 candles, error % 0.0421 (0.0378 to 0.0474), last value's")


def test_one_symbol_alone_is_not_repeated() -> None:
    alone = replace(SCORES, symbols={"BTC/USDT": ONE})
    assert [line.partition(":")[0] for line in list(lines(alone))[1:]] == ["BTC/USDT"]


def test_missing_figures_are_a_dash_and_null() -> None:
    assert "direction % – (– to –)" in list(lines(SCORES))[2]
    document = json.loads(as_json(SCORES))
    nothing = {"value": None, "low": None, "high": None}
    assert document["symbols"]["1000000MOG/USDT:USDT"]["direction"] == nothing
    assert document["all"]["mae"] == nothing
    assert document["all"]["mae_ratio"] == {"value": 0.99969, "low": 0.9991, "high": 0.9998}


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (Estimate(0.99, 0.98, 0.999), "The model is better than the last-value forecast."),
        (Estimate(1.02, 1.01, 1.03), "The model is worse than the last-value forecast."),
        (
            Estimate(0.99, 0.98, 1.0),
            "On these candles, the model and the last-value forecast do not differ significantly.",
        ),
        (
            NONE,
            "On these candles, the model and the last-value forecast do not differ significantly.",
        ),
    ],
)
def test_only_an_interval_that_excludes_one_is_a_verdict(ratio: Estimate, verdict: str) -> None:
    scores = replace(SCORES, overall=ONE._replace(mae_ratio=ratio))
    assert next(notes(scores)) == verdict
