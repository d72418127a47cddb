"""Check that drift raises an alarm, and that a retrain is requested once a day at most."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from daemon.control.drift_monitor import DriftMonitor
from daemon.metrics.metrics import Metrics
from daemon.scoring.accuracy import Accuracy
from daemon.scoring.rolling import RollingPool
from model.forecasts.rules import DEFAULT_RULES
from model.inference.engine import Engine
from model.serving import ServedModel
from model.shared_state.retrain_request import REQUEST, clear_request
from tests.support.tiny_models import SHORT, promote, random_candles

SYMBOLS = ("A/U", "B/U")
BOTH = np.arange(2)
ROWS = SHORT.warmup + 8
DAY_MS = 86_400_000
NOW_MS = 1_776_859_200_000


@pytest.fixture
def served(tmp_path: Path) -> ServedModel:
    candles = {symbol: random_candles(ROWS + 5, seed) for seed, symbol in enumerate(SYMBOLS)}
    bundle = promote(tmp_path / "registry", candles)
    engine = Engine(bundle.onnx, 2, 8, len(bundle.manifest.features))
    model = ServedModel(bundle, SYMBOLS, engine, DEFAULT_RULES)
    model.rebuild(BOTH, np.stack([candles[s][:ROWS] for s in SYMBOLS]))
    return model


class Errors(Accuracy):
    """Accuracy with errors of its own: 50 further candles at each check."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)
        self.size = 0.1

    def errors(self, after_ms: int) -> list[tuple[int, float, float]]:
        moves = self.rng.normal(0.0, 1e-3, (50, 8))
        forecasts = self.size * self.rng.normal(0.0, 1e-3, (50, 8))
        model, last_value = np.abs(forecasts - moves).mean(axis=1), np.abs(moves).mean(axis=1)
        times = [after_ms + 60_000 * (at + 1) for at in range(50)]
        return list(zip(times, model.tolist(), last_value.tolist(), strict=True))


