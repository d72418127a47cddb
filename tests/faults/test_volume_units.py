"""Test streams whose volume unit differs from the history's: forecasts stay right."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.sandbox.market import Kline
from tests.faults.assertions import check
from tests.faults.fault_harness import Arena
from tests.sandbox.scaled import ScaledClock, minute_playback
from tests.support.servers import Subscriber, mosquitto_sub

FACTOR = 60.0
"""A minute passes in a second."""

CANDLES = 8


def contracts(kline: Kline) -> float:
    return 1_000.0 * kline.ohlcv.volume


def quote(kline: Kline) -> float:
    return kline.quote_volume


def arena_of(folder: Path, volume: Callable[[Kline], float]) -> Arena:
    playback = minute_playback(2, ScaledClock(FACTOR).wall_ms())
    arena = Arena(folder, playback, FACTOR)
    arena.exchange.faults.stream_volume = volume
    return arena


def sample(arena: Arena, verdict: str) -> float | None:
    assert arena.app is not None
    name = "candlecast_feed_volume_symbols"
    return arena.app.metrics.registry.get_sample_value(name, {"verdict": verdict})


def final_by(arena: Arena, since: int = 0) -> set[str]:
    """By what the candles of forecasts were final."""
    told = [json.loads(payload) for _, payload in arena.published[since:]]
    return {forecast["window"]["final_by"] for forecast in told}


def late_symbols(subscriber: Subscriber) -> list[str]:
    """Those that the newest status names; it says degraded because of them."""
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
    arena = arena_of(tmp_path, contracts)
    async with arena.running():
        await arena.until(lambda: sample(arena, "scaled") == 2.0)
        before = len(arena.published)
        await arena.until(lambda: len(arena.published) >= before + CANDLES)
        await arena.until(lambda: "exchange_flag" in final_by(arena, before))
        check(arena)
    for symbol in arena.playback.symbols:
        assert (
            f"volumes of {symbol} are 0.001 times as large by REST as by websocket" in caplog.text
        )


@pytest.mark.may_block("opening a model and a broker takes place before there is a deadline")
async def test_quote_currency_instead_of_base_currency_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arena = arena_of(tmp_path, quote)
    async with arena.running():
        await arena.until(lambda: sample(arena, "refused") == 2.0)
        before = len(arena.published)
        await arena.until(lambda: len(arena.published) >= before + CANDLES)
        with mosquitto_sub(arena.broker.port, "candlecast/v1/status/tester") as subscriber:
            await arena.until(lambda: late_symbols(subscriber) == list(arena.playback.symbols))
        check(arena)
    assert final_by(arena) == {"rest"}
    assert "cannot be reconciled (one of them counts quote currency)" in caplog.text


@pytest.mark.may_block("opening a model and a broker takes place before there is a deadline")
async def test_equal_volumes_are_found_to_be_equal_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arena = arena_of(tmp_path, lambda kline: kline.ohlcv.volume)
    async with arena.running():
        await arena.until(lambda: sample(arena, "equal") == 2.0)
        before = len(arena.published)
        await arena.until(lambda: len(arena.published) >= before + CANDLES)
        check(arena)
    assert "volumes of" not in caplog.text


@pytest.mark.may_block("opening a model and a broker takes place before there is a deadline")
async def test_volumes_of_an_undocumented_market_are_used_when_they_have_been_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.feed.feed.is_known", lambda _exchange, _symbol: False)
    # Within what the history shows, so that only the comparison can tell.
    arena = arena_of(tmp_path, lambda kline: 4.0 * kline.ohlcv.volume)
    async with arena.running():
        await arena.until(lambda: sample(arena, "scaled") == 2.0)
        before = len(arena.published)
        await arena.until(lambda: "exchange_flag" in final_by(arena, before))
        check(arena)


@pytest.mark.may_block("opening a model and a broker takes place before there is a deadline")
async def test_a_change_of_units_is_noticed_on_the_next_connection(tmp_path: Path) -> None:
    arena = arena_of(tmp_path, lambda kline: kline.ohlcv.volume)
    async with arena.running():
        await arena.until(lambda: sample(arena, "equal") == 2.0)
        arena.exchange.faults.stream_volume = contracts
        arena.exchange.streams.abort_all()
        await arena.until(lambda: sample(arena, "scaled") == 2.0)
        arena.exchange.faults.stream_volume = None
        arena.exchange.streams.abort_all()
        await arena.until(lambda: sample(arena, "equal") == 2.0)
