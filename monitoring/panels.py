"""What the dashboard shows, as the five questions that an operator asks, in that order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

_ME: Final = '{instance=~"$instance"}'
_RATE: Final = "[$__rate_interval]"


class Query(NamedTuple):
    """One line of a panel: an expression, and what the legend calls it."""

    expression: str
    legend: str = ""


class Panel(NamedTuple):
    """One panel.

    Attributes:
        title: what it shows.
        why: what a person does with it, shown at its corner.
        queries: what it draws.
        kind: Grafana's panel type.
        unit: Grafana's unit.
        width: of 24 columns.
        steps: ascending (value, colour) thresholds; the first value is ignored.
        words: what is shown instead of a value.
    """

    title: str
    why: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    steps: Sequence[tuple[float, str]] = ()
    words: Sequence[tuple[float, str]] = ()


def _rate(series: str, by: str = "") -> str:
    total = f"sum by ({by})" if by else "sum"
    return f"{total} (rate(candlecast_{series}{_ME}{_RATE}))"


def _gauge(series: str) -> str:
    return f"candlecast_{series}{_ME}"


def _quantile(share: float, stage: str) -> str:
    series = f'candlecast_latency_seconds_bucket{{instance=~"$instance", stage="{stage}"}}'
    return f"histogram_quantile({share}, sum by (le) (rate({series}{_RATE})))"


def _whole_window(series: str, good: str, label: str) -> str:
    """The share of ``good`` among a labelled counter's increases over the range that is shown."""
    part = f'candlecast_{series}{{instance=~"$instance", {label}="{good}"}}'
    return f"sum(increase({part}[$__range])) / sum(increase(candlecast_{series}{_ME}[$__range]))"


_BAD_ABOVE_0: Final = ((0, "green"), (1, "red"))
_GOOD_AT_1: Final = ((0, "red"), (1, "green"))

