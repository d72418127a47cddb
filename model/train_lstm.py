"""Train one network on candle files and write model, scaler, plot and predictions.

As a script it trains on the newest candle file of `data/`: `python -m model.train_lstm`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model.core.candle import Timeframe
from model.core.errors import CandlecastError, ConfigError
from model.features.definitions import OHLCV
from model.features.sklearn_scaler import save_pickle, scaler_of
from model.files.candle_csv import newest_csv
from model.files.csv_reader import FileRules
from model.forecasts.residuals import Residuals, fit_residuals
from model.lstm_model import LSTMPricePredictor
from model.preprocess import indicators_of
from model.reference_config import load_config, max_filled_of, trading_of
from model.stats.scores import Evaluation, Scored, evaluate
from model.training.candle_sources import read_sources
from model.training.checkpoint import TrainingCheckpoint
from model.training.dataset import Dataset, Samples, build_dataset

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from model.features.definitions import Indicators
    from model.features.scaler import ScalerSet
    from model.inference.onnx_export import LstmWeights


@dataclass(frozen=True)
class Trained:
    """Result of a training run: content of the bundle and scores.

    Attributes:
        weights: the network's weights for export.
        scalers: one scaler per symbol, with features and target.
        timeframe: ccxt timeframe of the candles.
        indicators: the periods of the features.
        lookback: rows of a window.
        units: units of each LSTM layer.
        metrics: finite scores on the test part, by name.
        trained_from_ms: opening time of the first training candle, Unix milliseconds.
        trained_to_ms: opening time of the last one, validation included.
        data_sha256: hash of all candles, including the test part.
        symbols: ccxt symbols by the number that ``validation`` and ``test`` use.
        validation: forecasts of the validation part.
        test: forecasts of the test part.
        residuals: errors of the validation part; start values of the calibration.
    """

    weights: LstmWeights
    scalers: ScalerSet
    timeframe: str
    indicators: Indicators
    lookback: int
    units: tuple[int, ...]
    metrics: Mapping[str, float]
    trained_from_ms: int
    trained_to_ms: int
    data_sha256: str
    symbols: tuple[str, ...]
    validation: Scored
    test: Scored
    residuals: Residuals


def train(
    config_path: str | Path,
    candles: Mapping[str, pd.DataFrame],
    timeframe: Timeframe,
    *,
    models: Path = Path("models"),
    data: Path = Path("data"),
    splits: tuple[float, float] | None = None,
    resume: Path | None = None,
    pause: Callable[[], None] | None = None,
) -> Trained:
    """Train one network on the candles of all symbols and evaluate it on their last part.

    Prints its progress and writes `training_history.png`, `lstm_model.keras`, `scaler.json` and
    `checkpoints/best_model.keras` into ``models``, for a single symbol also `scaler.pkl`, and
    `predictions.csv` (scaled targets of the test part) into ``data``.

    Args:
        config_path: the configuration; uses its `model` and `indicators` sections.
        candles: frames from `read_candles`, by ccxt symbol.
        timeframe: length of the candles.
        models: folder for model and plot; created when missing.
        data: folder for the predictions; created when missing.
        splits: shares of training and validation instead of the configuration's.
        resume: folder of the checkpoint, from which a killed run continues.
        pause: called after every batch; may block.

    Raises:
        CandlecastError: too few candles.
    """
    dataset = build_dataset(config_path, candles, splits)
    predictor = LSTMPricePredictor(config_path)
    predictor.checkpoint_path = models / "checkpoints" / "best_model.keras"
    if resume is not None:
        predictor.resume = TrainingCheckpoint(resume, _key(dataset, predictor))
    if pause is not None:
        predictor.pause = pause
    _print_split(dataset)
    print("\nModel Architecture:")
    predictor.train(dataset.train.X, dataset.train.y, dataset.validation.X, dataset.validation.y)
    print("\n=== Test Set Performance ===")
    metrics = predictor.evaluate(dataset.test.X, dataset.test.y)
    raw = predictor.predict(dataset.test.X)[:, 0]
    if not np.isfinite(raw).all():
        msg = (
            "training has diverged: the network's output is not finite; lower model.learning_rate "
            "and check the candles"
        )
        raise CandlecastError(msg)
    test = _scored(dataset, dataset.test, raw)
    validation = _scored(dataset, dataset.validation, predictor.predict(dataset.validation.X)[:, 0])
    overall = evaluate(test)
    _print_error_ratios(dataset.symbols, test, overall)
    # On returns this is not a measure of skill.
    del metrics["direction_accuracy"]
    metrics |= {
        "mae_ratio": overall.mae_ratio.value,
        "mae_ratio_low": overall.mae_ratio.low,
        "mae_ratio_high": overall.mae_ratio.high,
        "direction_of_moves": overall.direction.value,
        "validation_mae_ratio": evaluate(validation).mae_ratio.value,
    }
    predictor.plot_training_history(models / "training_history.png")
    predictor.save_model(models / "lstm_model.keras")
    _write_scalers(dataset.scalers, models)
    _write_predictions(dataset, raw, data / "predictions.csv")
    print("\n=== Training Complete ===")
    return Trained(
        weights=predictor.lstm_weights(),
        scalers=dataset.scalers,
        timeframe=timeframe.text,
        indicators=indicators_of(predictor.config),
        lookback=dataset.train.X.shape[1],
        units=tuple(predictor.config["model"]["lstm_units"]),
        metrics={name: value for name, value in metrics.items() if np.isfinite(value)},
        trained_from_ms=dataset.from_ms,
        trained_to_ms=dataset.test_from_ms - timeframe.ms,
        data_sha256=dataset.sha256,
        symbols=dataset.symbols,
        validation=validation,
        test=test,
        residuals=_residuals(candles, dataset, validation),
    )


def _key(dataset: Dataset, predictor: LSTMPricePredictor) -> str:
    """Identify a training run by its candles, splits and settings."""
    settings = {name: predictor.config[name] for name in ("model", "indicators")}
    identity = [dataset.sha256, len(dataset.train.y), len(dataset.validation.y), settings]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _scored(dataset: Dataset, samples: Samples, raw: NDArray[np.float32]) -> Scored:
    """Convert the network's raw outputs to prices."""
    value = dataset.scalers.bind(dataset.symbols).unscale_target(samples.symbol, raw)
    price = value if dataset.scalers.target == "close" else samples.last_close * np.exp(value)
    return Scored(samples.symbol, samples.open_ms, samples.last_close, samples.close, price)


