"""Define the rows and panels of the Grafana dashboard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

_ME: Final = '{instance=~"$instance"}'
_RATE: Final = "[$__rate_interval]"


class Query(NamedTuple):
    """One line of a panel: a PromQL expression and its name in the legend."""

    expression: str
    legend: str = ""


class Panel(NamedTuple):
    """One panel.

    Attributes:
        title: what it shows.
        description: how to read it; Grafana shows it as a tooltip.
        queries: the lines that it draws.
        kind: Grafana's panel type.
        unit: Grafana's unit.
        width: of 24 columns.
        steps: ascending (value, colour) thresholds; the first value is ignored.
        texts: (value, text) pairs; the text is shown instead of the value.
    """

    title: str
    description: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    steps: Sequence[tuple[float, str]] = ()
    texts: Sequence[tuple[float, str]] = ()


def _rate(series: str, by: str = "") -> str:
    total = f"sum by ({by})" if by else "sum"
    return f"{total} (rate(candlecast_{series}{_ME}{_RATE}))"


def _gauge(series: str) -> str:
    return f"candlecast_{series}{_ME}"


def _quantile(share: float, stage: str) -> str:
    series = f'candlecast_latency_seconds_bucket{{instance=~"$instance", stage="{stage}"}}'
    return f"histogram_quantile({share}, sum by (le) (rate({series}{_RATE})))"


def _share_over_range(series: str, good: str, label: str) -> str:
    """The share of ``good`` among a labelled counter's increases over the range that is shown."""
    part = f'candlecast_{series}{{instance=~"$instance", {label}="{good}"}}'
    return f"sum(increase({part}[$__range])) / sum(increase(candlecast_{series}{_ME}[$__range]))"


_BAD_ABOVE_0: Final = ((0, "green"), (1, "red"))
_GOOD_AT_1: Final = ((0, "red"), (1, "green"))

