"""Split the candles, train a challenger and judge it against the champion.

Every night is one step of a walk forward: the span rolls on by a day, the network learns from its
first part, is stopped by the second, and is judged by the third, which neither it nor the champion
has seen.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model.core.candle import Timeframe
from model.core.errors import CandlecastError, ConfigError
from model.evaluation.hindcast import hindcast
from model.registry.manifest import made_ms
from model.stats.promotion_gate import Decision, GateRules, decide, paired_losses
from model.stats.scores import Scored
from model.train_lstm import train
from model.training.dataset import cut_times, on_grid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from model.core.candle import Candle
    from model.registry.registry import Bundle
    from model.train_lstm import Trained

    Candles = Mapping[str, pd.DataFrame]
    Progress = Callable[[str, int, int], None]

log = logging.getLogger("candlecast.retraining")

_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Cut:
    """How a span is shared out.

    Attributes:
        train: share of rows for training.
        validation: share of rows that end it; the rest is for the gate.
    """

    train: float
    validation: float


@dataclass(frozen=True)
class Judged:
    """A decision and the forecasts behind it.

    Attributes:
        decision: promote or keep.
        symbols: ccxt symbols by the number that the forecasts use.
        challenger: its forecasts of what neither model had seen.
        champion: the champion's, None where there was none to compare with.
    """

    decision: Decision
    symbols: tuple[str, ...]
    challenger: Scored
    champion: Scored | None


def cut_for_gate(
    rows: int, gate_rows: int, lookback: int, train_split: float, val_split: float
) -> Cut:
    """Leave the newest candles to the gate, and share the rest as training does.

    Args:
        rows: candles of the whole span.
        gate_rows: candles that the gate needs forecasts of.
        lookback: candles before the first of them, which its window is made of.
        train_split: configured share of training.
        val_split: configured share of validation.

    Raises:
        ConfigError: hardly anything would be left to learn from.
    """
    left = rows - gate_rows - lookback
    if left < gate_rows + lookback:
        msg = (
            f"{rows} candles are too few: {gate_rows + lookback} are kept to judge by, and as many "
            "at least must be left to learn from; raise retrain.days or lower registry.gate_days"
        )
        raise ConfigError(msg)
    share = left / rows
    train = share * train_split / (train_split + val_split)
    return Cut(train, share - train)


def frame_of(candles: Sequence[Candle], timeframe: Timeframe) -> pd.DataFrame:
    """Candles as `model.dataset.read_candles` gives them; there must be one."""
    import pandas as pd

    rows = [(candle.open_ms, *candle.ohlcv) for candle in candles]
    names = ["timestamp", "open", "high", "low", "close", "volume"]
    return on_grid(pd.DataFrame(rows, columns=names), timeframe)


def rows_of(candles: Candles) -> int:
    """Different candles there are, whatever their symbol: what a `Cut` shares out."""
    return len(np.unique(np.concatenate([frame["timestamp"] for frame in candles.values()])))


def long_enough(candles: Candles, cut: Cut, lookback: int, warmup: int) -> dict[str, pd.DataFrame]:
    """Those symbols that have something to learn from, to be stopped by, and to be tested on.

    Args:
        candles: frames by ccxt symbol.
        cut: how they are shared out.
        lookback: candles of a window.
        warmup: candles before the first window.
    """
    edges = cut_times(candles, cut.train, cut.validation)
    found = {}
    for symbol, frame in candles.items():
        ends = np.append(np.searchsorted(frame["timestamp"], edges), len(frame))
        if (np.diff(ends, prepend=0) > np.array([warmup + lookback, lookback, lookback])).all():
            found[symbol] = frame
        else:
            log.warning("%s is left out: it has too few candles to be trained on", symbol)
    return found


def train_challenger(
    config_path: Path,
    candles: Candles,
    timeframe: Timeframe,
    cut: Cut,
    folder: Path,
    pause: Callable[[], None],
) -> Trained:
    """Train a network with the configuration's settings; goes on where a killed one was.

    Args:
        config_path: the configuration.
        candles: frames by ccxt symbol.
        timeframe: length of the candles.
        cut: how they are shared out.
        folder: for what training leaves, and for what it needs to go on.
        pause: called after every batch; may take its time.

    Raises:
        CandlecastError: too few candles.
    """
    return train(
        config_path,
        candles,
        timeframe,
        models=folder,
        data=folder,
        splits=(cut.train, cut.validation),
        resume=folder / "resume",
        pause=pause,
    )


def judge(
    challenger: Bundle,
    champion: Bundle | None,
    candles: Candles,
    rules: GateRules,
    now_ms: int,
    progress: Progress,
) -> Judged:
    """Let both forecast what neither has seen, and decide.

    Args:
        challenger: the new model.
        champion: the served one, None where there is none.
        candles: frames by ccxt symbol, reaching to the newest candle.
        rules: what the gate asks for.
        now_ms: Unix milliseconds.
        progress: told how far the forecasts are, by symbol.

    Raises:
        CandlecastError: the challenger's forecasts are no prices.
    """
    timeframe = Timeframe.parse(challenger.manifest.timeframe)
    known = set(challenger.scalers.by_symbol)
    if champion is not None:
        common = known & set(champion.scalers.by_symbol)
        if champion.manifest.timeframe == timeframe.text and not common.isdisjoint(candles):
            known = common
        else:
            # It could not be served under this configuration, so there is nothing to defend.
            champion = None
    both = [challenger] if champion is None else [challenger, champion]
    symbols = tuple(symbol for symbol in candles if symbol in known)
    chosen = {symbol: candles[symbol] for symbol in symbols}
    mine, *theirs = (_unseen(bundle, both, chosen, progress) for bundle in both)
    wrong = int(np.count_nonzero(~_is_price(mine)))
    if wrong:
        msg = f"{wrong} of the {len(mine.open_ms)} forecasts of {challenger.version} are no price"
        raise CandlecastError(msg)
    # What is no price the daemon does not publish: there the champion has said nothing.
    rival = Scored._make(a[_is_price(theirs[0])] for a in theirs[0]) if theirs else None
    age_days = 0.0 if champion is None else (now_ms - made_ms(champion.version)) / _DAY_MS
    decision = decide(paired_losses(mine, rival), rules, timeframe.ms, age_days, symbols)
    return Judged(decision, symbols, mine, rival)


def _is_price(scored: Scored) -> NDArray[np.bool_]:
    price: NDArray[np.bool_] = (scored.predicted > 0.0) & (scored.predicted < np.inf)
    return price


_NOTHING = Scored(
    np.array([], np.int64), np.array([], np.int64), np.array([]), np.array([]), np.array([])
)


def _unseen(bundle: Bundle, both: Sequence[Bundle], candles: Candles, progress: Progress) -> Scored:
    """Forecasts of the candles whose window no model has learnt from; perhaps none."""
    manifest = bundle.manifest
    step_ms = Timeframe.parse(manifest.timeframe).ms
    after_ms = max(b.manifest.trained_to_ms + b.manifest.lookback * step_ms for b in both)
    needed_ms = (manifest.indicators.warmup + manifest.lookback) * step_ms
    cropped = {}
    for symbol, frame in candles.items():
        if int(frame["timestamp"].iloc[-1]) <= after_ms:
            continue
        # What lies further back would be forecast for nothing.
        recent = frame["timestamp"] >= after_ms - needed_ms
        cropped[symbol] = frame[recent].reset_index(drop=True)
    if not cropped:
        return _NOTHING
    found = hindcast(bundle, cropped, progress)
    numbers = np.array([list(candles).index(symbol) for symbol in cropped])
    found = found._replace(symbol=numbers[found.symbol])
    return Scored._make(array[found.open_ms > after_ms] for array in found)