def _residuals(
    candles: Mapping[str, pd.DataFrame], dataset: Dataset, validation: Scored
) -> Residuals:
    arrays = (
        (symbol, (frame["timestamp"].to_numpy(np.int64), frame[list(OHLCV)].to_numpy(np.float64)))
        for symbol, frame in candles.items()
    )
    return fit_residuals(arrays, dataset.symbols, validation)


def _print_split(dataset: Dataset) -> None:
    print("Data split:")
    print(f"Training: {len(dataset.train.y)} samples")
    print(f"Validation: {len(dataset.validation.y)} samples")
    print(f"Test: {len(dataset.test.y)} samples")


def _print_error_ratios(symbols: Sequence[str], test: Scored, overall: Evaluation) -> None:
    """Print the error ratios to the last-value forecast, by symbol."""
    print("Price error against the last-value forecast (below 1 is skill):")
    rows = [(symbol, evaluate(test.of(number))) for number, symbol in enumerate(symbols)]
    if len(symbols) > 1:
        rows.append(("all", overall))
    for name, result in rows:
        ratio = result.mae_ratio
        print(
            f"{name}: mae {result.mae.value:.6g} ({result.mae_percent.value:.4f} %), ratio "
            f"{ratio.value:.4f} (95 %: {ratio.low:.4f} to {ratio.high:.4f}), n {result.n}"
        )


def _write_scalers(scalers: ScalerSet, models: Path) -> None:
    """Write `scaler.json`, and `scaler.pkl` as the reference's examples load it."""
    (models / "scaler.json").write_text(scalers.to_json() + "\n", encoding="utf-8")
    pickled = models / "scaler.pkl"
    if len(scalers.by_symbol) == 1:
        save_pickle(scaler_of(scalers), pickled)
    else:
        # The file holds one symbol; one of an earlier training does not fit this network.
        pickled.unlink(missing_ok=True)


def _write_predictions(dataset: Dataset, raw: NDArray[np.float32], path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame(
        {
            "actual": dataset.test.y,
            "predicted": raw,
            "datetime": pd.to_datetime(dataset.test.open_ms, unit="ms"),
        }
    )
    if len(dataset.symbols) > 1:
        frame["symbol"] = np.array(dataset.symbols)[dataset.test.symbol]
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    print(f"Predictions saved to {path}")


def main(argv: Sequence[str] | None = None) -> int:
    """Train on the newest candle file of `data/`, or on those named.

    Returns:
        Exit code: 0 done, 1 failed, 2 wrong usage or configuration.
    """
    parser = argparse.ArgumentParser(description="Train the network on candle files.")
    parser.add_argument("--config", type=Path, default=Path("config/config.yaml"))
    parser.add_argument(
        "--data", type=Path, nargs="+", metavar="CSV", help="default: the newest file of data/"
    )
    args = parser.parse_args(argv)
    print("Loading and preprocessing data...")
    try:
        paths = args.data or [newest_csv(Path("data"))]
        config = load_config(args.config)
        rules = FileRules(max_filled_of(config), print)
        candles, timeframe = read_sources(paths, *trading_of(config), rules)
        train(args.config, candles, timeframe)
    except (CandlecastError, FileNotFoundError) as error:
        print(f"train_lstm: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, CandlecastError) else ConfigError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