ROWS: Final[Sequence[tuple[str, Sequence[Panel]]]] = (
    (
        "Availability",
        (
            Panel(
                "Age of the newest forecast, in candles",
                "Above two, no forecasts are made. See the feed below.",
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
                "Symbols that get no forecast, or not one for each candle.",
                [Query(_gauge("feed_stale_symbols"))],
                kind="stat",
                width=6,
                steps=_BAD_ABOVE_0,
            ),
            Panel(
                "Broker",
                "1 while connected. Without a broker forecasts wait until they expire.",
                [Query(_gauge("mqtt_connected"))],
                kind="stat",
                width=6,
                steps=_GOOD_AT_1,
            ),
            Panel(
                "Exchange's time",
                "1 while it is known exactly enough to close candles by it.",
                [Query(_gauge("exchange_clock_trusted"))],
                kind="stat",
                width=6,
                steps=_GOOD_AT_1,
            ),
            Panel(
                "Forecasts",
                "Forecasts per second, by outcome.",
                [Query(_rate("predictions_total", "outcome"), "{{outcome}}")],
                unit="cps",
                width=12,
            ),
            Panel(
                "Skipped forecasts",
                "By reason. window: incomplete. expired: too late. repeated: published before.",
                [Query(_rate("predictions_skipped_total", "reason"), "{{reason}}")],
                unit="cps",
                width=12,
            ),
        ),
    ),
    (
        "Latency",
        (
            Panel(
                "From the closing message to a forecast ready to send",
                "Forecasts above the budget are flagged late. Exemplars name slow forecasts; "
                "the log contains their ids.",
                [
                    Query(_quantile(0.5, "ready"), "median"),
                    Query(_quantile(0.99, "ready"), "99 %"),
                    Query(_gauge("latency_budget_seconds"), "budget"),
                ],
                unit="s",
            ),
            Panel(
                "From the closing message to the broker's acknowledgement",
                "The latency that a subscriber sees, without the exchange's own delay.",
                [Query(_quantile(0.5, "total"), "median"), Query(_quantile(0.99, "total"), "99 %")],
                unit="s",
            ),
            Panel(
                "Exchange's delay",
                "From a candle's boundary to its closing message. candlecast cannot shorten it.",
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
                "The time that each stage takes.",
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
                "Batch size",
                "The mean number of symbols that are forecast together.",
                [
                    Query(
                        f"{_rate('batch_size_sum')} / {_rate('batch_size_count')}",
                        "symbols",
                    )
                ],
            ),
            Panel(
                "Unprepared forecasts",
                "Forecasts that ran the whole window because no state was prepared.",
                [Query(_rate("unprepared_total"), "symbols")],
                unit="cps",
            ),
        ),
    ),
    (
        "Quality",
        (
            Panel(
                "Error against the last-value forecast, rolling",
                "Below 1 is skill, unless the band of two standard errors contains 1.",
                [
                    Query(_gauge("mae_ratio"), "ratio"),
                    Query(f"{_gauge('mae_ratio')} + 2 * {_gauge('mae_ratio_stderr')}", "upper"),
                    Query(f"{_gauge('mae_ratio')} - 2 * {_gauge('mae_ratio_stderr')}", "lower"),
                ],
                width=12,
            ),
            Panel(
                "Over the selected range",
                "The same, computed from counters over the selected time range.",
                [
                    Query(
                        'sum(increase(candlecast_abs_error_total{instance=~"$instance", '
                        'forecast="model"}[$__range])) / '
                        'sum(increase(candlecast_abs_error_total{instance=~"$instance", '
                        'forecast="last_value"}[$__range]))',
                        "error ratio",
                    ),
                    Query(_share_over_range("direction_total", "hit", "result"), "right direction"),
                    Query(
                        _share_over_range("interval_total", "inside", "result"), "inside interval"
                    ),
                ],
                kind="stat",
                width=6,
            ),
            Panel(
                "Interval coverage",
                "Should stay at the configured level.",
                [
                    Query(_gauge("interval_coverage"), "covered"),
                    Query(_gauge("interval_level"), "configured"),
                ],
                unit="percentunit",
                width=6,
            ),
            Panel(
                "Error ratio by symbol",
                "Worst first, of the symbols with their own series.",
                [Query(f"sort_desc({_gauge('symbol_mae_ratio')})", "{{symbol}}")],
                kind="bargauge",
                width=12,
            ),
            Panel(
                "Direction, rolling",
                "Share of right directions among candles that moved; 0.5 is chance.",
                [Query(_gauge("direction_accuracy"), "right")],
                unit="percentunit",
                width=12,
            ),
        ),
    ),
    (
        "Feed",
        (
            Panel(
                "Closed candles",
                "appended is normal; gap and revised are repaired, duplicate is ignored.",
                [Query(_rate("feed_candles_total", "verdict"), "{{verdict}}")],
                unit="cps",
            ),
            Panel(
                "Connections",
                "Lost, replaced because they were silent, renewed before their time limit.",
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
                "All candle messages of the exchange, including forming candles.",
                [Query(_rate("feed_messages_total"), "messages")],
                unit="cps",
            ),
            Panel(
                "Clock",
                "The exchange's time minus this machine's, and its uncertainty.",
                [
                    Query(_gauge("exchange_clock_offset_seconds"), "offset"),
                    Query(_gauge("exchange_clock_error_seconds"), "uncertainty"),
                ],
                unit="s",
            ),
            Panel(
                "History",
                "Rows that wait to be written, and rows that were dropped.",
                [
                    Query(_gauge("history_waiting_rows"), "waiting"),
                    Query(f"increase(candlecast_history_lost_rows_total{_ME}{_RATE})", "lost"),
                ],
            ),
        ),
    ),
    (
        "Model",
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
                "Models that took over in the selected range; every panel marks each of them.",
                [
                    Query(
                        'round(sum(increase(candlecast_model_swaps_total{instance=~"$instance", '
                        'outcome="done"}[$__range])))'
                    )
                ],
                kind="stat",
                width=6,
                texts=((0, "none"),),
            ),
            Panel(
                "Drift",
                "Alarm at 1 for error, at 0.5 for features (stability index). Then retrain.",
                [Query(_gauge("drift_score"), "{{of}}")],
            ),
            Panel(
                "Out of range",
                "Share of the inputs outside the range that the scalers were fitted on.",
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
                        # Without a trial the legend shows "none"; NaN draws no line.
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
    """All panels, from top to bottom."""
    for _, row in ROWS:
        yield from row
