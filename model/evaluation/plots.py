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

_MAX_CANDLES: Final = 200
_MAX_SYMBOLS: Final = 6
_MAX_DOTS: Final = 5000
_TRUTH: Final = "#4c566a"
_FORECAST: Final = "#d9632b"


def plot_forecasts(scored: Scored, symbols: Sequence[str], title: str, path: Path) -> None:
    """Draw forecasts and closes, one row per symbol (six at most), and save the figure.

    Left: the last 200 closes and their forecasts. Right: realised over forecast returns; forecasts
    without error lie on the diagonal.

    Args:
        scored: forecasts in time order.
        symbols: ccxt symbols by the number that ``scored`` uses.
        title: of the whole figure.
        path: target; the suffix gives the format.
    """
    from matplotlib.figure import Figure

    drawn = symbols[:_MAX_SYMBOLS]
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
    """Draw the figure of a challenger's report and save it.

    Left: the cumulative error ratio over the candles of the gate. Right: observed shares over
    forecast probabilities; calibrated ones lie on the diagonal.

    Args:
        challenger: its forecasts.
        champion: forecasts of the same candles by the champion; None without one.
        bins: reliability by side.
        title: of the whole figure.
        path: target; the suffix gives the format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    _draw_ratio(left, challenger, "challenger", _FORECAST)
    if champion is not None and len(champion.open_ms):
        _draw_ratio(left, champion, "champion", _TRUTH)
    left.axhline(1.0, color="black", linewidth=0.8, linestyle=":")
    # Otherwise ratios near 1 would be labelled as differences with an offset "+1" above.
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
    # The first ratios are noise and would dominate the scale.
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
        axes.scatter([b.forecast for b in found], [b.observed for b in found], s=sizes, label=side)
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

    times = scored.open_ms[-_MAX_CANDLES:].astype("datetime64[ms]")
    close, predicted = scored.close[-_MAX_CANDLES:], scored.predicted[-_MAX_CANDLES:]
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
    dots = slice(-_MAX_DOTS, None)
    axes.scatter(predicted[dots], realised[dots], s=6, alpha=0.25, color=_FORECAST, linewidths=0)
    # A few outliers would compress all other dots.
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
