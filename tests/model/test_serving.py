"""A served model gives the same forecasts whichever way its rows came about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.core.errors import BundleError
from model.features.definitions import CLOSE_FEATURES, LOG_RETURN_FEATURES
from model.features.scaler import Target
from model.inference.engine import Engine
from model.serving import ServedModel
from tests.support.tiny_models import SHORT, Floats, promote, random_candles

SYMBOLS = ("A/U", "B/U", "C/U")
LOOKBACK = 8
CAPACITY = SHORT.warmup + LOOKBACK
ALL = np.arange(len(SYMBOLS))
ROWS = CAPACITY + 60


@pytest.fixture(scope="module")
def candles() -> dict[str, Floats]:
    return {symbol: random_candles(ROWS, seed) for seed, symbol in enumerate(SYMBOLS)}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, candles: dict[str, Floats]) -> Make:
    return Make(tmp_path_factory.mktemp("registry"), candles)


class Make:
    """Served models of one bundle per target."""

    def __init__(self, root: Path, candles: dict[str, Floats]) -> None:
        features: dict[Target, tuple[str, ...]] = {
            "close": CLOSE_FEATURES,
            "log_return": LOG_RETURN_FEATURES,
        }
        self.bundles = {
            target: promote(root / target, candles, features=names, target=target)
            for target, names in features.items()
        }

    def __call__(self, target: Target = "log_return") -> ServedModel:
        bundle = self.bundles[target]
        n_features = len(bundle.manifest.features)
        engine = Engine(bundle.onnx, len(SYMBOLS), LOOKBACK, n_features, max_batch=4)
        return ServedModel(bundle, SYMBOLS, engine)


def window(candles: dict[str, Floats], idx: Any, end: int) -> Floats:
    return np.stack([candles[SYMBOLS[i]][end - CAPACITY : end] for i in idx])


def newest(candles: dict[str, Floats], idx: Any, end: int) -> Floats:
    return np.stack([candles[SYMBOLS[i]][end - 1] for i in idx])


def prepare(model: ServedModel, idx: Any) -> None:
    model.prepare(idx, *model.preparation(idx))


@pytest.mark.parametrize("target", ["close", "log_return"])
def test_appending_step_by_step_equals_starting_over_from_the_window(
    served: Make, candles: dict[str, Floats], target: Target
) -> None:
    moving = served(target)
    moving.rebuild(ALL, window(candles, ALL, CAPACITY))
    for end in range(CAPACITY + 1, ROWS + 1):
        prepare(moving, ALL)
        moving.advance(ALL, newest(candles, ALL, end))
        assert moving.prepared(ALL).all()
        fresh = served(target)
        fresh.rebuild(ALL, window(candles, ALL, end))
        assert not fresh.prepared(ALL).any()
        np.testing.assert_allclose(moving.windows(ALL), fresh.windows(ALL), atol=1e-6)
        expected = fresh.full(fresh.windows(ALL))
        np.testing.assert_allclose(moving.step(ALL), expected, atol=1e-6)
        np.testing.assert_allclose(moving.full(moving.windows(ALL)), expected, atol=1e-6)
        np.testing.assert_array_equal(moving.out_of_range(ALL), fresh.out_of_range(ALL))
        assert np.ptp(expected) > 1e-4


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_order_of_events_makes_a_step_from_foreign_states(
    served: Make, candles: dict[str, Floats], data: st.DataObject
) -> None:
    model = served()
    ends = np.full(len(SYMBOLS), CAPACITY)
    model.rebuild(ALL, window(candles, ALL, CAPACITY))
    held: list[tuple[Any, Any]] = []
    for _ in range(data.draw(st.integers(1, 20))):
        some = data.draw(st.lists(st.sampled_from(range(3)), min_size=1, unique=True))
        idx = np.array(some)
        match data.draw(st.sampled_from(["advance", "rebuild", "hand out", "prepare"])):
            case "advance":
                ends[idx] += 1
                model.advance(idx, np.stack([candles[SYMBOLS[i]][ends[i] - 1] for i in idx]))
            case "rebuild":
                ends[idx] += data.draw(st.integers(0, 2))
                model.rebuild(idx, np.concatenate([window(candles, [i], ends[i]) for i in idx]))
            case "hand out":
                held.append((idx, model.preparation(idx)))
            case _:
                for at, preparation in held:
                    model.prepare(at, *preparation)
                held.clear()
        ready = ALL[model.prepared(ALL)]
        if len(ready):
            np.testing.assert_allclose(
                model.step(ready), model.full(model.windows(ready)), atol=1e-6
            )


def test_a_rebuilt_window_never_uses_what_was_prepared_before(
    served: Make, candles: dict[str, Floats]
) -> None:
    model = served()
    model.rebuild(ALL, window(candles, ALL, CAPACITY))
    prepare(model, ALL)
    model.rebuild(ALL[:1], window(candles, [0], CAPACITY + 1))
    model.advance(ALL[1:], newest(candles, [1, 2], CAPACITY + 1))
    assert model.prepared(ALL).tolist() == [False, True, True]
    model.advance(ALL[:1], newest(candles, [0], CAPACITY + 2))
    assert model.prepared(ALL).tolist() == [False, True, True]


def test_a_preparation_that_comes_late_is_not_used(
    served: Make, candles: dict[str, Floats]
) -> None:
    model = served()
    model.rebuild(ALL, window(candles, ALL, CAPACITY))
    late = model.preparation(ALL)
    model.advance(ALL, newest(candles, ALL, CAPACITY + 1))
    model.advance(ALL, newest(candles, ALL, CAPACITY + 2))
    model.prepare(ALL, *late)
    assert not model.prepared(ALL).any()


def test_prices_follow_the_target(served: Make) -> None:
    raw, last = np.array([0.25], np.float32), np.array([200.0])
    scalers = {t: served.bundles[t].scalers.by_symbol["B/U"] for t in served.bundles}
    for target, model in ((t, served(t)) for t in served.bundles):
        value = 0.25 * scalers[target].target_scale + scalers[target].target_offset
        expected = value if target == "close" else 200.0 * np.exp(value)
        assert model.price(np.array([1]), raw, last)[0] == pytest.approx(expected, rel=1e-12)


def test_the_share_outside_the_fitted_range_leaves_with_its_rows(
    served: Make, candles: dict[str, Floats]
) -> None:
    model = served("close")
    model.rebuild(ALL, window(candles, ALL, CAPACITY))
    assert model.out_of_range(ALL).max() < 0.5
    high = newest(candles, [0], CAPACITY + 1) * [3.0, 3.0, 3.0, 3.0, 1.0]
    before = model.out_of_range(ALL)
    model.advance(ALL[:1], high)
    after = model.out_of_range(ALL)
    assert after[0] > before[0]
    assert after[1:].tolist() == before[1:].tolist()
    model.rebuild(ALL, window(candles, ALL, CAPACITY))
    np.testing.assert_array_equal(model.out_of_range(ALL), before)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_forming_candle_gives_what_its_close_would_and_leaves_no_trace(
    served: Make, candles: dict[str, Floats], data: st.DataObject
) -> None:
    model, undisturbed = served(), served()
    for one in (model, undisturbed):
        one.rebuild(ALL, window(candles, ALL, CAPACITY))
    end = CAPACITY
    for _ in range(data.draw(st.integers(1, 5))):
        assert not model.prepared_ahead(ALL).any()
        for one in (model, undisturbed):
            prepare(one, ALL)
        assert model.prepared_ahead(ALL).all()
        for _ in range(data.draw(st.integers(0, 3))):
            some = data.draw(st.lists(st.sampled_from(range(3)), min_size=1, unique=True))
            factor = data.draw(st.floats(0.9, 1.1))
            model.peek(np.array(some), newest(candles, some, end + 1) * factor)
        end += 1
        closing = newest(candles, ALL, end)
        foreseen = model.peek(ALL, closing)
        for one in (model, undisturbed):
            one.advance(ALL, closing)
        assert model.prepared(ALL).all()
        np.testing.assert_array_equal(model.step(ALL), foreseen)
        np.testing.assert_array_equal(model.step(ALL), undisturbed.step(ALL))
        np.testing.assert_array_equal(model.windows(ALL), undisturbed.windows(ALL))
        np.testing.assert_array_equal(model.out_of_range(ALL), undisturbed.out_of_range(ALL))


@pytest.mark.parametrize("target", ["close", "log_return"])
def test_a_symbol_that_the_bundle_does_not_know_keeps_the_scaler_of_its_first_window(
    served: Make, candles: dict[str, Floats], target: Target
) -> None:
    bundle = served.bundles[target]
    symbols = ("NEW/U", "B/U")
    both = np.arange(2)

    def make(*, fit_unknown: bool = True) -> ServedModel:
        engine = Engine(bundle.onnx, 2, LOOKBACK, len(bundle.manifest.features))
        return ServedModel(bundle, symbols, engine, fit_unknown=fit_unknown)

    def at(end: int) -> Floats:
        return np.stack([candles[symbol][end - CAPACITY : end] for symbol in ("A/U", "B/U")])

    with pytest.raises(BundleError, match="NEW/U"):
        make(fit_unknown=False)
    model = make()
    assert [info.as_json().get("scaler") for info in model.infos] == ["warmup", None]
    model.rebuild(both, at(CAPACITY))
    assert model.out_of_range(both)[0] == 0.0
    first = model.windows(both)[0]
    assert first.min() >= 0.0
    assert first.max() <= 1.0
    # Whatever comes later changes the rows, never the scaler.
    for end in range(CAPACITY + 1, CAPACITY + 30):
        model.advance(both, at(end)[:, -1])
    moved = model.windows(both)
    model.rebuild(both, at(CAPACITY + 29))
    np.testing.assert_allclose(model.windows(both), moved, atol=1e-6)
    assert model.out_of_range(both)[0] > 0.0
    other = make()
    other.adopt_scalers(model)
    other.rebuild(both, at(CAPACITY + 29))
    np.testing.assert_array_equal(other.windows(both), model.windows(both))
    # Nor does a restart change it, if what was saved is whole.
    saved = model.take_fitted()
    assert (list(saved), model.take_fitted()) == (["NEW/U"], {})
    restarted = make()
    assert restarted.restore_scalers(saved | {"B/U": b"of no interest", "C/U": b""}) == []
    restarted.rebuild(both, at(CAPACITY + 29))
    np.testing.assert_array_equal(restarted.windows(both), model.windows(both))
    assert restarted.take_fitted() == {}
    nothing = np.full(len(saved["NEW/U"]) // 8, np.nan).tobytes()
    for damaged in (b"", saved["NEW/U"][:-1], saved["NEW/U"][:-8], nothing):
        assert make().restore_scalers({"NEW/U": damaged}) == ["NEW/U"]
    # The price moves as much as the symbol itself has moved.
    last = at(CAPACITY + 29)[:, -1, 3]
    price = model.price(both, np.ones(2, dtype=np.float32), last)[0]
    closes = at(CAPACITY)[0, :, 3]
    expected = {
        "close": closes.max(),
        "log_return": last[0] * np.exp(np.diff(np.log(closes)).std()),
    }
    assert price == pytest.approx(expected[target], rel=1e-6)
    assert model.mean_out_of_range() == pytest.approx(model.out_of_range(both).mean())


def test_a_market_that_stood_still_is_served_without_dividing_by_zero(served: Make) -> None:
    bundle = served.bundles["log_return"]
    engine = Engine(bundle.onnx, 1, LOOKBACK, len(bundle.manifest.features))
    model = ServedModel(bundle, ["NEW/U"], engine, fit_unknown=True)
    one = np.array([0])
    flat = np.tile([7.0, 7.0, 7.0, 7.0, 0.0], (1, CAPACITY, 1))
    model.rebuild(one, flat)
    raw = model.full(model.windows(one))
    assert model.price(one, raw, np.array([7.0]))[0] == pytest.approx(7.0, rel=1e-4)


@pytest.mark.parametrize("target", ["close", "log_return"])
def test_a_dry_run_leaves_no_trace(
    served: Make, candles: dict[str, Floats], target: Target
) -> None:
    warmed, undisturbed = served(target), served(target)
    for model in (warmed, undisturbed):
        model.rebuild(ALL, window(candles, ALL, CAPACITY))
    for end in range(CAPACITY + 1, CAPACITY + 12):
        ohlcv = newest(candles, ALL, end)
        opens = np.full(len(ALL), 60_000 * end)
        results: list[Any] = []
        for model in (warmed, undisturbed):
            prepare(model, ALL)
            if model is warmed:
                model.dry_run(ALL, newest(candles, ALL, end - 1), opens)
            assert model.prepared_ahead(ALL).all()
            model.advance(ALL, ohlcv)
            price = model.price(ALL, model.step(ALL), ohlcv[:, 3])
            outlook = model.calibration.outlook(ALL, price, ohlcv[:, 3], opens)
            learnt = model.calibration.snapshot()
            results.append((price, outlook, learnt, model.windows(ALL), model.out_of_range(ALL)))
        np.testing.assert_equal(results[0], results[1])


def test_a_dry_run_gives_the_same_as_the_close(served: Make, candles: dict[str, Floats]) -> None:
    model = served()
    model.rebuild(ALL, window(candles, ALL, CAPACITY))
    prepare(model, ALL)
    ohlcv, opens = newest(candles, ALL, CAPACITY + 1), np.full(len(ALL), 60_000)
    raw, price, last, *_ = model.dry_run(ALL, ohlcv, opens)
    model.advance(ALL, ohlcv)
    np.testing.assert_allclose(raw, model.step(ALL), atol=1e-6)
    np.testing.assert_allclose(price, model.price(ALL, raw, ohlcv[:, 3]))
    np.testing.assert_array_equal(last, ohlcv[:, 3])
