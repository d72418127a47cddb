"""Which forecasts are absurd: none of a trained model, in any market."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from model.features.definitions import CLOSE_FEATURES, LOG_RETURN_FEATURES, Indicators
from model.features.scaler import Target
from model.inference.engine import Engine
from model.inference.onnx_export import LstmWeights
from model.registry.bundle import Bundle
from model.serving import ServedModel
from model.serving_check import LEAST, doubtful, faults, summary
from tests.support.tiny_models import Floats, drawn_weights, fitted_scalers, shifted, write

INDICATORS = Indicators()
LOOKBACK = 60
ROWS = INDICATORS.warmup + LOOKBACK
SYMBOLS = ("BTC/USDT", "NEW/USDT")
FEATURES: dict[Target, tuple[str, ...]] = {
    "close": CLOSE_FEATURES,
    "log_return": LOG_RETURN_FEATURES,
}
Make = Callable[..., ServedModel]
TARGETS = pytest.mark.parametrize("target", ["close", "log_return"])


@pytest.fixture(scope="module")
def past(all_candles: pd.DataFrame) -> Floats:
    """Quarter hours that a model is trained on."""
    return cast("Floats", all_candles[["open", "high", "low", "close", "volume"]].to_numpy(float))[
        :3000
    ]


@pytest.fixture(scope="module")
def now(all_candles: pd.DataFrame) -> Floats:
    """The candles of a window, long after."""
    columns = ["open", "high", "low", "close", "volume"]
    return cast("Floats", all_candles[columns].to_numpy(float))[-ROWS:]


@pytest.fixture
def make(tmp_path: Path, past: Floats) -> Make:
    def made(
        target: Target,
        weights: LstmWeights | None = None,
        features: tuple[str, ...] | None = None,
        **change: float,
    ) -> ServedModel:
        names = features or FEATURES[target]
        candles = {SYMBOLS[0]: past}
        scalers = fitted_scalers(candles, names, INDICATORS, target)
        bundle = write(
            tmp_path,
            candles,
            features=names,
            indicators=INDICATORS,
            target=target,
            lookback=LOOKBACK,
            weights=weights or small_weights(len(names)),
            scalers=shifted(scalers, SYMBOLS[:1], **change),
        )
        return served(bundle)

    return made


def served(bundle: Bundle) -> ServedModel:
    engine = Engine(bundle.onnx, 2, LOOKBACK, len(bundle.manifest.features))
    return ServedModel(bundle, SYMBOLS, engine, fit_unknown=True)


def small_weights(n_features: int) -> LstmWeights:
    """Outputs within 0 … 1, as of a network that was trained on scaled prices."""
    weights = drawn_weights(n_features, (6, 4))
    return replace(
        weights, dense_kernel=0.1 * weights.dense_kernel, dense_bias=np.array([0.5], np.float32)
    )


def found(model: ServedModel, ohlcv: Floats) -> dict[int, str]:
    idx = np.array([0])
    price, _ = model.recent_prices(idx, ohlcv[None], 1)
    doubts = doubtful(model, idx, price[:, 0], ohlcv[None, :, 3])
    wrong = faults(model, idx, ohlcv[None])
    # The quick check must not hide a fault.
    assert set(wrong) <= set(doubts.tolist())
    return wrong


def warped(ohlcv: Floats, path: Any, volume: Any = 1.0) -> Floats:
    """The candles of a market whose price also moves along ``path``."""
    path = np.broadcast_to(np.asarray(path, float), len(ohlcv))
    before = np.concatenate([path[:1], path[:-1]])
    opened, close = ohlcv[:, 0] * before, ohlcv[:, 3] * path
    high = np.maximum.reduce([opened, close, ohlcv[:, 1] * np.maximum(path, before)])
    low = np.minimum.reduce([opened, close, ohlcv[:, 2] * np.minimum(path, before)])
    return np.column_stack([opened, high, low, close, ohlcv[:, 4] * volume])


def damped(ohlcv: Floats, factor: float) -> Floats:
    """All moves so many times as large."""
    prices = ohlcv[0, 3] * (ohlcv[:, :4] / ohlcv[0, 3]) ** factor
    return np.column_stack([prices, ohlcv[:, 4]])


AT = np.arange(ROWS)
MARKETS: dict[str, Callable[[Floats], Floats]] = {
    "as it is": lambda c: c,
    "a fall by half within an hour": lambda c: warped(
        c, np.exp(-0.0116 * np.clip(AT - 150, 0, 60)), np.where(AT > 150, 50.0, 1.0)
    ),
    "a fall by half that ends just now": lambda c: warped(
        c, np.exp(-0.0116 * np.clip(AT - ROWS + 60, 0, 60)), np.where(AT > ROWS - 60, 500.0, 1.0)
    ),
    "a fall by a fifth in the newest candle": lambda c: warped(c, np.where(AT == ROWS - 1, 0.8, 1)),
    "a fall by a fifth ten candles ago": lambda c: warped(c, np.where(AT > ROWS - 10, 0.8, 1.0)),
    "99.9 % lost": lambda c: warped(c, np.exp(-6.9 * AT / ROWS), 10.0),
    "twice the price": lambda c: warped(c, 2.0),
    "twenty times the price": lambda c: warped(c, 20.0),
    "a hundredth of the price": lambda c: warped(c, 0.01),
    "calm": lambda c: damped(c, 0.01),
    "wild": lambda c: damped(c, 30.0),
    "a halt": lambda c: np.column_stack([np.full((ROWS, 4), c[0, 3]), np.zeros(ROWS)]),
    "a halt since yesterday": lambda c: np.where(AT[:, None] > 200, [*[c[200, 3]] * 4, 0.0], c),
    "a tick now and then": lambda _: np.column_stack(
        [np.repeat((1.0 + 0.0001 * (AT > 300))[:, None], 4, axis=1), AT % 50 == 0]
    ),
    "no volume": lambda c: warped(c, 1.0, 0.0),
    "a million times the volume": lambda c: warped(c, 1.0, 1e6),
}


@TARGETS
@pytest.mark.parametrize("name", MARKETS)
def test_no_market_makes_a_trained_model_absurd(
    make: Make, now: Floats, target: Target, name: str
) -> None:
    model = make(target)
    with np.errstate(all="ignore"):
        assert found(model, MARKETS[name](now)) == {}


@TARGETS
def test_a_market_that_the_model_was_not_trained_on_is_its_own_measure(
    make: Make, now: Floats, target: Target
) -> None:
    model, one = make(target), np.array([1])
    fresh = warped(now, 1e-6)[None]
    # Without a scaler there is no finding yet.
    assert faults(model, one, fresh) == {}
    model.rebuild(one, fresh)
    assert faults(model, one, fresh) == {}


ABSURD: list[tuple[Target, dict[str, float], str]] = [
    ("log_return", {"target_offset": 20.0}, "times away from the last close"),
    ("log_return", {"target_offset": -20.0}, "times away from the last close"),
    ("log_return", {"target_offset": 0.5}, "times away from the last close"),
    ("log_return", {"target_offset": 1e3}, "is not a price"),
    ("log_return", {"target_offset": -1e4}, "is not a price"),
    ("log_return", {"target_scale": 10.0}, "times away from the last close"),
    ("log_return", {"target_scale": 1e9}, "is not a price"),
    ("close", {"target_offset": -1e9}, "is not a price"),
    ("close", {"target_offset": 1e9}, "times away from the last close"),
    ("close", {"target_scale": 1e9}, "times away from the last close"),
    ("close", {"target_offset": 0.0}, "times away from the last close"),
]


@pytest.mark.parametrize(("target", "change", "reason"), ABSURD)
def test_a_target_that_was_scaled_otherwise_is_absurd(
    make: Make, now: Floats, target: Target, change: dict[str, float], reason: str
) -> None:
    model = make(target, **change)
    assert reason in found(model, now)[0]
    message = summary(model.symbols, found(model, now), 7)
    assert message.startswith(
        "the forecasts of 1 of 7 symbols cannot be published: that of BTC/USDT "
    )


@TARGETS
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_no_numbers_give_no_price(
    make: Make, now: Floats, target: Target, value: float
) -> None:
    weights = small_weights(len(FEATURES[target]))
    weights.dense_bias[0] = value
    assert found(make(target, weights), now) == {0: "is not a price"}


def test_a_model_of_prices_that_sees_none_may_know_them_roughly(make: Make, now: Floats) -> None:
    model = make("close", features=LOG_RETURN_FEATURES)
    price, _ = model.recent_prices(np.array([0]), now[None], 1)
    fitted_factor = float(price[0, 0] / now[-1, 3])
    for factor in (0.6, 1.0, 1.6):
        assert found(model, warped(now, fitted_factor * factor)) == {}
    assert found(model, warped(now, fitted_factor * 100.0)) != {}


def test_one_odd_forecast_is_not_enough(make: Make, now: Floats) -> None:
    """The newest candle is at ten times the price, and the network's output is unchanged."""
    model = make("close")
    odd = now.copy()
    odd[-1, 3] *= 10.0
    odd[-1, 1] = odd[-1, 3]
    idx = np.array([0])
    price, _ = model.recent_prices(idx, odd[None], 1)
    assert abs(np.log(price[0, 0] / odd[-1, 3])) > LEAST
    assert faults(model, idx, odd[None]) == {}


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e308])
def test_candles_that_are_no_numbers_do_not_count_against_the_model(
    make: Make, now: Floats, value: float
) -> None:
    for target in FEATURES:
        with np.errstate(all="ignore"):
            odd = now.copy()
            odd[-40:] = value
            assert faults(make(target), np.array([0]), odd[None]) == {}
