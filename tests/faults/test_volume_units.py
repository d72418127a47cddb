"""Test streams whose volume unit differs from the history's: forecasts stay right."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.sandbox.market import Kline
from tests.faults.assertions import check
from tests.faults.fault_harness import FaultHarness
from tests.sandbox.scaled import ScaledClock, minute_playback
from tests.support.servers import Subscriber, mosquitto_sub

FACTOR = 60.0
"""A minute passes in a second."""

CANDLES = 8


def contracts(kline: Kline) -> float:
    return 1_000.0 * kline.ohlcv.volume


def quote(kline: Kline) -> float:
    return kline.quote_volume


def arena_of(folder: Path, volume: Callable[[Kline], float]) -> FaultHarness:
    playback = minute_playback(2, ScaledClock(FACTOR).wall_ms())
    harness = FaultHarness(folder, playback, FACTOR)
    harness.exchange.faults.stream_volume = volume
    return harness


def sample(harness: FaultHarness, verdict: str) -> float | None:
    assert harness.app is not None
    name = "candlecast_feed_volume_symbols"
    return harness.app.metrics.registry.get_sample_value(name, {"verdict": verdict})


def final_by(harness: FaultHarness, since: int = 0) -> set[str]:
    """By what the candles of forecasts were final."""
    documents = [json.loads(payload) for _, payload in harness.published[since:]]
    return {forecast["window"]["final_by"] for forecast in documents}


def late_symbols(subscriber: Subscriber) -> list[str]:
    """The symbols named by the newest status, which is degraded because of them."""
    messages = subscriber.received()
    if not messages:
        return []
    status = json.loads(messages[-1]["payload"])
    symbols: list[str] = status["rest_only_symbols"]
    assert status["state"] == "degraded" or not symbols
    return symbols


@pytest.mark.may_block("opening a model and a broker takes place before there is a deadline")
async def test_contracts_instead_of_base_currency_are_scaled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    harness = arena_of(tmp_path, contracts)
    async with harness.running():
        await harness.until(lambda: sample(harness, "scaled") == 2.0)
        before = len(harness.published)
        await harness.until(lambda: len(harness.published) >= before + CANDLES)
        await harness.until(lambda: "exchange_flag" in final_by(harness, before))
        check(harness)
    for symbol in harness.playback.symbols:
        assert (
            f"volumes of {symbol} are 0.001 times as large by REST as by websocket" in caplog.text
        )


@pytest.mark.may_block("opening a model and a broker takes place before there is a deadline")
async def test_quote_currency_instead_of_base_currency_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    harness = arena_of(tmp_path, quote)
    async with harness.running():
        await harness.until(lambda: sample(harness, "refused") == 2.0)
        before = len(harness.published)
        await harness.until(lambda: len(harness.published) >= before + CANDLES)
        with mosquitto_sub(harness.broker.port, "candlecast/v1/status/tester") as subscriber:
            await harness.until(lambda: late_symbols(subscriber) == list(harness.playback.symbols))
        check(harness)
    assert final_by(harness) == {"rest"}
    assert "cannot be reconciled (one of them counts quote currency)" in caplog.text


@pytest.mark.may_block("opening a model and a broker takes place before there is a deadline")
async def test_equal_volumes_are_accepted_without_a_log_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    harness = arena_of(tmp_path, lambda kline: kline.ohlcv.volume)
    async with harness.running():
        await harness.until(lambda: sample(harness, "equal") == 2.0)
        before = len(harness.published)
        await harness.until(lambda: len(harness.published) >= before + CANDLES)
        check(harness)
    assert "volumes of" not in caplog.text


@pytest.mark.may_block("opening a model and a broker takes place before there is a deadline")
async def test_volumes_of_an_undocumented_market_are_used_when_they_have_been_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.feed.feed.is_unit_known", lambda _exchange, _symbol: False)
    # Within the range of the history, so that only the comparison detects it.
    harness = arena_of(tmp_path, lambda kline: 4.0 * kline.ohlcv.volume)
    async with harness.running():
        await harness.until(lambda: sample(harness, "scaled") == 2.0)
        before = len(harness.published)
        await harness.until(lambda: "exchange_flag" in final_by(harness, before))
        check(harness)


@pytest.mark.may_block("opening a model and a broker takes place before there is a deadline")
async def test_a_change_of_units_is_noticed_on_the_next_connection(tmp_path: Path) -> None:
    harness = arena_of(tmp_path, lambda kline: kline.ohlcv.volume)
    async with harness.running():
        await harness.until(lambda: sample(harness, "equal") == 2.0)
        harness.exchange.faults.stream_volume = contracts
        harness.exchange.streams.abort_all()
        await harness.until(lambda: sample(harness, "scaled") == 2.0)
        harness.exchange.faults.stream_volume = None
        harness.exchange.streams.abort_all()
        await harness.until(lambda: sample(harness, "equal") == 2.0)