ROWS: Final[Sequence[tuple[str, Sequence[Panel]]]] = (
    (
        "Is it alive and fresh?",
        (
            Panel(
                "Age of the newest forecast, in candles",
                "More than two: nothing is being forecast. Look at the feed below.",
                [
                    Query(
                        f"(time() - {_gauge('last_prediction_timestamp_seconds')})"
                        f" / {_gauge('timeframe_seconds')}"
                    )
                ],
                kind="stat",
                width=6,
                steps=((0, "green"), (2, "red")),
            ),
            Panel(
                "Stale symbols",
                "Windows that are not whole or not up to date; they get no forecast.",
                [Query(_gauge("feed_stale_symbols"))],
                kind="stat",
                width=6,
                steps=_BAD_ABOVE_0,
            ),
            Panel(
                "Broker",
                "1 while there is a broker; without one, forecasts wait until they expire.",
                [Query(_gauge("mqtt_connected"))],
                kind="stat",
                width=6,
                steps=_GOOD_AT_1,
            ),
            Panel(
                "Exchange's time",
                "1 while it is known well enough to close candles by it.",
                [Query(_gauge("exchange_clock_trusted"))],
                kind="stat",
                width=6,
                steps=_GOOD_AT_1,
            ),
            Panel(
                "Forecasts",
                "What became of them, a second.",
                [Query(_rate("predictions_total", "outcome"), "{{outcome}}")],
                unit="cps",
                width=12,
            ),
            Panel(
                "Not made, and why",
                "window: not whole. expired: too late to be of use. repeated: published before.",
                [Query(_rate("predictions_skipped_total", "reason"), "{{reason}}")],
                unit="cps",
                width=12,
            ),
        ),
    ),
    (
        "Is it on time?",
        (
            Panel(
                "From the closing message to a forecast ready to send",
                "Above the budget forecasts are flagged late. Exemplars name the slow ones; "
                "their ids stand in the log.",
                [
                    Query(_quantile(0.5, "ready"), "median"),
                    Query(_quantile(0.99, "ready"), "99 %"),
                    Query(_gauge("latency_budget_seconds"), "budget"),
                ],
                unit="s",
            ),
            Panel(
                "On to the broker's acknowledgement",
                "What a subscriber waits for, the exchange's own delay apart.",
                [Query(_quantile(0.5, "total"), "median"), Query(_quantile(0.99, "total"), "99 %")],
                unit="s",
            ),
            Panel(
                "Exchange's delay",
                "From a candle's boundary to its closing message. Nothing here can shorten it.",
                [
                    Query(
                        "histogram_quantile(0.5, sum by (le) "
                        f"(rate(candlecast_exchange_delay_seconds_bucket{_ME}{_RATE})))",
                        "median",
                    ),
                    Query(
                        "histogram_quantile(0.99, sum by (le) "
                        f"(rate(candlecast_exchange_delay_seconds_bucket{_ME}{_RATE})))",
                        "99 %",
                    ),
                ],
                unit="s",
            ),
            Panel(
                "Time by stage, 99 %",
                "Where the time goes.",
                [
                    Query(
                        "histogram_quantile(0.99, sum by (le, stage) "
                        f"(rate(candlecast_latency_seconds_bucket{_ME}{_RATE})))",
                        "{{stage}}",
                    )
                ],
                unit="s",
            ),
            Panel(
                "Candles closing together",
                "The mean size of a flush.",
                [
                    Query(
                        f"{_rate('batch_size_sum')} / {_rate('batch_size_count')}",
                        "symbols",
                    )
                ],
            ),
            Panel(
                "Whole windows run",
                "Symbols whose states were not ready in time: slower, equally right.",
                [Query(_rate("unprepared_total"), "symbols")],
                unit="cps",
            ),
        ),
    ),
    (
        "Is it right?",
        (
            Panel(
                "Error against the last-value forecast, rolling",
                "Below 1 is skill. The band is two standard errors: while it holds 1, none.",
                [
                    Query(_gauge("mae_ratio"), "ratio"),
                    Query(f"{_gauge('mae_ratio')} + 2 * {_gauge('mae_ratio_stderr')}", "upper"),
                    Query(f"{_gauge('mae_ratio')} - 2 * {_gauge('mae_ratio_stderr')}", "lower"),
                ],
                width=12,
            ),
            Panel(
                "Over the range shown",
                "The same from counters, for whatever time is chosen above.",
                [
                    Query(
                        'sum(increase(candlecast_abs_error_total{instance=~"$instance", '
                        'forecast="model"}[$__range])) / '
                        'sum(increase(candlecast_abs_error_total{instance=~"$instance", '
                        'forecast="last_value"}[$__range]))',
                        "error ratio",
                    ),
                    Query(_whole_window("direction_total", "hit", "result"), "right direction"),
                    Query(_whole_window("interval_total", "inside", "result"), "inside interval"),
                ],
                kind="stat",
                width=6,
            ),
            Panel(
                "Interval coverage",
                "Should stay at the level that is promised.",
                [
                    Query(_gauge("interval_coverage"), "covered"),
                    Query(_gauge("interval_level"), "promised"),
                ],
                unit="percentunit",
                width=6,
            ),
            Panel(
                "Error ratio by symbol",
                "The worst first, of the symbols with series of their own.",
                [Query(f"sort_desc({_gauge('symbol_mae_ratio')})", "{{symbol}}")],
                kind="bargauge",
                width=12,
            ),
            Panel(
                "Direction, rolling",
                "Share of right directions among candles that moved; 0.5 is a coin.",
                [Query(_gauge("direction_accuracy"), "right")],
                unit="percentunit",
                width=12,
            ),
        ),
    ),
    (
        "Is the feed whole?",
        (
            Panel(
                "Closed candles",
                "appended is the rule; gap, revised and duplicate are repaired or ignored.",
                [Query(_rate("feed_candles_total", "verdict"), "{{verdict}}")],
                unit="cps",
            ),
            Panel(
                "Connections",
                "Lost, replaced because they fell silent, renewed in time.",
                [
                    Query(_rate("feed_reconnects_total"), "lost"),
                    Query(_rate("feed_silent_streams_total"), "silent"),
                    Query(_rate("feed_renewals_total"), "renewed"),
                    Query(_rate("mqtt_connections_total"), "broker"),
                ],
                unit="cps",
            ),
            Panel(
                "Repairs",
                "Histories fetched, and candles and messages refused.",
                [
                    Query(_rate("feed_backfills_total"), "histories"),
                    Query(_rate("feed_refused_total"), "impossible candles"),
                    Query(_rate("feed_bans_total"), "bans"),
                    Query(_rate("mqtt_denied_total"), "denied by the broker"),
                ],
                unit="cps",
            ),
            Panel(
                "Candle updates",
                "Everything the exchange sends about candles, forming ones included.",
                [Query(_rate("feed_messages_total"), "messages")],
                unit="cps",
            ),
            Panel(
                "Clock",
                "The exchange's time minus this machine's, and how well it is known.",
                [
                    Query(_gauge("exchange_clock_offset_seconds"), "offset"),
                    Query(_gauge("exchange_clock_error_seconds"), "uncertainty"),
                ],
                unit="s",
            ),
            Panel(
                "History",
                "Rows that wait to be written, and rows that never were.",
                [
                    Query(_gauge("history_waiting_rows"), "waiting"),
                    Query(f"increase(candlecast_history_lost_rows_total{_ME}{_RATE})", "lost"),
                ],
            ),
        ),
    ),
    (
        "Which model is this?",
        (
            Panel(
                "Model",
                "Version and hash, as in every message.",
                [Query(_gauge("model_info"), "{{version}} · {{target}} · {{sha256}}")],
                kind="table",
                width=18,
            ),
            Panel(
                "New models",
                "How many took over in the range that is shown; each is marked in every panel.",
                [
                    Query(
                        'round(sum(increase(candlecast_model_swaps_total{instance=~"$instance", '
                        'outcome="done"}[$__range])))'
                    )
                ],
                kind="stat",
                width=6,
                words=((0, "none"),),
            ),
            Panel(
                "Drift",
                "error: 1 is an alarm. features: the stability index, 0.5 is one. Then train anew.",
                [Query(_gauge("drift_score"), "{{of}}")],
            ),
            Panel(
                "Out of range",
                "Share of the inputs beyond what the scalers were fitted on.",
                [Query(_gauge("out_of_range_ratio"), "out of range")],
                unit="percentunit",
            ),
            Panel(
                "Live trial",
                "Error ratios of challenger and champion on the same candles (registry.shadow).",
                [
                    Query(
                        f"{_gauge('shadow_mae_ratio')} and on (job, instance) "
                        f"{_gauge('shadow_candles')} > -Inf or on (job, instance) "
                        # Without a trial the legend names it; NaN draws no line.
                        f"label_replace(NaN * {_gauge('timeframe_seconds')}, "
                        '"role", "none", "", "")',
                        "{{role}}",
                    )
                ],
            ),
        ),
    ),
)


def panels() -> Iterator[Panel]:
    """All panels, in the order in which they are read."""
    for _, row in ROWS:
        yield from row
