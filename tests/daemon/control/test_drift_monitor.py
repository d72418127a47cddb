"""Drift is looked for in what the daemon has anyway, and a retrain asked for once a day at most."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from daemon.control.drift_monitor import DriftWatch
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
    """An account of which only the errors matter, 50 candles more at each look."""

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


def test_an_alarm_is_counted_told_and_asks_for_a_retrain_once_a_day(
    served: ServedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics, errors = Metrics(), Errors()
    watch = DriftWatch(metrics, tmp_path, ask=True)

    def until_alarm() -> list[str]:
        for _ in range(200):
            if alarms := watch.look(served, errors, 0.0):
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
    watch.request([], NOW_MS)
    assert not (tmp_path / REQUEST).exists()
    watch.request(alarms, NOW_MS)
    asked = json.loads((tmp_path / REQUEST).read_text())
    assert asked == {"at_ms": NOW_MS, "reason": "drift of error"}
    # The job takes it away as it begins, and is not called again for the same day's alarms.
    clear_request(tmp_path)
    clear_request(tmp_path)
    watch.request(["features"], NOW_MS + DAY_MS - 1)
    assert not (tmp_path / REQUEST).exists()
    watch.request(["features", "error"], NOW_MS + DAY_MS)
    assert "drift of features and error" in (tmp_path / REQUEST).read_text()
    (tmp_path / REQUEST).unlink()
    DriftWatch(metrics, tmp_path, ask=False).request(["error"], NOW_MS)
    assert not (tmp_path / REQUEST).exists()


def test_who_is_started_anew_again_and_again_asks_once_a_day(
    served: ServedModel, tmp_path: Path
) -> None:
    accuracy = Accuracy()

    def started() -> DriftWatch:
        """The same candles are looked at again, and so is their alarm."""
        watch = DriftWatch(Metrics(), tmp_path, ask=True)
        watch.resume(served, 0.0)
        watch.look(served, accuracy, 0.0)
        return watch

    watch = started()
    watch.request(["error"], NOW_MS)
    watch.save(watch.freeze(0.0))
    clear_request(tmp_path)
    # Another model has been promoted since: that is no new reason either.
    served.sha256 = "another"
    started().request(["error"], NOW_MS + DAY_MS - 1)
    assert not (tmp_path / REQUEST).exists()
    # A clock that was far ahead silences nobody.
    started().request(["error"], NOW_MS - 60_000)
    assert (tmp_path / REQUEST).exists()
    clear_request(tmp_path)
    started().request(["error"], NOW_MS + DAY_MS)
    assert (tmp_path / REQUEST).exists()


def test_a_full_disk_is_told_and_nothing_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    DriftWatch(Metrics(), tmp_path / "gone", ask=True).request(["error"], NOW_MS)
    assert "no retrain could be asked for" in caplog.text


def test_another_model_begins_anew(served: ServedModel, tmp_path: Path) -> None:
    metrics, errors = Metrics(), Errors()
    watch = DriftWatch(metrics, tmp_path, ask=False)

    def score() -> float:
        watch.look(served, errors, 0.0)
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


def test_each_row_is_seen_once(served: ServedModel) -> None:
    rows, stamps = served.fresh_rows(np.zeros(0, dtype=np.int64))
    np.testing.assert_array_equal(rows, served.windows(BOTH)[:, -1])
    rows, stamps = served.fresh_rows(stamps)
    assert rows.shape == (0, 6)
    served.advance(BOTH[:1], random_candles(ROWS + 1, 0)[-1:])
    rows, stamps = served.fresh_rows(stamps)
    np.testing.assert_array_equal(rows, served.windows(BOTH[:1])[:, -1])


def test_errors_are_averaged_per_candle_and_the_newest_waits_for_all_symbols() -> None:
    pool = RollingPool(3)
    for candle_ms, error in ((60, 1.0), (60, 3.0), (120, 5.0), (180, 7.0), (120, 6.0)):
        pool.update(candle_ms, error, 2.0 * error, hit=None, inside=None)
    assert pool.errors(0) == [(60, 2.0, 4.0), (120, 5.5, 11.0)]
    assert pool.errors(60) == [(120, 5.5, 11.0)]
    pool.update(240, 1.0, 1.0, hit=None, inside=None)
    assert pool.errors(120) == [(180, 7.0, 14.0)]
    assert RollingPool(3).errors(0) == []


def test_what_was_seen_of_the_features_goes_on_in_the_next_process(
    served: ServedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    accuracy = Accuracy()
    first = DriftWatch(Metrics(), tmp_path, ask=False)
    first.save(first.freeze(0.0))
    assert not list(tmp_path.glob("drift*"))
    first.look(served, accuracy, 100.0)
    frozen = first.freeze(200.0)
    first.save(frozen)
    second = DriftWatch(Metrics(), tmp_path, ask=False)
    second.resume(served, 5_000.0)
    for name, value in second.freeze(5_000.0).items():
        np.testing.assert_array_equal(value, frozen[name])
    assert frozen["asked_ms"] == 0
    assert frozen["reference"].sum() == 2 * served.n_features
    # Of another model, or damaged: begun anew, in a line at most.
    served.sha256 = "another"
    third = DriftWatch(Metrics(), tmp_path, ask=False)
    third.resume(served, 0.0)
    assert third.freeze(0.0) == {}
    assert not caplog.records
    path = tmp_path / "drift.npz"
    for content in (b"", b"no archive", path.read_bytes()[:300]):
        path.write_bytes(content)
        third.resume(served, 0.0)
    assert third.freeze(0.0) == {}
    assert len(caplog.records) == 3
    third.resume(served, 0.0)