def test_an_alarm_is_counted_logged_and_requests_a_retrain_once_a_day(
    served: ServedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics, errors = Metrics(), Errors()
    monitor = DriftMonitor(metrics, tmp_path, request_retrains=True)

    def until_alarm() -> list[str]:
        for _ in range(200):
            if alarms := monitor.check(served, errors, 0.0):
                return alarms
        return []

    assert until_alarm() == []
    errors.size = 3.0
    alarms = until_alarm()
    assert alarms == ["error"]
    value = metrics.registry.get_sample_value
    assert value("candlecast_drift_alarms_total", {"of": "error"}) == 1.0
    assert value("candlecast_drift_alarms_total", {"of": "features"}) == 0.0
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    monitor.request_retrain([], NOW_MS)
    assert not (tmp_path / REQUEST).exists()
    monitor.request_retrain(alarms, NOW_MS)
    asked = json.loads((tmp_path / REQUEST).read_text())
    assert asked == {"at_ms": NOW_MS, "reason": "drift of error"}
    # The job removes the request as it begins; the same day's alarms request no other.
    clear_request(tmp_path)
    clear_request(tmp_path)
    monitor.request_retrain(["features"], NOW_MS + DAY_MS - 1)
    assert not (tmp_path / REQUEST).exists()
    monitor.request_retrain(["features", "error"], NOW_MS + DAY_MS)
    assert "drift of features and error" in (tmp_path / REQUEST).read_text()
    (tmp_path / REQUEST).unlink()
    DriftMonitor(metrics, tmp_path, request_retrains=False).request_retrain(["error"], NOW_MS)
    assert not (tmp_path / REQUEST).exists()


def test_repeated_restarts_request_one_retrain_a_day(served: ServedModel, tmp_path: Path) -> None:
    accuracy = Accuracy()

    def started() -> DriftMonitor:
        """A new process, which tests the same candles again."""
        monitor = DriftMonitor(Metrics(), tmp_path, request_retrains=True)
        monitor.restore(served, 0.0)
        monitor.check(served, accuracy, 0.0)
        return monitor

    monitor = started()
    monitor.request_retrain(["error"], NOW_MS)
    monitor.save(monitor.snapshot(0.0))
    clear_request(tmp_path)
    # A model promoted since changes nothing.
    served.sha256 = "another"
    started().request_retrain(["error"], NOW_MS + DAY_MS - 1)
    assert not (tmp_path / REQUEST).exists()
    # A time in the future, from a wrong clock, is ignored.
    started().request_retrain(["error"], NOW_MS - 60_000)
    assert (tmp_path / REQUEST).exists()
    clear_request(tmp_path)
    started().request_retrain(["error"], NOW_MS + DAY_MS)
    assert (tmp_path / REQUEST).exists()


def test_a_request_that_cannot_be_written_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    DriftMonitor(Metrics(), tmp_path / "gone", request_retrains=True).request_retrain(
        ["error"], NOW_MS
    )
    assert "no retrain could be requested" in caplog.text


def test_the_error_test_is_reset_with_another_model(served: ServedModel, tmp_path: Path) -> None:
    metrics, errors = Metrics(), Errors()
    monitor = DriftMonitor(metrics, tmp_path, request_retrains=False)

    def score() -> float:
        monitor.check(served, errors, 0.0)
        found = metrics.registry.get_sample_value("candlecast_drift_score", {"of": "error"})
        assert found is not None
        return found

    for _ in range(30):
        score()
    errors.size = 1.0
    while score() < 0.3:
        pass
    served.sha256 = "another"
    assert score() == 0.0


def test_each_feature_row_is_tested_once(served: ServedModel) -> None:
    rows, stamps = served.fresh_rows(np.zeros(0, dtype=np.int64))
    np.testing.assert_array_equal(rows, served.windows(BOTH)[:, -1])
    rows, stamps = served.fresh_rows(stamps)
    assert rows.shape == (0, 6)
    served.advance(BOTH[:1], random_candles(ROWS + 1, 0)[-1:])
    rows, stamps = served.fresh_rows(stamps)
    np.testing.assert_array_equal(rows, served.windows(BOTH[:1])[:, -1])


def test_errors_are_averaged_per_candle_and_the_newest_waits_for_all_symbols() -> None:
    pool, unknown = RollingPool(3), np.zeros((2, 1), np.int8)
    for candle_ms, error in ((60, 1.0), (60, 3.0), (120, 5.0), (180, 7.0), (120, 6.0)):
        errors = np.array([error])
        pool.add(candle_ms, errors, 2.0 * errors, *unknown)
    assert pool.errors(0) == [(60, 2.0, 4.0), (120, 5.5, 11.0)]
    assert pool.errors(60) == [(120, 5.5, 11.0)]
    pool.add(240, np.ones(1), np.ones(1), *unknown)
    assert pool.errors(120) == [(180, 7.0, 14.0)]
    assert RollingPool(3).errors(0) == []


def test_the_feature_test_continues_in_the_next_process(
    served: ServedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    accuracy = Accuracy()
    first = DriftMonitor(Metrics(), tmp_path, request_retrains=False)
    first.save(first.snapshot(0.0))
    assert not list(tmp_path.glob("drift*"))
    first.check(served, accuracy, 100.0)
    saved = first.snapshot(200.0)
    first.save(saved)
    second = DriftMonitor(Metrics(), tmp_path, request_retrains=False)
    second.restore(served, 5_000.0)
    for name, value in second.snapshot(5_000.0).items():
        np.testing.assert_array_equal(value, saved[name])
    assert saved["asked_ms"] == 0
    assert saved["reference"].sum() == 2 * served.n_features
    # Of another model, or damaged: the test starts anew, with one log line at most.
    served.sha256 = "another"
    third = DriftMonitor(Metrics(), tmp_path, request_retrains=False)
    third.restore(served, 0.0)
    assert third.snapshot(0.0) == {}
    assert not caplog.records
    path = tmp_path / "drift.npz"
    for content in (b"", b"no archive", path.read_bytes()[:300]):
        path.write_bytes(content)
        third.restore(served, 0.0)
    assert third.snapshot(0.0) == {}
    assert len(caplog.records) == 3
    third.restore(served, 0.0)
