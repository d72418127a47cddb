"""Write the report page about a challenger: training data, scores, decision and reason."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from model.evaluation.plots import plot_report
from model.evaluation.reliability import SIDES, Told, reliability, told
from model.stats.promotion_gate import ALPHA, POWER
from model.stats.scores import Scored, evaluate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from model.forecasts.rules import Rules
    from model.registry.bundle import Bundle
    from model.retraining.challenger import Judged
    from model.stats.promotion_gate import GateRules

_SYMBOLS: Final = 40
"""Rows of the table of symbols: a page is a page."""


class Page(NamedTuple):
    """What the page is about.

    Attributes:
        challenger: the new model.
        champion: the served one, None where there was none.
        judged: the decision and the forecasts behind it.
        candles: frames by ccxt symbol.
        gate: what the challenger had to show.
        calibration: what intervals and probabilities shall be.
    """

    challenger: Bundle
    champion: Bundle | None
    judged: Judged
    candles: Mapping[str, pd.DataFrame]
    gate: GateRules
    calibration: Rules


def write_report(page: Page, path: Path) -> None:
    """Write the page, and its plot beside it with the suffix .png."""
    path.parent.mkdir(parents=True, exist_ok=True)
    judged = page.judged
    said = told(page.challenger, page.candles, judged.challenger, judged.symbols, page.calibration)
    plot = path.with_suffix(".png")
    drawn = len(judged.challenger.open_ms) > 0
    if drawn:
        bins = {} if said is None else {s: reliability(said, i) for i, s in enumerate(SIDES)}
        plot_report(judged.challenger, judged.champion, bins, page.challenger.version, plot)
    lines = [*_head(page), *_evidence(page), *_symbols(page), *_chances(page, said)]
    if drawn:
        lines += ["", f"![Error ratio over time and reliability]({plot.name})"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _head(page: Page) -> Iterator[str]:
    manifest, decision = page.challenger.manifest, page.judged.decision
    yield f"# Model {page.challenger.version}"
    yield ""
    verdict = "Promoted" if decision.promote else "Not promoted"
    yield f"**{verdict}** (`{decision.rule}`): {decision.reason}."
    yield ""
    yield (
        f"Champion at that time: {page.champion.version if page.champion else 'none'}. "
        f"Trained on {manifest.timeframe} candles of {', '.join(manifest.symbols)} from "
        f"{_minute(manifest.trained_from_ms)} to {_minute(manifest.trained_to_ms)}, target "
        f"`{manifest.target}`, units {list(manifest.units)}."
    )


def _evidence(page: Page) -> Iterator[str]:
    decision, gate = page.judged.decision, page.gate
    yield ""
    yield "## Evidence"
    yield ""
    if not decision.candles:
        yield "There are no candles that neither model has learnt from."
        return
    yield (
        f"{decision.candles} candles from {_minute(decision.from_ms)} to "
        f"{_minute(decision.to_ms)}, {decision.n} forecasts of {decision.symbols} symbols. Ratios "
        "are sums of errors over those of the last-value forecast; below 1 is skill."
    )
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| challenger's ratio | {decision.challenger_ratio:.6f} |"
    if decision.champion_ratio is not None:
        yield f"| champion's ratio | {decision.champion_ratio:.6f} |"
    yield f"| gain | {decision.gain:z.6f} |"
    yield f"| standard error | {decision.standard_error:.6f} |"
    yield f"| noise reaches (level {ALPHA:g}) | {decision.critical * decision.standard_error:.6f} |"
    yield f"| detectable (power {POWER:g}) | {decision.detectable:.6f} |"
    yield f"| margin | {gate.margin:g} |"


def _symbols(page: Page) -> Iterator[str]:
    judged = page.judged
    names = [s for n, s in enumerate(judged.symbols) if len(judged.challenger.of(n).open_ms)]
    if not names:
        return
    yield ""
    yield "| symbol | challenger's ratio (95 %) | champion's |"
    yield "|---|---|---|"
    for name in names[:_SYMBOLS]:
        number = judged.symbols.index(name)
        value, low, high = evaluate(judged.challenger.of(number)).mae_ratio
        theirs = _ratio(judged.champion, number)
        yield f"| {name} | {value:.5f} ({low:.5f} to {high:.5f}) | {theirs} |"
    if len(names) > _SYMBOLS:
        yield f"| … {len(names) - _SYMBOLS} more | | |"


def _ratio(scored: Scored | None, number: int) -> str:
    one = None if scored is None else scored.of(number)
    if one is None or not len(one.open_ms):
        return "–"
    return f"{evaluate(one).mae_ratio.value:.5f}"


def _chances(page: Page, said: Told | None) -> Iterator[str]:
    yield ""
    yield "## Intervals and probabilities"
    yield ""
    if said is None:
        yield "There was not enough evidence to give any."
        return
    level = 100 * page.calibration.level
    yield (
        f"{100 * np.mean(said.inside):.1f} % of {len(said.inside)} closes lay inside their "
        f"{level:g} % interval. Brier score {said.brier:.4f}; always giving the average shares "
        f"scores {said.brier_of_shares:.4f}."
    )
    yield ""
    yield (
        f"In the calmest fifth of the hours {_percent(said.inside[said.calm])} lay inside, in the "
        f"wildest {_percent(said.inside[said.wild])}: nobody knows ahead which these are. An hour "
        "has at least 12 candles here."
    )


def _percent(flags: NDArray[np.bool_]) -> str:
    return f"{100 * np.mean(flags):.1f} %" if len(flags) else "–"


def _minute(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
