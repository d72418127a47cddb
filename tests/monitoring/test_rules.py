"""Check with promtool that every alert fires at its threshold and not just below it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.support.servers import program

MONITORING = Path(__file__).resolve().parents[2] / "monitoring"
RULES = MONITORING / "prometheus" / "rules.yaml"
OPERATIONS = MONITORING.parent / "docs" / "operations.md"
WHERE = 'job="candlecast", instance="a"'

# Three hours, a sample a minute, of a healthy daemon; some values are bad, but briefly.
HEALTHY = {
    f"up{{{WHERE}}}": "1x180",
    f"candlecast_timeframe_seconds{{{WHERE}}}": "60x180",
    f"candlecast_last_prediction_timestamp_seconds{{{WHERE}}}": "0+60x180",
    f"candlecast_mqtt_connected{{{WHERE}}}": "1x180",
    f"candlecast_mqtt_denied_total{{{WHERE}}}": "3x180",
    f"candlecast_feed_stale_symbols{{{WHERE}}}": "0x180",
    f'candlecast_predictions_total{{{WHERE}, outcome="published"}}': "0+1000x180",
    f'candlecast_predictions_total{{{WHERE}, outcome="late"}}': "0+5x180",
    f'candlecast_predictions_total{{{WHERE}, outcome="skipped"}}': "0+10x180",
    f'candlecast_predictions_total{{{WHERE}, outcome="dropped"}}': "0x180",
    f"candlecast_mae_ratio{{{WHERE}}}": "1x180",
    f"candlecast_mae_ratio_stderr{{{WHERE}}}": "0.01x180",
    f"candlecast_interval_coverage{{{WHERE}}}": "0.9x180",
    f"candlecast_interval_level{{{WHERE}}}": "0.9x180",
    f"candlecast_feed_reconnects_total{{{WHERE}}}": "0x180",
    f"candlecast_feed_ban_end_timestamp_seconds{{{WHERE}}}": "0x180",
    f"candlecast_exchange_clock_trusted{{{WHERE}}}": "1x180",
    f"candlecast_history_failing{{{WHERE}}}": "0x180",
    f"candlecast_model_swap_failing{{{WHERE}}}": "0x180",
    f"candlecast_retrain_failed{{{WHERE}}}": "0x180",
    f"candlecast_retrain_last_run_timestamp_seconds{{{WHERE}}}": "-80000x180",
    f"candlecast_first_start_timestamp_seconds{{{WHERE}}}": "-900000x180",
    f'candlecast_drift_alarms_total{{{WHERE}, of="error"}}': "1x180",
    f'candlecast_drift_alarms_total{{{WHERE}, of="features"}}': "0x180",
}


class Case(NamedTuple):
    """What makes an alert fire by the third hour, and what nearly does."""

    series: str
    firing: str
    quiet: str


CASES = {
    "CandlecastDown": Case("up", "1x170 0x10", "1x179 0"),
    "CandlecastNotForecasting": Case(
        "candlecast_last_prediction_timestamp_seconds", "0+60x170 10200x10", "0+60x178 10680x2"
    ),
    "CandlecastBrokerLost": Case("candlecast_mqtt_connected", "1x170 0x10", "1x179 0"),
    "CandlecastStaleSymbols": Case("candlecast_feed_stale_symbols", "0x170 2x10", "0x177 2x3"),
    "CandlecastLate": Case('outcome="late"}', "0+20x180", "0+9x180"),
    "CandlecastForecastsMissing": Case('outcome="skipped"}', "0+70x180", "0+40x180"),
    "CandlecastDenied": Case("candlecast_mqtt_denied_total", "3x175 4x5", "2x60 3x120"),
    "CandlecastWorseThanLastValue": Case("candlecast_mae_ratio", "1.05x180", "1.025x180"),
    "CandlecastIntervalsOff": Case("candlecast_interval_coverage", "0.82x180", "0.86x180"),
    "CandlecastFeedFlapping": Case("candlecast_feed_reconnects_total", "0+1x180", "0x175 5x5"),
    "CandlecastBanned": Case(
        "candlecast_feed_ban_end_timestamp_seconds", "0x175 10860x5", "0x170 10500x10"
    ),
    "CandlecastClockUntrusted": Case(
        "candlecast_exchange_clock_trusted", "1x160 0x20", "1x170 0x9"
    ),
    "CandlecastModelNotServed": Case("candlecast_model_swap_failing", "0x170 1x10", "0x177 1x3"),
    "CandlecastRetrainFailed": Case("candlecast_retrain_failed", "0x170 1x10", "0x177 1x3"),
    "CandlecastRetrainOverdue": Case(
        "candlecast_retrain_last_run_timestamp_seconds", "-163000x180", "-162000x180"
    ),
    "CandlecastDrift": Case('of="error"}', "1x150 2x30", "1x100 2x80"),
    "CandlecastHistoryFailing": Case("candlecast_history_failing", "0x170 1x10", "0x179 1"),
}


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("promtool"), *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def rule_case(alert: str, values: dict[str, str], *, fires: bool) -> dict[str, Any]:
    """A promtool test: ``alert`` is or is not up at the end of the three hours."""
    labels = alerts()[alert]["labels"] | {"job": "candlecast", "instance": "a"}
    expected = {"exp_alerts": [{"exp_labels": labels}] if fires else []}
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": value} for name, value in values.items()],
        "alert_rule_test": [{"eval_time": "3h", "alertname": alert} | expected],
    }


def changed(case: Case, values: str) -> dict[str, str]:
    (name,) = (
        name for name in HEALTHY if case.series in (name.partition("{")[0], *name.split(", "))
    )
    return HEALTHY | {name: values}


def test_every_alert_has_its_cases() -> None:
    assert set(alerts()) == set(CASES)


@pytest.mark.parametrize(("what", "name"), [("rules", "rules.yaml"), ("config", "prometheus.yaml")])
def test_the_files_are_valid(what: str, name: str) -> None:
    done = promtool("check", what, str(RULES.with_name(name)))
    assert done.returncode == 0, done.stdout + done.stderr


def check(stories: list[dict[str, Any]], tmp_path: Path) -> None:
    """Have promtool evaluate the rules as they are."""
    document = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    for group in document["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)  # promtool would compare the words too
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(document), encoding="utf-8")
    tests = tmp_path / "test.yaml"
    tests.write_text(
        yaml.safe_dump(
            {"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": stories},
        ),
        encoding="utf-8",
    )
    done = promtool("test", "rules", str(tests))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", sorted(CASES))
def test_each_alert_fires_in_its_cases_only(alert: str, tmp_path: Path) -> None:
    case = CASES[alert]
    stories = [
        rule_case(alert, HEALTHY, fires=False),
        rule_case(alert, changed(case, case.quiet), fires=False),
        rule_case(alert, changed(case, case.firing), fires=True),
    ]
    check(stories, tmp_path)


def test_a_missing_retrain_is_overdue_two_days_after_the_first_start(tmp_path: Path) -> None:
    alert = "CandlecastRetrainOverdue"
    last_run = Case("candlecast_retrain_last_run_timestamp_seconds", " ".join(["NaN"] * 181), "")
    never = changed(last_run, last_run.firing)
    (first_start,) = (name for name in HEALTHY if "first_start" in name)
    # Two days are 172,800 s; the cases end after 10,800.
    stories = [
        rule_case(alert, never | {first_start: "-163000x180"}, fires=True),
        rule_case(alert, never | {first_start: "-161000x180"}, fires=False),
        rule_case(alert, never | {first_start: "0x180"}, fires=False),
        # Of an older daemon, which does not export its first start.
        rule_case(alert, {k: v for k, v in never.items() if k != first_start}, fires=False),
    ]
    check(stories, tmp_path)


@pytest.mark.parametrize("alert", sorted(CASES))
def test_each_alert_has_a_runbook(alert: str) -> None:
    annotations = alerts()[alert]["annotations"]
    assert annotations["runbook"] == f"docs/operations.md#{alert.lower()}"
    assert f"\n### {alert}\n" in OPERATIONS.read_text(encoding="utf-8")
