"""Compare the targets close and log return, walk-forward.

    python -m benchmarks.research.target   the BTC 15m candles that come with the project
    python -m benchmarks.research.target FOLDER  every SYMBOL-1m.parquet in a folder, one network
    python -m benchmarks.research.target --quick  one fold, few rows and epochs: a minute or two
    python -m benchmarks.research.target FOLDER --json target.json

The span is cut into ten blocks. A fold trains on all blocks before its validation block, stops and
picks weights by the validation block, and is judged on the block after that; the last five blocks
are judged. Scalers are fitted on training rows only. The ratio is the sum of errors, relative to
the last close, divided by the last-value forecast's. Its 95 % interval comes from losses averaged
over symbols and seeds per candle, and a block bootstrap.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.harness.candles import read_folder, read_sandbox
from model.lstm_model import LSTMPricePredictor
from model.stats.scores import Scored, evaluate
from model.training.dataset import build_dataset

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

_BLOCKS: Final = 10


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Attributes:
        folds: blocks that are judged, the last ones.
        rows: candles per symbol, the newest, or None for all.
        epochs: at most.
        seeds: networks per fold.
    """

    folds: int
    rows: int | None
    epochs: int
    seeds: int


FULL: Final = Plan(folds=5, rows=None, epochs=15, seeds=3)
QUICK: Final = Plan(folds=1, rows=6_000, epochs=4, seeds=1)


def forecasts(
    frames: Mapping[str, pd.DataFrame], target: str, plan: Plan, fold: int, seed: int
) -> Scored:
    """Train one network for all symbols and forecast its test block."""
    rows = len(next(iter(frames.values())))
    block = rows // _BLOCKS
    end = rows - (plan.folds - 1 - fold) * block
    share = block / end
    model = {
        "target": target,
        "seed": seed,
        "epochs": plan.epochs,
        "train_split": 1.0 - 2.0 * share,
        "val_split": share,
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        config = Path(folder) / "config.yaml"
        # JSON is YAML.
        config.write_text(json.dumps({"model": model}), encoding="utf-8")
        data = build_dataset(config, {s: f.iloc[:end] for s, f in frames.items()})
        predictor = LSTMPricePredictor(config)
        predictor.checkpoint_path = Path(folder) / "best.keras"
        predictor.train(data.train.X, data.train.y, data.validation.X, data.validation.y)
    test = data.test
    raw = predictor.predict(test.X)[:, 0]
    value = data.scalers.bind(data.symbols).unscale_target(test.symbol, raw)
    price = value if target == "close" else test.last_close * np.exp(value)
    return Scored(test.symbol, test.open_ms, test.last_close, test.close, price)


def judge(frames: Mapping[str, pd.DataFrame], target: str, plan: Plan) -> dict[str, Any]:
    """One target over all folds and seeds, as a row of the table."""
    if plan.rows is not None:
        frames = {symbol: frame.tail(plan.rows) for symbol, frame in frames.items()}
    runs = [
        forecasts(frames, target, plan, fold, seed)
        for seed in range(plan.seeds)
        for fold in range(plan.folds)
    ]
    scored = Scored._make(map(np.concatenate, zip(*runs, strict=True)))
    overall = evaluate(scored)
    return {
        "target": target,
        "ratio": overall.mae_ratio.value,
        "low": overall.mae_ratio.low,
        "high": overall.mae_ratio.high,
        "direction": overall.direction.value,
        "forecasts": overall.n,
        "symbols": {s: evaluate(scored.of(i)).mae_ratio.value for i, s in enumerate(frames)},
    }


def main() -> None:
    """Measure both targets, print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="Parquet files of recorded candles")
    parser.add_argument("--quick", action="store_true", help="one fold, few rows, few epochs")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    frames = read_folder(args.folder) if args.folder else {"BTC/USDT": read_sandbox("15m")}
    rows = []
    print(f"{'target':<12}{'ratio':>9}{'95 %':>19}{'direction':>11}{'forecasts':>11}  per symbol")
    for target in ("close", "log_return"):
        row = judge(frames, target, QUICK if args.quick else FULL)
        rows.append(row)
        symbols = "  ".join(f"{s} {r:.4f}" for s, r in row["symbols"].items())
        print(
            f"{target:<12}{row['ratio']:>9.4f}{row['low']:>10.4f} {row['high']:>8.4f}"
            f"{row['direction']:>11.3f}{row['forecasts']:>11}  {symbols}",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
