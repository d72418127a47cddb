"""Compare variants of the network with the last-value forecast, walk-forward, on minutes.

    python -m benchmarks.research.variants FOLDER             all variants on the search days
    python -m benchmarks.research.variants FOLDER base drop0 --test  two, on the held-out days

Needs JAX and 30 days of minutes (SYMBOL-1m.parquet). A fold trains on all days before its
validation days, which stop training and set the shrinkage, and is judged on three days after them.
Days 12 to 21 are for the search; days 21 to 30 are held out for the variants that the search chose.

To train dozens of variants in hours, training runs over stretches of 95 candles with a loss at each
of the last 36, instead of one window of 60 per loss: the same network, a twentieth of the work.
Windows of exactly 60 are judged. The product trains on windows: see target.py.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from benchmarks.harness.candles import read_folder
from benchmarks.research.dense_network import LABELS, DenseNetwork, Recipe
from model.features.batch import level_free_columns
from model.features.definitions import CLOSE_FEATURES, LOG_RETURN_FEATURES
from model.preprocess import DataPreprocessor

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_DAY: Final = 1_440
_WARM_UP: Final = 320
_LOOKBACK: Final = 60
_BLOCK: Final = 240
_SHRINK: Final = np.linspace(0.0, 1.0, 21)
SEARCH: Final = tuple((9 + 3 * k) * _DAY for k in range(3))
TEST: Final = tuple((18 + 3 * k) * _DAY for k in range(3))


@dataclass(frozen=True)
class Variant:
    """What is varied; the defaults are the base.

    Attributes:
        minmax: scale features to their range instead of to clipped standard scores.
        quiet_weighs_more: weigh losses by one over recent volatility.
        stop_shrunk: pick the epoch by the shrunk validation error, not the raw one.
    """

    target: str = "log_return"
    features: tuple[str, ...] = LOG_RETURN_FEATURES
    loss: str = "mae"
    minmax: bool = False
    shared: bool = True
    dropout: float = 0.2
    rate: float = 0.001
    epochs: int = 8
    zero_start: bool = True
    quiet_weighs_more: bool = False
    stop_shrunk: bool = False


_SIX: Final = (
    "log_return",
    "hl_range",
    "range_position",
    "bb_position",
    "rsi_14",
    "log_volume_ratio",
)
VARIANTS: Final = {
    "base": Variant(),
    "close": Variant("close", CLOSE_FEATURES, "mse", minmax=True, zero_start=False),
    "minmax": Variant(minmax=True),
    "mse": Variant(loss="mse"),
    "huber": Variant(loss="huber"),
    "single": Variant(shared=False),
    "return_only": Variant(features=("log_return",)),
    "drop0": Variant(dropout=0.0, stop_shrunk=True),
    "random_start": Variant(zero_start=False),
    "quiet": Variant(quiet_weighs_more=True),
    "range": Variant(
        features=_SIX, rate=0.003, zero_start=False, quiet_weighs_more=True, stop_shrunk=True
    ),
    "market": Variant(
        features=("market", *(n for n in _SIX if n != "rsi_14")),
        rate=0.003,
        zero_start=False,
        quiet_weighs_more=True,
        stop_shrunk=True,
    ),
}


class Market(NamedTuple):
    """All symbols, candle by candle.

    Attributes:
        columns: features by name, ``[symbols, candles]``.
        returns: log return from each candle's close to the next, the last one NaN.
        volatility: EMA(60) of absolute returns.
    """

    columns: Mapping[str, Floats]
    returns: Floats
    volatility: Floats


def read_market(frames: Mapping[str, pd.DataFrame], config: Path) -> Market:
    """Compute every feature that a variant names."""
    preprocessor = DataPreprocessor(config)
    full = [preprocessor.add_technical_indicators(frame) for frame in frames.values()]
    names = sorted({*CLOSE_FEATURES, *LOG_RETURN_FEATURES, *_SIX} - {"range_position"})
    level_free = [frame.assign(**level_free_columns(frame)) for frame in full]
    columns = {n: np.stack([f[n].to_numpy(dtype=np.float64) for f in level_free]) for n in names}
    high, low, close = (
        np.stack([f[n].to_numpy(dtype=np.float64) for f in full]) for n in ("high", "low", "close")
    )
    span = high - low
    middle = np.full_like(span, 0.5)
    columns["range_position"] = np.divide(close - low, span, middle, where=span > 0)
    past = np.nan_to_num(columns["log_return"])
    volatility = np.stack([f["log_return"].abs().ewm(span=60).mean() for f in level_free])
    volatility = np.maximum(np.nan_to_num(volatility), 1e-6)
    columns["market"] = np.tile(np.clip(past / volatility, -8, 8).mean(axis=0), (len(full), 1))
    following = np.full_like(close, np.nan)
    following[:, :-1] = np.log(close[:, 1:] / close[:, :-1])
    return Market(columns, following, volatility)


class Prepared(NamedTuple):
    """One fold's arrays ``[symbols, candles, …]``, and what turns outputs into log returns."""

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    weight: NDArray[np.float32]
    offset: Floats
    scale: Floats
    close: Floats | None

    def log_return(self, output: Floats) -> Floats:
        """Forecast log returns ``[symbols, candles]``."""
        value = output * self.scale + self.offset
        return value if self.close is None else np.log(np.maximum(value, 1e-9) / self.close)


