"""Measure the width and the coverage of the intervals, walk-forward.

    python -m benchmarks.research.intervals          the BTC 15m candles of the project
    python -m benchmarks.research.intervals FOLDER   every SYMBOL-1m.parquet in a folder
    python -m benchmarks.research.intervals FOLDER --plot FILE.png   also draw the reliability
    python -m benchmarks.research.intervals FOLDER --json FILE.json  also write the numbers

The forecast is the last close, which no model improves by more than thousandths. The span is cut
into tenths, and the last six are judged: for each, the scale is fitted on everything up to the 15 %
before it, and quantiles start from the residuals of those 15 %. The interval score (Winkler, 90 %)
is divided by that of constant-width conformal intervals from the same residuals. Calm and wild are
the fifths of clock hours with the smallest and the largest moves, chosen afterwards.
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from benchmarks.harness.candles import read_folder, read_sandbox
from model.evaluation.reliability import calm_and_wild
from model.features.definitions import OHLCV
from model.forecasts.calibration import Calibration
from model.forecasts.residuals import LEVELS, Residuals, conformal_quantiles, fit_residuals
from model.forecasts.rules import Rules
from model.forecasts.volatility import WARMUP
from model.stats.scores import Scored

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEVEL: Final = 0.9
FOLDS: Final = 6
WINDOW: Final = 2_000
FEE: Final = 0.001


class Market(NamedTuple):
    """Candles of s symbols: opening times ``[rows]``, candles ``[s, rows, 5]``, log close."""

    symbols: tuple[str, ...]
    open_ms: NDArray[np.int64]
    ohlcv: Floats
    log_close: Floats


class Fold(NamedTuple):
    """Rows whose forecasts calibrate, then those that are judged; both forecast the next close."""

    validation: slice
    test: slice


class Served(NamedTuple):
    """Forecasts of the next close, ``[s, n]`` in log returns, and probabilities, ``[s, n, 3]``."""

    lower: Floats
    upper: Floats
    chances: Floats
    threshold: Floats


def read_market(folder: Path | None) -> Market:
    """Read recorded candles of all symbols, or the project's own."""
    frames: Mapping[str, pd.DataFrame]
    frames = read_folder(folder) if folder else {"BTC/USDT": read_sandbox("15m")}
    first = next(iter(frames.values()))
    ohlcv = np.stack([frame[list(OHLCV)].to_numpy(np.float64) for frame in frames.values()])
    open_ms = first["timestamp"].to_numpy(np.int64)
    return Market(tuple(frames), open_ms, ohlcv, np.log(ohlcv[:, :, 3]))


def folds(rows: int) -> list[Fold]:
    """Consecutive test parts, each after its own validation part."""
    edges = [int(rows * (10 - FOLDS + i) / 10) for i in range(FOLDS)] + [rows]
    share = int(0.15 * rows)
    # A forecast from row i is judged by row i + 1.
    return [
        Fold(slice(start - share - 1, start - 1), slice(start - 1, end - 1))
        for start, end in pairwise(edges)
    ]


def residuals_of(market: Market, fold: Fold) -> Residuals:
    """The residuals that training would put into the bundle."""
    rows = np.arange(fold.validation.start, fold.validation.stop)
    close = market.ohlcv[:, :, 3]
    n = len(market.symbols)
    validation = Scored(
        np.repeat(np.arange(n), len(rows)),
        np.tile(market.open_ms[rows + 1], n),
        close[:, rows].ravel(),
        close[:, rows + 1].ravel(),
        close[:, rows].ravel(),
    )
    known = {
        symbol: (market.open_ms[: fold.test.start + 1], ohlcv[: fold.test.start + 1])
        for symbol, ohlcv in zip(market.symbols, market.ohlcv, strict=True)
    }
    return fit_residuals(known.items(), market.symbols, validation)


