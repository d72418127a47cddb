"""The judgement of doctor's measurements."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.doctor.findings import (
    Finding,
    StreamResult,
    judge_clock,
    judge_disk,
    judge_health,
    judge_stream,
    judge_unit,
    ok,
    problem,
    unknown,
    verdict,
)

GIB = 2**30
RUNS = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled"}


@pytest.mark.parametrize(
    ("offset_s", "error_s", "good", "text"),
    [
        (0.02, 0.01, True, "0.020 s behind"),
        (-0.9, 0.01, True, "0.900 s ahead of"),
        (1.5, 0.01, False, "1.500 s behind"),
        (1.5, 0.6, True, "1.500 s behind"),
        (-3600.0, 0.1, False, "3600.000 s ahead of"),
        (None, 0.0, None, "does not report"),
    ],
)
def test_the_clock(offset_s: float | None, error_s: float, *, good: bool | None, text: str) -> None:
    finding = judge_clock(offset_s, error_s)
    assert finding.good is good
    assert text in finding.text
    assert bool(finding.advice) is (good is False)


@pytest.mark.parametrize(
    ("free", "held", "good"), [(3 * GIB, 0, True), (2 * GIB, 0, False), (2 * GIB, GIB, True)]
)
def test_the_disk(free: int, held: int, *, good: bool) -> None:
    # 100 symbols × 90 days × 1,440 minutes × 150 bytes, and a gibibyte to spare.
    finding = judge_disk(free, held, 100, 60_000, 90.0)
    assert finding.good is good
    assert "90 days of history and models need 2.8 GiB" in finding.text


@pytest.mark.parametrize(
    ("changes", "good", "text", "advice"),
    [
        ({}, True, "is active", ""),
        ({"LoadState": "not-found"}, None, "is not installed", ""),
        ({"ActiveState": "inactive"}, False, "is inactive", "systemctl enable --now x.service"),
        (
            {"ActiveState": "failed", "Result": "exit-code"},
            False,
            "has failed (exit-code)",
            "journalctl --unit x.service",
        ),
        (
            {"UnitFileState": "disabled"},
            False,
            "does not start with the machine",
            "systemctl enable x.service",
        ),
        ({"ActiveState": "reloading"}, True, "is reloading", ""),
    ],
)
def test_a_unit(changes: dict[str, str], *, good: bool | None, text: str, advice: str) -> None:
    finding = judge_unit("x.service", RUNS | changes)
    assert finding.good is good
    assert text in finding.text
    assert advice in finding.advice


@pytest.mark.parametrize(
    ("status", "health", "good", "text"),
    [
        (200, {"alive": True, "ready": True}, True, "is ready"),
        (200, {"alive": True, "ready": True, "rest_only_symbols": []}, True, "is ready"),
        (
            200,
            {"alive": True, "ready": True, "rest_only_symbols": ["A", "B"]},
            False,
            "gets candles of 2 symbols late, by REST only",
        ),
        (
            200,
            {"alive": True, "ready": False, "stale_symbols": ["A", "B"], "broker_connected": False},
            False,
            "not ready: 2 stale symbols, no broker",
        ),
        (503, {"alive": False, "ready": False}, False, "does not make progress"),
        (200, {"hello": 1}, False, "another program"),
        (0, None, False, "another program"),
        (401, None, None, "requires a login"),
    ],
)
def test_the_server_at_the_address_of_the_pages(
    status: int, health: dict[str, Any] | None, *, good: bool | None, text: str
) -> None:
    finding = judge_health("127.0.0.1:9108", status, health)
    assert finding.good is good
    assert text in finding.text


def test_the_verdict_counts_only_failed_findings() -> None:
    fine = [ok("a", "x"), unknown("b", "y")]
    assert verdict(fine) == (True, "No problems found.")
    assert verdict([*fine, problem("c", "z", "do")]) == (False, "1 problem found.")
    assert verdict([problem("c", "z", "do")] * 2) == (False, "2 problems found.")
    assert Finding("a", good=True, text="x") == ok("a", "x")


@pytest.mark.parametrize(
    ("changes", "good", "text"),
    [
        ({"received": {"A", "B"}}, True, "candles of A, B are received by websocket"),
        (
            {"received": {"A"}},
            True,
            "of A are received by websocket; no candle of B within 60 s, nor",
        ),
        (
            {"received": {"A"}, "missing": {"B"}},
            False,
            "streams no candles of B, though there were",
        ),
        ({"missing": {"A", "B"}}, False, "streams no candles of A, B, though"),
        ({"missing": {"A"}, "invalid": ValueError("odd")}, False, "trades: ValueError('odd')"),
        ({"invalid": ValueError("odd")}, False, "cannot read kraken: ValueError('odd')"),
        ({"error": OSError("away")}, False, "kraken's stream fails: away"),
        ({}, False, "no candle of A, B within 60 s: no trades, or no stream"),
    ],
)
def test_what_is_received(changes: dict[str, Any], *, good: bool, text: str) -> None:
    silence = StreamResult(("A", "B"), set(), set(), 60.0)
    finding = judge_stream("kraken", silence._replace(**changes))
    assert finding.good is good
    assert text in finding.text
    assert bool(finding.advice) is not good


def test_many_symbols_are_counted() -> None:
    symbols = [f"S{at}" for at in range(8)]
    finding = judge_stream("kraken", StreamResult(symbols, set(symbols), set(), 60.0))
    assert finding.text == "candles of S0, S1, S2 and 5 more are received by websocket"