def prepare(market: Market, variant: Variant, train_end: int) -> Prepared:
    """Scale features and target by the training rows."""
    x = np.stack([market.columns[n] for n in variant.features], axis=-1)
    known = x[:, _WARM_UP:train_end]
    if variant.minmax:
        low = known.min(axis=1, keepdims=True)
        x = (x - low) / (known.max(axis=1, keepdims=True) - low)
    else:
        center, width = known.mean(axis=1, keepdims=True), known.std(axis=1, keepdims=True)
        x = np.clip((x - center) / width, -5.0, 5.0)
    move = np.abs(market.returns[:, _WARM_UP:train_end]).mean(axis=1, keepdims=True)
    weight = np.ones_like(market.returns)
    if variant.quiet_weighs_more:
        weight = np.clip(move / market.volatility, 0.1, 5.0)
    if variant.target == "close":
        close = market.columns["close"]
        offset = close[:, _WARM_UP:train_end].min(axis=1, keepdims=True)
        scale = close[:, _WARM_UP:train_end].max(axis=1, keepdims=True) - offset
        y = (np.concatenate([close[:, 1:], close[:, -1:]], axis=1) - offset) / scale
    else:
        close, offset, scale = None, np.zeros_like(move), move
        y = np.nan_to_num(market.returns / move)
        y = y if variant.loss == "mae" else np.clip(y, -8.0, 8.0)
    x32, y32, w32 = (np.nan_to_num(a).astype(np.float32) for a in (x, y, weight))
    return Prepared(x32, y32, w32, offset, scale, close)


def shrinkage(forecast: Floats, truth: Floats) -> float:
    """The factor 0 … 1 on the forecasts ``[n]`` that makes their absolute error least."""
    errors = [np.abs(truth - factor * forecast).sum() for factor in _SHRINK]
    return float(_SHRINK[int(np.argmin(errors))])


def run_fold(
    market: Market, variant: Variant, train_end: int, seed: int
) -> tuple[Floats, Floats, Floats]:
    """Train on the days before, stop by three days, forecast the three after them.

    Returns:
        Forecasts, the same shrunk per symbol, and the truth: log returns ``[symbols, candles]``.
    """
    ready = prepare(market, variant, train_end)
    n_symbols, n_candles = market.returns.shape
    val_end = train_end + 3 * _DAY
    rows = np.arange(train_end, min(val_end + 3 * _DAY, n_candles - 1))
    starts = np.arange(train_end - _LOOKBACK + 1, val_end - _LOOKBACK + 1 - LABELS, LABELS)
    judged = (starts[:, None] + _LOOKBACK - 1 + np.arange(LABELS)).ravel()
    output = np.zeros((n_symbols, n_candles))
    recipe = Recipe(variant.loss, variant.dropout, variant.rate, variant.epochs, variant.zero_start)
    everyone = list(range(n_symbols))
    for group in [everyone] if variant.shared else [[s] for s in everyone]:
        arrays = (ready.x[group], ready.y[group], ready.weight[group])
        network = DenseNetwork(recipe, *arrays, seed=100 * seed + train_end // _DAY)

        def judge(group: list[int] = group, network: DenseNetwork = network) -> float:
            sketch = np.zeros((n_symbols, n_candles))
            for position, symbol in enumerate(group):
                sketch[symbol, judged] = network.sketch(position, starts)
            forecast = ready.log_return(sketch)
            errors = []
            for symbol in group:
                truth, made = market.returns[symbol, judged], forecast[symbol, judged]
                factor = shrinkage(made, truth) if variant.stop_shrunk else 1.0
                errors.append(np.abs(truth - factor * made).sum() / np.abs(truth).sum())
            return float(np.mean(errors))

        network.fit(_WARM_UP, train_end, judge)
        for position, symbol in enumerate(group):
            output[symbol, rows] = network.exact(position, rows)
    forecast = ready.log_return(output)
    val, test = slice(train_end, val_end), slice(val_end, rows[-1] + 1)
    factors = [shrinkage(forecast[s, val], market.returns[s, val]) for s in everyone]
    raw = forecast[:, test]
    return raw, raw * np.array(factors)[:, None], market.returns[:, test]


def ratio(forecast: Floats, truth: Floats) -> tuple[float, float, Floats]:
    """Error ratio to the last value, its standard error, and the ratio per symbol.

    Symbols weigh alike; losses are averaged over symbols per candle, then over four hours each.
    """
    move = np.abs(truth).mean(axis=1, keepdims=True)
    excess = (np.abs(truth - forecast) - np.abs(truth)) / move
    together = excess.mean(axis=0)
    blocks = together[: len(together) // _BLOCK * _BLOCK].reshape(-1, _BLOCK).mean(axis=1)
    error = float(blocks.std(ddof=1) / len(blocks) ** 0.5)
    return float(1.0 + together.mean()), error, 1.0 + excess.mean(axis=1)


def main() -> None:
    """Run the variants and print a row for each as it is done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="Parquet files of recorded minutes")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(VARIANTS)}; default: all")
    parser.add_argument("--test", action="store_true", help="evaluate on the held-out days")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    frames = read_folder(args.folder)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text("{}\n", encoding="utf-8")
        market = read_market(frames, config)
    print(f"{'variant':<14}{'':<8}{'ratio':>9}{'± s.e.':>9}  " + "  ".join(frames))
    for name in args.names or VARIANTS:
        folds = [
            run_fold(market, VARIANTS[name], end, args.seed)
            for end in (TEST if args.test else SEARCH)
        ]
        raw, shrunk, truth = (np.concatenate(parts, axis=1) for parts in zip(*folds, strict=True))
        for what, forecast in (("raw", raw), ("shrunk", shrunk)):
            value, error, single = ratio(forecast, truth)
            symbols = "  ".join(f"{s:.5f}" for s in single)
            print(f"{name:<14}{what:<8}{value:>9.5f}{error:>9.5f}  {symbols}", flush=True)


if __name__ == "__main__":
    main()