def serve(market: Market, fold: Fold, rules: Rules) -> Served:
    """Process a test part as the daemon would."""
    calibration = Calibration(residuals_of(market, fold), market.symbols, rules)
    idx = np.arange(len(market.symbols))
    start = fold.test.start
    calibration.prime(idx, market.ohlcv[:, start - WARMUP : start])
    said: list[tuple[Floats, ...]] = []
    for row in range(start, fold.test.stop):
        calibration.observe(idx, market.ohlcv[:, row])
        last = market.ohlcv[:, row, 3]
        outlook = calibration.outlook(idx, last, last, market.open_ms[[row + 1] * len(idx)])
        assert outlook.known.all()
        chances = np.stack([outlook.short, outlook.neutral, outlook.long], axis=-1)
        bounds = np.log(outlook.lower / last), np.log(outlook.upper / last)
        said.append((*bounds, chances, outlook.threshold))
    return Served._make(np.stack(column, axis=1) for column in zip(*said, strict=True))


def scaled(market: Market, fold: Fold, scale: Floats) -> Served:
    """Split-conformal intervals of a fixed scale ``[s, rows]``, never adapted."""
    moves = np.diff(market.log_close, axis=1)
    ends = [int(np.argmin(np.abs(LEVELS - p))) for p in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)]
    quantiles = np.stack(
        [
            conformal_quantiles(move[fold.validation] / width[fold.validation])[ends]
            for move, width in zip(moves, scale, strict=True)
        ]
    )
    lower, upper = (quantiles[:, [side]] * scale[:, fold.test] for side in (0, 1))
    nothing = np.full((*lower.shape, 3), np.nan)
    return Served(lower, upper, nothing, nothing[..., 0])


def mean_of(values: Floats, span: int) -> Floats:
    """Exponential mean along the rows of ``[s, rows]``."""
    import pandas as pd

    mean: Floats = pd.DataFrame(values.T).ewm(span=span, adjust=True).mean().to_numpy().T
    return mean


def static_scales(market: Market) -> dict[str, Floats]:
    """The scales for comparison, ``[s, rows]``."""
    ranges = np.log(market.ohlcv[:, :, 1] / market.ohlcv[:, :, 2])
    moves = np.abs(np.diff(market.log_close, axis=1, prepend=market.log_close[:, :1]))
    return {
        "constant": np.ones_like(ranges),
        "mean |return|, 20": mean_of(moves, 20) + 1e-7,
        "mean range, 20": mean_of(ranges, 20) + 1e-7,
        "mean range, 8 and 60": mean_of(ranges, 8) + mean_of(ranges, 60) + 1e-7,
    }


def joined(parts: Sequence[Served]) -> Served:
    """The test parts one after the other."""
    return Served._make(np.concatenate(column, axis=1) for column in zip(*parts, strict=True))


def score(served: Served, moves: Floats) -> Floats:
    """Interval score of each forecast, ``[s, n]`` (Gneiting and Raftery, JASA 2007, eq. 43)."""
    below = np.maximum(served.lower - moves, 0.0)
    above = np.maximum(moves - served.upper, 0.0)
    return served.upper - served.lower + 2.0 / (1.0 - LEVEL) * (below + above)


def row_of(served: Served, moves: Floats, base: Floats, hours: NDArray[np.int64]) -> dict[str, Any]:
    """One method's figures; lists are per symbol."""
    inside = (served.lower <= moves) & (moves <= served.upper)
    counted = np.cumsum(np.pad(inside, ((0, 0), (1, 0))), axis=1)
    rolling = (counted[:, WINDOW:] - counted[:, :-WINDOW]) / np.float64(WINDOW)
    points = score(served, moves)
    last = slice(-int(0.15 * moves.shape[1] * 10 / FOLDS), None)
    calm, wild = calm_and_wild(moves, hours)
    return {
        "ratio": (points.mean(axis=1) / base.mean(axis=1)).tolist(),
        "ratio_last_15": (points[:, last].mean(axis=1) / base[:, last].mean(axis=1)).tolist(),
        "coverage": inside.mean(axis=1).tolist(),
        "least": rolling.min(axis=1).tolist(),
        "most": rolling.max(axis=1).tolist(),
        "calm": [float(i[c].mean()) for i, c in zip(inside, calm, strict=True)],
        "wild": [float(i[w].mean()) for i, w in zip(inside, wild, strict=True)],
    }


