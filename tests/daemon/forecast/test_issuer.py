"""A forecast is published once, as specified and flagged if late, or counted as skipped."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any, cast

import jsonschema
import numpy as np
import pytest

from daemon.forecast.accounting import DeferredAccounting, FlushReport, Sinks
from daemon.forecast.batcher import Ready
from daemon.forecast.issuer import Issuer
from daemon.forecast.results import InferenceResult
from daemon.metrics.metrics import Metrics
from daemon.mqtt.outbox import Outgoing
from daemon.mqtt.publisher import Publisher
from daemon.persistence.recorder import Recorder
from daemon.runtime.clock import SystemClock
from daemon.scoring.accuracy import Accuracy
from model.core.candle import Candle, Ohlcv, Timeframe
from model.forecasts.batch import ForecastBatch
from model.forecasts.forecast import Forecast, Market, ModelInfo
from model.forecasts.outlook import Outlook
from model.forecasts.rules import DEFAULT_RULES
from tests.support.manual_clock import ManualClock

T0 = 1_776_859_560_000
MINUTE = Timeframe.parse("1m")
BUDGET_S = 0.05


class Desk:
    """An issuer between a clock set by hand and everything it writes to."""

    def __init__(self, *, retains: bool = True) -> None:
        self.clock = ManualClock(T0 + MINUTE.ms + 10, 100.0)
        self.retains = retains
        self.sent: list[Outgoing] = []
        self.recorded: list[Forecast] = []
        self.metrics = Metrics(10)
        self.accuracy = Accuracy(100, 2)
        self.issuer = Issuer(
            market=Market("tester", "binance", ("A/U", "B/U:U"), MINUTE),
            publisher=cast("Publisher", self),
            accuracy=self.accuracy,
            clock=self.clock,
            budget_s=BUDGET_S,
        )
        sinks = Sinks(self.accuracy, cast("Recorder", self), self.metrics)
        self.accounting = DeferredAccounting(sinks, MINUTE)
        self.withheld: list[int] = []

    def offer(self, message: Outgoing) -> None:
        self.sent.append(message)

    def record_forecasts(self, forecasts: ForecastBatch) -> None:
        self.recorded.extend(forecasts)

    def issue(self, slot: int = 0, at: int = 0, price: float = 101.0) -> bytes | None:
        messages = self.issue_all([Ready(slot, candle(at, ("A/U", "B/U:U")[slot]))], [price])
        return messages[0] if messages else None

    def issue_all(
        self, batch: list[Ready], prices: list[float], outlooks: list[list[float]] | None = None
    ) -> list[bytes]:
        k = len(batch)
        columns = np.full((6, k), np.nan) if outlooks is None else np.array(outlooks).T
        known = np.full(k, outlooks is not None)
        result = InferenceResult(
            batch=batch,
            models=[ModelInfo("20261123T020000Z-3f9a1c", "a" * 64, "log_return")] * k,
            filled=[0] * k,
            repaired=[0] * k,
            lookback=60,
            started_s=99.9902,
            inference_s=1e-4,
            raw=np.full(k, 0.5, np.float32),
            price=np.array(prices),
            last_close=np.array([ready.candle.ohlcv.close for ready in batch]),
            outlook=Outlook(known, np.zeros(k, np.int64), DEFAULT_RULES, *columns),
            out_of_range=np.full(k, 0.25),
        )
        issued = self.issuer.publish_forecasts(result)
        self.withheld += issued.withheld
        self.accounting.on_published(issued.forecasts)
        report = FlushReport([], skipped=list(issued.withheld.values()))
        self.accounting.on_flushed(report)
        self.accounting.settle()
        return issued.payloads

    def skipped(self, reason: str) -> float:
        return self.sample("candlecast_predictions_skipped_total", reason=reason)

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def candle(at: int, symbol: str = "A/U", close: float = 100.0) -> Candle:
    open_ms = T0 + at * MINUTE.ms
    ohlcv = Ohlcv(100.0, 110.0, 90.0, close, 3.0)
    return Candle(symbol, open_ms, open_ms + MINUTE.ms, ohlcv, open_ms, 99.99, "exchange_flag")


@pytest.fixture(scope="module")
def schema(repository: Path) -> jsonschema.Draft202012Validator:
    text = (repository / "docs" / "prediction.schema.json").read_text()
    return jsonschema.Draft202012Validator(json.loads(text))


def test_a_forecast_follows_the_contract(
    schema: jsonschema.Draft202012Validator,
) -> None:
    desk = Desk()
    payload = desk.issue(slot=1)
    (message,) = desk.sent
    assert message.payload == payload
    assert message.topic == "candlecast/v1/binance/B-U-U/1m/prediction"
    assert (message.qos, message.retain, message.is_forecast) == (1, True, True)
    assert message.valid_until_ms == T0 + 2 * MINUTE.ms
    document: dict[str, Any] = json.loads(message.payload)
    schema.validate(document)
    assert document["seq"] == (T0 + MINUTE.ms) // MINUTE.ms
    assert (document["candle_close_ms"], document["target_close_ms"]) == (T0 + 60_000, T0 + 120_000)
    assert document["predicted_return"] == pytest.approx(0.01)
    assert document["latency_ms"] == {"ready": 10.0, "queue": 0.2, "inference": 0.1}
    assert (document["interval"], document["probabilities"], document["skill"]) == (
        None,
        None,
        None,
    )
    assert [f.identity for f in desk.recorded] == [("binance", "B/U:U", "1m", T0 + 120_000)]


def test_where_nothing_expires_nothing_is_retained() -> None:
    desk = Desk(retains=False)
    desk.issue()
    assert not desk.sent[0].retain


async def test_log_message_and_metric_of_a_late_forecast_carry_the_same_identity(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = Desk()
    desk.clock.now_s = 100.08
    slower = candle(0, "B/U:U")._replace(received_s=99.98)
    desk.issue_all([Ready(0, candle(0)), Ready(1, slower)], [101.0, 101.0])
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert record.getMessage() == (
        "2 of 2 forecasts were late, the slowest was ready after 100.0 ms"
    )
    fields = vars(record)["fields"]
    document = json.loads(desk.sent[1].payload)
    assert fields == {name: document[name] for name in ("exchange", "symbol", "timeframe", "seq")}
    text, _ = await desk.metrics.render("application/openmetrics-text;version=1.0.0", SystemClock())
    exemplar = f'# {{seq="{fields["seq"]}",symbol="{fields["symbol"]}"}}'
    assert exemplar in text.decode()


def test_every_forecast_is_logged_at_debug_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "candlecast.forecast")
    desk = Desk()
    desk.issue(0)
    desk.issue(1)
    symbols = [vars(r)["fields"]["symbol"] for r in caplog.records if r.getMessage() == "forecast"]
    assert symbols == ["A/U", "B/U:U"]


@pytest.mark.parametrize(("ready_s", "late"), [(0.0499, False), (0.0501, True)])
def test_a_forecast_over_budget_is_late_but_published(ready_s: float, *, late: bool) -> None:
    desk = Desk()
    desk.clock.now_s = 99.99 + ready_s
    desk.issue()
    assert json.loads(desk.sent[0].payload)["late"] is late
    assert desk.sent[0].late is late


@pytest.mark.parametrize("price", [math.nan, math.inf, 0.0, -1.0])
def test_a_value_that_is_not_a_price_is_not_published(price: float) -> None:
    desk = Desk()
    assert desk.issue(price=price) is None
    assert desk.skipped("not_a_price") == 1
    assert (desk.sent, desk.recorded, desk.accuracy.pending) == ([], [], 0)
    # It does not block a later valid forecast.
    assert desk.issue() is not None


@pytest.mark.parametrize("price", [1e19, 1e308, 1e-19, 5e-324])
def test_an_absurd_price_is_not_published(price: float) -> None:
    desk = Desk()
    assert desk.issue(price=price) is None
    assert desk.skipped("not_a_price") == 1
    assert desk.issue_all([Ready(0, candle(0, close=price))], [101.0]) == []
    assert desk.skipped("not_a_price") == 2


OUTLOOK = [99.0, 103.0, 0.01, 0.2, 0.3, 0.5]
"""Lower and upper end, threshold, and three probabilities."""


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *[(column, value) for column in range(6) for value in (math.nan, math.inf, -0.1)],
        *((0, 0.0), (0, 104.0), (1, 98.0), (3, 1.1)),
    ],
)
def test_an_invalid_interval_is_not_published(
    schema: jsonschema.Draft202012Validator, column: int, value: float
) -> None:
    desk, odd = Desk(), [*OUTLOOK]
    odd[column] = value
    batch = [Ready(0, candle(0, "A/U")), Ready(1, candle(0, "B/U:U"))]
    (payload,) = desk.issue_all(batch, [101.0, 102.0], [odd, OUTLOOK])
    document = json.loads(payload)
    schema.validate(document)
    assert document["symbol"] == "B/U:U"
    assert document["interval"] == {"level": 0.9, "lower": 99.0, "upper": 103.0}
    assert desk.skipped("not_an_interval") == 1


def test_an_expired_forecast_is_not_published() -> None:
    desk = Desk()
    desk.clock.now_ms = T0 + 2 * MINUTE.ms - 1
    assert desk.issue(slot=0) is not None
    desk.clock.now_ms += 1
    assert desk.issue(slot=1) is None
    assert desk.skipped("expired") == 1
    assert len(desk.sent) == len(desk.recorded) == desk.accuracy.pending == 1


def test_no_identity_is_published_twice() -> None:
    desk = Desk()
    assert desk.issue(price=101.0) is not None
    assert desk.issue(price=102.0) is None
    desk.accounting.score(candle(1))
    assert desk.issue(price=102.0) is None
    assert desk.skipped("repeated") == 2
    assert len(desk.sent) == len(desk.recorded) == 1


def test_an_unusable_forecast_does_not_affect_its_batch() -> None:
    desk = Desk()
    batch = [Ready(0, candle(0, "A/U")), Ready(1, candle(0, "B/U:U"))]
    (payload,) = desk.issue_all(batch, [math.nan, 103.0])
    document = json.loads(payload)
    assert (document["symbol"], document["predicted_close"]) == ("B/U:U", 103.0)
    assert desk.skipped("not_a_price") == 1
    assert [m.topic for m in desk.sent] == ["candlecast/v1/binance/B-U-U/1m/prediction"]
    assert desk.issue_all(batch, [math.inf, 104.0]) == []


def test_skill_is_published_once_there_is_evidence(schema: jsonschema.Draft202012Validator) -> None:
    desk = Desk()
    skills = []
    for at in range(4):
        desk.clock.now_ms = T0 + (at + 1) * MINUTE.ms + 10
        payload = desk.issue(at=at)
        assert payload is not None
        document = json.loads(payload)
        schema.validate(document)
        skills.append(document["skill"])
        desk.accounting.score(candle(at + 1, close=102.0))
    assert skills[:2] == [None, None]
    assert [skill["n"] for skill in skills[2:]] == [2, 3]
    # Half of the move was foreseen each time.
    assert skills[3]["mae_ratio"] == pytest.approx(0.5)
    assert desk.sample("candlecast_direction_total", result="hit") == 4


def test_a_flush_is_published_together_in_parts_of_a_hundred() -> None:
    desk = Desk()
    one = desk.issue()
    assert one is not None
    desk.sent.clear()
    # A candle that came late: what is forecast from it is of use for half a minute.
    desk.clock.now_ms += 30_000
    for many in (250, 0, 1):
        desk.issuer.publish_batch([one] * many, T0 + 2 * MINUTE.ms)
    assert {message.valid_until_ms for message in desk.sent} == {T0 + 2 * MINUTE.ms}
    documents = [json.loads(message.payload) for message in desk.sent]
    assert [(t["part"], t["parts"], len(t["predictions"])) for t in documents] == [
        (1, 3, 100),
        (2, 3, 100),
        (3, 3, 50),
        (1, 1, 1),
    ]
    assert documents[0]["predictions"][0] == json.loads(one)
    assert len({t["batch_id"] for t in documents}) == 2
    assert len({message.key for message in desk.sent}) == 4
    assert {(m.topic, m.qos, m.retain, m.is_forecast) for m in desk.sent} == {
        ("candlecast/v1/binance/1m/batch", 0, False, False)
    }
