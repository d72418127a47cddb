"""Evaluate a model on candles that it was not trained on, and write the results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from daemon.jobs.evaluation_report import Scores, as_json, lines, notes, table, title
from model.core.candle import Timeframe
from model.evaluation.hindcast import hindcast
from model.evaluation.plots import plot_forecasts
from model.stats.scores import Scored, evaluate, scaled_metrics
from model.training.candle_sources import choose_candles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rich.console import Console

    from model.files.csv_reader import FileRules
    from model.registry.registry import Bundle, Registry

JSON_NAME: Final = "evaluation.json"
PLOT_NAME: Final = "evaluation.png"


@dataclass(frozen=True)
class EvaluateJob:
    """The parameters of an evaluation.

    Attributes:
        version: of the model; None for the champion.
        files: candle files; if empty, the newest file of each symbol in ``data``.
        symbols: ccxt symbols whose files are searched in ``data``.
        data: folder of candle files.
        output: folder for results and plot; created when missing.
        rules: how missing candles and invalid rows are handled.
    """

    version: str | None
    files: Sequence[Path]
    symbols: Sequence[str]
    data: Path
    output: Path
    rules: FileRules


def evaluate_model(
    job: EvaluateJob, registry: Registry, progress: Callable[[str, int, int], None]
) -> Scores:
    """Evaluate a model and write `evaluation.json` and `evaluation.png`.

    Raises:
        ConfigError: files are missing or have another timeframe than the model.
        CandlecastError: no such model, no champion, or no candles to evaluate it on.
    """
    bundle = registry.open(job.version or registry.champion())
    timeframe = Timeframe.parse(bundle.manifest.timeframe)
    candles = choose_candles(job.files, job.data, job.symbols, timeframe, job.rules)
    scored = hindcast(bundle, candles, progress)
    scores = _scores(bundle, tuple(candles), scored)
    job.output.mkdir(parents=True, exist_ok=True)
    (job.output / JSON_NAME).write_text(as_json(scores), encoding="utf-8")
    plot_forecasts(scored, tuple(candles), title(scores), job.output / PLOT_NAME)
    return scores


def show(scores: Scores, output: Path, console: Console) -> None:
    """Print the scores, as a table on a terminal and as plain lines elsewhere, and their notes."""
    if console.is_terminal:
        console.print(table(scores))
    else:
        for line in lines(scores):
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    for note in notes(scores):
        show_note(note, console)
    for name in (JSON_NAME, PLOT_NAME):
        console.print(str(output / name), soft_wrap=True, highlight=False, markup=False)


def show_note(line: str, console: Console) -> None:
    """Print a sentence, wrapped to the width of a terminal."""
    console.print(line, soft_wrap=not console.is_terminal, highlight=False, markup=False)


def _scores(bundle: Bundle, symbols: Sequence[str], scored: Scored) -> Scores:
    manifest = bundle.manifest
    per_symbol = {symbol: scored.of(number) for number, symbol in enumerate(symbols)}
    # For returns this metric rewards forecasts without skill.
    consecutive = {
        symbol: scaled_metrics(result.predicted, result.close)["direction_accuracy"]
        for symbol, result in per_symbol.items()
    }
    return Scores(
        model=bundle.version,
        target=manifest.target,
        timeframe=manifest.timeframe,
        from_ms=int(scored.open_ms.min()),
        to_ms=int(scored.open_ms.max()),
        symbols={symbol: evaluate(result) for symbol, result in per_symbol.items()},
        overall=evaluate(scored),
        reference_direction=consecutive if manifest.target == "close" else None,
    )