def reliability(served: Served, moves: Floats) -> dict[str, Any]:
    """Brier score against constant shares, and observed frequency by given probability."""
    returns = np.expm1(moves)
    short, long = returns < -served.threshold, returns > served.threshold
    came = np.stack([short, ~(short | long), long], axis=-1).astype(np.float64)
    shares = came.mean(axis=(0, 1))
    table = []
    for edge in np.arange(0.0, 1.0, 0.1):
        chosen = (served.chances >= edge) & (served.chances < edge + 0.1)
        row = [
            (int(c.sum()), float(p[c].mean()), float(o[c].mean()))
            for k in range(3)
            if (c := chosen[..., k]).sum() >= WINDOW
            for p, o in ((served.chances[..., k], came[..., k]),)
        ]
        names = [k for k in range(3) if chosen[..., k].sum() >= WINDOW]
        table += [(("short", "neutral", "long")[k], *r) for k, r in zip(names, row, strict=True)]
    return {
        "brier": float(((served.chances - came) ** 2).sum(axis=-1).mean()),
        "brier_of_shares": float(((shares - came) ** 2).sum(axis=-1).mean()),
        "shares": shares.tolist(),
        "bins": table,
    }


def show(name: str, symbols: Sequence[str], row: Mapping[str, Any]) -> None:
    """Print one method, a line per symbol and one for all."""
    keys = ("coverage", "least", "most", "calm", "wild", "ratio", "ratio_last_15")
    for symbol, *values in zip(symbols, *(row[key] for key in keys), strict=True):
        print(f"{name:<22}{symbol:<10}" + "".join(f"{value:>9.3f}" for value in values))
    least, most = min(row["least"]), max(row["most"])
    mean = {key: float(np.mean(row[key])) for key in keys}
    numbers = (mean["coverage"], least, most, *(mean[key] for key in keys[3:]))
    print(f"{name:<22}{'all':<10}" + "".join(f"{value:>9.3f}" for value in numbers), flush=True)


def draw(results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Reliability of the probabilities as a picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(5 * len(results), 5), squeeze=False)
    for axis, (name, result) in zip(axes[0], results.items(), strict=True):
        axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        for outcome in ("short", "neutral", "long"):
            bins = [row for row in result["bins"] if row[0] == outcome]
            axis.plot([b[2] for b in bins], [b[3] for b in bins], marker="o", label=outcome)
        axis.set(title=name, xlabel="probability given", ylabel="share that came", aspect="equal")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Measure all methods, print the tables, write and draw them if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="Parquet files of recorded candles")
    parser.add_argument("--plot", type=Path, help="draw the reliability here")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    market = read_market(args.folder)
    cuts = folds(len(market.open_ms))
    tested = slice(cuts[0].test.start, cuts[-1].test.stop)
    moves = np.diff(market.log_close, axis=1)[:, tested]
    hours = market.open_ms[tested] // 3_600_000
    methods = {
        name: joined([scaled(market, fold, scale) for fold in cuts])
        for name, scale in static_scales(market).items()
    }
    rules = {"auto": Rules(), f"{FEE:.1%}": Rules(threshold=FEE)}
    ours = {name: joined([serve(market, fold, r) for fold in cuts]) for name, r in rules.items()}
    methods["served"] = ours["auto"]
    base = score(methods["constant"], moves)
    print(
        f"{moves.shape[1]} forecasts per symbol; coverage of {LEVEL:.0%} intervals, the least and"
    )
    print(f"most over {WINDOW} candles, in calm and wild hours; interval score ÷ constant width")
    head = ("coverage", "least", "most", "calm", "wild", "score", "last 15%")
    print(f"{'scale':<22}{'symbol':<10}" + "".join(f"{h:>9}" for h in head))
    rows = {name: row_of(served, moves, base, hours) for name, served in methods.items()}
    for name, row in rows.items():
        show(name, market.symbols, row)
    reliable = {f"threshold {name}": reliability(s, moves) for name, s in ours.items()}
    for name, result in reliable.items():
        print(f"{name}: Brier {result['brier']:.4f}, of constant shares", end=" ")
        print(f"{result['brier_of_shares']:.4f}")
        for outcome, n, given, came in result["bins"]:
            print(f"  {outcome:<8}{n:>9}{given:>9.3f}{came:>9.3f}")
    if args.plot:
        draw(reliable, args.plot)
    if args.json:
        text = json.dumps({"symbols": market.symbols, "intervals": rows, **reliable}, indent=1)
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
