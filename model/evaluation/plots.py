"""Plot forecasts, error ratios and reliability without a display."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from model.evaluation.reliability import Bin
    from model.stats.scores import Scored

_CANDLES: Final = 200
_SYMBOLS: Final = 6
_DOTS: Final = 5000
_TRUTH: Final = "#4c566a"
_FORECAST: Final = "#d9632b"


def plot_forecasts(scored: Scored, symbols: Sequence[str], title: str, path: Path) -> None:
    """Draw forecast against truth, a row per symbol, and save the figure.

    Left the last 200 closes and their forecasts, right the forecast returns against what became of
    them: forecasts without error would lie on the diagonal. Of more than six symbols, six.

    Args:
        scored: forecasts in time order.
        symbols: ccxt symbols by the number that ``scored`` uses.
        title: over the whole figure.
        path: where to; its format is that of the suffix.
    """
    from matplotlib.figure import Figure

    drawn = symbols[:_SYMBOLS]
    figure = Figure(figsize=(12, 1 + 3.5 * len(drawn)), layout="constrained")
    more = "" if len(drawn) == len(symbols) else f"\n{len(drawn)} of {len(symbols)} symbols"
    figure.suptitle(title + more)
    axes = figure.subplots(len(drawn), 2, squeeze=False, width_ratios=(2, 1))
    for number, (symbol, (left, right)) in enumerate(zip(drawn, axes, strict=True)):
        one = scored.of(number)
        _draw_closes(left, one, symbol)
        _draw_returns(right, one)
    figure.savefig(path, dpi=110)


def plot_report(
    challenger: Scored,
    champion: Scored | None,
    bins: Mapping[str, Sequence[Bin]],
    title: str,
    path: Path,
) -> None:
    """Draw how a challenger did, and save the figure.

    Left the error ratio so far, over the candles that judged it; right how often what was given a
    chance came true: what is on the diagonal came true as often as was said.

    Args:
        challenger: its forecasts.
        champion: the champion's of the same candles, None where there was none.
        bins: of each side, what was given and what came.
        title: over the whole figure.
        path: where to; its format is that of the suffix.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    _draw_ratio(left, challenger, "challenger", _FORECAST)
    if champion is not None and len(champion.open_ms):
        _draw_ratio(left, champion, "champion", _TRUTH)
    left.axhline(1.0, color="black", linewidth=0.8, linestyle=":")
    # A ratio that is 0.0001 from 1 would be drawn as that difference, with a small "+1" above it.
    left.ticklabel_format(axis="y", useOffset=False)
    left.set_title("Error ÷ last value's, all candles so far")
    left.set_xlabel("Opening time (UTC)")
    left.grid(visible=True, alpha=0.3)
    left.legend()
    _draw_reliability(right, bins)
    figure.savefig(path, dpi=110)


def _draw_ratio(axes: Axes, scored: Scored, label: str, color: str) -> None:
    from matplotlib import rc_context

    order = np.argsort(scored.open_ms, kind="stable")
    error = (np.abs(scored.predicted - scored.close) / scored.last_close)[order]
    last_value = (np.abs(scored.last_close - scored.close) / scored.last_close)[order]
    # The first hours say nothing, and would set the scale.
    shown = slice(len(order) // 10, None)
    with (
        np.errstate(divide="ignore", invalid="ignore"),
        rc_context({"date.converter": "concise"}),
    ):
        ratio = np.cumsum(error) / np.cumsum(last_value)
        times = scored.open_ms[order].astype("datetime64[ms]")
        axes.plot(times[shown], ratio[shown], color=color, label=label, linewidth=1.2)


def _draw_reliability(axes: Axes, bins: Mapping[str, Sequence[Bin]]) -> None:
    axes.axline((0, 0), slope=1, color=_TRUTH, linewidth=1)
    for side, found in bins.items():
        sizes = [10 + 60 * (one.n / max(b.n for b in found)) for one in found]
        axes.scatter([b.given for b in found], [b.came for b in found], s=sizes, label=side)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.set_title("Probabilities")
    axes.set_xlabel("Given")
    axes.set_ylabel("Came true")
    axes.grid(visible=True, alpha=0.3)
    if bins:
        axes.legend(loc="upper left")


def _draw_closes(axes: Axes, scored: Scored, symbol: str) -> None:
    from matplotlib import rc_context

    times = scored.open_ms[-_CANDLES:].astype("datetime64[ms]")
    close, predicted = scored.close[-_CANDLES:], scored.predicted[-_CANDLES:]
    with rc_context({"date.converter": "concise"}):
        axes.plot(times, close, color=_TRUTH, linewidth=1.6, label="close")
        axes.plot(
            times, predicted, color=_FORECAST, linewidth=1, label="its forecast, one candle before"
        )
    axes.set_title(f"{symbol}: the last {len(times)} candles")
    axes.set_xlabel("Opening time (UTC)")
    axes.set_ylabel("Price")
    axes.margins(x=0.01)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()


def _draw_returns(axes: Axes, scored: Scored) -> None:
    predicted = 100.0 * (scored.predicted / scored.last_close - 1.0)
    realised = 100.0 * (scored.close / scored.last_close - 1.0)
    dots = slice(-_DOTS, None)
    axes.scatter(predicted[dots], realised[dots], s=6, alpha=0.25, color=_FORECAST, linewidths=0)
    # A few wild candles would squeeze the others into a dot.
    reach = float(np.quantile(np.abs(np.concatenate([predicted, realised])), 0.99)) or 1.0
    axes.axline((0, 0), slope=1, color=_TRUTH, linewidth=1, label="no error")
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_aspect("equal")
    axes.locator_params(nbins=5)
    axes.set_title("Forecast and realised return")
    axes.set_xlabel("Forecast (%)")
    axes.set_ylabel("Realised (%)")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="upper left")
