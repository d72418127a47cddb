"""Test what the benchmarks compute from their measurements."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.__main__ import PARTS
from benchmarks.daemon import flamegraph
from benchmarks.daemon.constant_model import Constant, replace
from benchmarks.daemon.soak import trend
from benchmarks.goals import GOALS, fastest_other, goals
from benchmarks.tables import TABLES
from model.serving import ServedModel

PERFORMANCE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"


def test_every_block_of_the_page_has_its_table_and_the_other_way_round() -> None:
    begun = re.findall(r"^<!-- (\w+) -->$", PERFORMANCE.read_text(encoding="utf-8"), re.MULTILINE)
    assert begun.count("end") == len(begun) / 2
    assert begun[1::2] == ["end"] * (len(begun) // 2)
    assert sorted(begun[::2]) == sorted([*TABLES, "goals"])


@pytest.mark.parametrize("name", PARTS)
def test_every_part_is_a_module(name: str) -> None:
    assert importlib.util.find_spec(f"benchmarks.{PARTS[name].module}") is not None


def test_goals_are_compared_with_what_was_measured() -> None:
    ms = {"p50": 1.0, "p99": 2.9, "max": 3.0}
    slow = {"p50": 20.0, "p99": 28.0, "max": 30.0}
    sizes = {"1": {"ours": {"message_ms": ms}, "straightforward": {"message_ms": slow}}}
    rows = goals({"pipeline": {"sizes": sizes}}).splitlines()
    assert len(rows) == len(GOALS) + 2
    found = {row.split("|")[1].strip(): row for row in rows}
    assert "| yes" in found["close to subscriber, p99, 1 symbol"]
    assert "**no**" in found["straightforward daemon ÷ candlecast, p99, 1 symbol"]
    assert "not measured" in found["close to subscriber, p99, 1,000 symbols"]


def test_the_fastest_other_engine_is_neither_ours_nor_inexact_nor_failed() -> None:
    row = {"our step, 1": {"p50": 1}, "OpenVINO bf16, 1": {"p50": 2}, "XLA, 1": {"p50": 4},
           "LiteRT, 1": {"p50": 3}, "predict, 1": "failed: no"}  # fmt: skip
    assert fastest_other(row) == ("LiteRT, 1", 3)


@given(st.floats(-5, 5), st.floats(0, 500), st.integers(0, 2**32 - 1))
def test_a_slope_is_found_within_its_error(slope: float, level: float, seed: int) -> None:
    days = np.linspace(3.5, 7.0, 84)
    noise = np.random.default_rng(seed).normal(0, 0.3, len(days))
    found, error = trend(days, level + slope * days + noise)
    assert abs(found - slope) < 6 * error
    assert 0.01 < error < 0.3


def test_correlated_neighbours_widen_the_error() -> None:
    days = np.linspace(3.5, 7.0, 84)
    noise = np.random.default_rng(5).normal(0, 0.3, len(days))
    for values, least, most in ((noise, 1.0, 1.3), (np.cumsum(noise), 2.0, 10.0)):
        _, covariance = np.polyfit(days, values, 1, cov=True)
        assert least <= trend(days, values)[1] / covariance[0, 0] ** 0.5 * 1.0001 <= most


STACKS = """\
# mode: cpu
P7;T0:7;/lib/runpy.py:run:1;/lib/asyncio/runners.py:Runner.run:2;{daemon}:Pipeline._flush:3 600
P7;T0:7;/lib/runpy.py:run:1;/lib/asyncio/runners.py:Runner.run:2;{ccxt}:Client.receive_loop:4 300
P7;T0:7;/lib/runpy.py:run:1;/lib/asyncio/runners.py:Runner.run:2 100
P7;T0:8;/lib/threading.py:Thread.run:1 5000
"""


def test_a_flame_graph_shows_what_the_loop_ran_and_nothing_of_other_threads() -> None:
    repository = Path(flamegraph.__file__).parents[2]
    stacks = STACKS.format(
        daemon=repository / "daemon" / "pipeline.py", ccxt="/lib/site-packages/ccxt/client.py"
    )
    root = flamegraph.read(stacks)
    assert root.time_us == 1000
    shares = {(f.name, f.author): callee.time_us for f, callee in root.callees.items()}
    assert shares == {
        ("Pipeline._flush", "candlecast"): 600,
        ("Client.receive_loop", "ccxt and the websocket"): 300,
        (flamegraph.LOOP.name, "other libraries"): 100,
    }
    drawn = ET.fromstring(flamegraph.draw(root, "1,000 symbols"))  # noqa: S314 - our own
    titles = [title.text for title in drawn.iter("{http://www.w3.org/2000/svg}title")]
    assert "Pipeline._flush 60.0 %" in titles


def test_the_floor_replaces_the_model_wherever_it_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So that all of them are put back.
    for name in [name for name in vars(Constant) if not name.startswith("__")]:
        monkeypatch.setattr(ServedModel, name, getattr(ServedModel, name))
    replace()
    served = ServedModel.__new__(ServedModel)
    two = np.array([0, 3], dtype=np.intp)
    assert served.step(two).tolist() == [0.0, 0.0]
    assert served.price(two, served.step(two), np.array([5.0, 7.0])).tolist() == [5.0, 7.0]
