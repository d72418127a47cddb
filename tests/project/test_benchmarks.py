"""Test what the benchmarks compute from their measurements."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import mqtt5
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.__main__ import PARTS
from benchmarks.capacity import capacity, cores
from benchmarks.daemon import flamegraph
from benchmarks.daemon.constant_model import Constant, replace
from benchmarks.daemon.soak import trend
from benchmarks.goals import GOALS, fastest_other, goals
from benchmarks.harness.load import Usage, others, own_ticks, usage
from benchmarks.harness.subscriber import Subscriber, forecasts
from benchmarks.pipeline_tables import cpu
from benchmarks.tables import TABLES, fill
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


def test_all_parts_together_end_within_an_hour() -> None:
    assert sum(part.limit_s for part in PARTS.values()) <= 3_600


def test_goals_are_compared_with_what_was_measured() -> None:
    ms = {"p50": 1.0, "p99": 2.9, "max": 3.0}
    slow = {"p50": 20.0, "p99": 28.0, "max": 30.0}
    sizes = {"1": {"ours": {"message_ms": ms}, "straightforward": {"message_ms": slow}}}
    rows = goals({"pipeline": {"quiet": sizes, "busy": {}}}).splitlines()
    assert len(rows) == len(GOALS) + 2
    found = {row.split("|")[1].strip(): row for row in rows}
    assert "| yes" in found["close to subscriber, p99, 1 symbol"]
    assert "**no**" in found["straightforward daemon ÷ candlecast, p99, 1 symbol, quiet"]
    assert "not measured" in found["straightforward daemon ÷ candlecast, p99, 1 symbol, busy"]
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


class _Transport(asyncio.WriteTransport):
    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))


@given(
    st.lists(st.tuples(st.binary(max_size=300), st.booleans()), max_size=8),
    st.lists(st.integers(1, 200), min_size=1, max_size=50),
)
def test_a_subscriber_acknowledges_every_message_and_decodes_afterwards(
    messages: list[tuple[bytes, bool]], cuts: list[int]
) -> None:
    packets = [
        mqtt5.PublishPacket(
            "candlecast/v1/x/A-B/1m/prediction",
            payload=payload,
            qos=mqtt5.QoS.AT_LEAST_ONCE if acknowledged else mqtt5.QoS.AT_MOST_ONCE,
            packet_id=number if acknowledged else None,
        )
        for number, (payload, acknowledged) in enumerate(messages, 1)
    ]
    stream = mqtt5.SubAckPacket(1, [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE]).write()
    stream += b"".join(packet.write() for packet in packets)
    subscriber, transport = Subscriber(0.0), _Transport()
    subscriber.connection_made(transport)
    transport.written.clear()
    for cut in itertools.cycle(cuts):
        if not stream:
            break
        subscriber.data_received(stream[:cut])
        stream = stream[cut:]
    assert subscriber.subscribed.is_set()
    answers = [mqtt5.PubAckPacket(p.packet_id).write() for p in packets if p.packet_id is not None]
    assert b"".join(transport.written) == b"".join(answers)
    assert [packet.payload or b"" for _, packet in forecasts(subscriber.chunks)] == [
        payload for payload, _ in messages
    ]


async def test_a_subscriber_acknowledges_when_nothing_more_arrives() -> None:
    subscriber, transport = Subscriber(0.05), _Transport()
    subscriber.connection_made(transport)
    subscriber.subscribed.set()
    transport.written.clear()
    data = mqtt5.PublishPacket("a", payload=b"x", qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=7).write()
    subscriber.data_received(data)
    subscriber.data_received(data)
    assert transport.written == []
    async with asyncio.timeout(10):
        while not transport.written:
            await asyncio.sleep(0.01)
    assert transport.written == [2 * mqtt5.PubAckPacket(7).write()]


def test_a_message_arrived_with_its_last_byte() -> None:
    data = mqtt5.PublishPacket("a", payload=b"x" * 100).write()
    chunks = [(1, data[:50]), (2, data[50:] + data), (3, data[:1]), (4, data[1:])]
    assert [arrived_ns for arrived_ns, _ in forecasts(chunks)] == [2, 2, 4]


def test_others_are_all_but_the_own_process_group() -> None:
    assert others(Usage(10.0, 100.0, 20.0), Usage(20.0, 108.0, 23.0)) == pytest.approx(0.5)
    assert others(Usage(10.0, 100.0, 20.0), Usage(20.0, 102.9, 23.0)) == 0.0
    stat = f"7 (a) b) S 1 42 42 0 -1 0 0 0 0 0 {' '.join('1234')} 20 0 1 0"
    assert own_ticks(stat, 42) == 10
    assert own_ticks(stat, 43) == 0


def test_own_work_is_not_counted_as_that_of_others() -> None:
    before = usage()
    used_s = os.times().user
    while os.times().user - used_s < 0.3:
        pass
    after = usage()
    assert after.own_s - before.own_s >= 0.3
    assert after.all_s - before.all_s >= 0.29


def test_cores_are_those_of_closing_candles_and_of_updates_before() -> None:
    assert cores(1_000, 100.0, 10.0, 1) == pytest.approx(0.1)
    assert cores(1_000, 100.0, 10.0, 60) == pytest.approx(0.4 / 60)


def _measured() -> dict[str, Any]:
    ours = {
        "message_ms": {"p50": 1.0, "p99": 2.0, "max": 3.0},
        "late": 0,
        "rss_mb": 200.0,
        "payload_bytes": 850.0,
        "cpu_us_a_candle": {
            "exchange": 5.0, "subscriber": 4.0, "scraper": 1.0, "broker": 20.0, "daemon": 100.0
        },
    }  # fmt: skip
    us = {"decoding the frame (ccxt)": {"p50": 2.0}, "ccxt's own handler, no tap": {"p50": 12.0}}
    larger = ours | {"rss_mb": 260.0}
    return {
        "pipeline": {
            "quiet": {"2000": {"ours": larger}, "1000": {"ours": ours}},
            "busy": {"1000": {"ours": ours}},
        },
        "receive": {"us_per_candle": us, "us_per_update": {"p50": 10.0}},
        "soak": {"days": {"history_bytes_a_candle": 100.0, "wal_mb": 4.0}},
    }


def test_the_capacity_follows_from_what_was_measured() -> None:
    results = _measured()
    text = capacity(results["pipeline"], results["receive"], results["soak"])
    cells = [[cell.strip() for cell in row.split("|")] for row in text.splitlines()]
    assert cells[2][1:-1] == ["1,000", "2.00", "0", "200", "100", "10.0", "0.667", "0.533", "0.503"]
    assert ["1,000", "1m", "16.7", "14.2", "144"] in [row[1:-1] for row in cells]
    assert "f = 10.0 µs" in text
    assert "140 MB + 60.0 kB" in " ".join(text.split())


def test_the_share_of_the_broker_is_shown() -> None:
    results = _measured()
    text = cpu(results["pipeline"], results["receive"])
    assert "| 0.20 " in text
    assert "14.0 µs a candle" in text


def test_a_result_of_a_busy_machine_is_marked_on_the_page() -> None:
    page = "<!-- receive -->\nold\n<!-- end -->\n<!-- swap -->\nkept\n<!-- end -->\n"
    rows = {"a": {"p50": 1.0, "p99": 2.0}}
    for used, marked in ((0.02, False), (0.25, True)):
        load = {"cores_of_others": used}
        text = fill(page, {"receive": {"us_per_candle": rows, "load": load}})
        assert "old" not in text
        assert "kept" in text
        note = "Measured on a busy machine: other processes used 25 % of a core (receive)."
        assert (note in text) == marked
