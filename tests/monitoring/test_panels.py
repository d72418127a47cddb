"""Check panels during a slow start of the daemon with promtool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from monitoring.panels import panels
from tests.monitoring.test_rules import WHERE, promtool

TRIAL = "candlecast_shadow_mae_ratio"


def expression(title: str) -> str:
    (panel,) = (panel for panel in panels() if panel.title == title)
    return panel.queries[0].expression.replace("$__range", "1h").replace("$instance", ".*")


def gives(
    title: str, series: dict[str, str], samples: list[tuple[str, float]], folder: Path
) -> None:
    """Have promtool compare what a panel shows after two hours."""
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": value} for name, value in series.items()],
        "promql_expr_test": [
            {
                "expr": expression(title),
                "eval_time": "2h",
                "exp_samples": [{"labels": name, "value": value} for name, value in samples],
            }
        ],
    }
    document: dict[str, Any] = {"evaluation_interval": "1m", "tests": [test]}
    path = folder / "test.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    done = promtool("test", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_live_trial_shows_both_models_and_no_none(tmp_path: Path) -> None:
    challenger, champion = (f'{{{WHERE}, role="{r}"}}' for r in ("challenger", "champion"))
    series = {
        f"candlecast_timeframe_seconds{{{WHERE}}}": "60x120",
        f"candlecast_shadow_candles{{{WHERE}}}": "0+1x120",
        f"{TRIAL}{challenger}": "0.98x120",
        f"{TRIAL}{champion}": "1x120",
    }
    shown = [(f"{TRIAL}{challenger}", 0.98), (f"{TRIAL}{champion}", 1.0)]
    gives("Live trial", series, shown, tmp_path)


def test_new_models_are_counted(tmp_path: Path) -> None:
    name = f'candlecast_model_swaps_total{{{WHERE}, outcome="done"}}'
    gives("New models", {name: "0x90 2x30"}, [("{}", 2.0)], tmp_path)
    gives("New models", {name: "3x120"}, [("{}", 0.0)], tmp_path)
