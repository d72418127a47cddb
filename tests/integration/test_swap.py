"""Promote and roll back models under a running daemon process."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

from tests.integration.harness import predictions, until_offline
from tests.integration.model_harness import assert_true, assert_whole, by_symbol_of, theatre


def test_promoting_and_rolling_back_take_effect_without_losing_a_candle(tmp_path: Path) -> None:
    with theatre(tmp_path, registry={"shadow": True}) as stage:
        first, second = stage.first.version, stage.second.version
        # The third, newer than all, is tried beside the first, and nobody hears of it.
        stage.until((stage.config.parent / "state" / "trial" / "losses").exists)
        assert stage.metric(f'candlecast_shadow_info{{version="{stage.third.version}"}}') == 1.0
        stage.until_served(first)
        assert stage.metric("candlecast_shadow_candles") > 3.0
        assert stage.metric('candlecast_shadow_mae_ratio{role="champion"}') > 0.0
        stage.models("promote", second)
        stage.until_served(second)
        assert f"champion: {first}" in stage.models("rollback")
        stage.until_served(first)
        assert stage.metric('candlecast_model_swaps_total{outcome="done"}') == 2.0
        labels = f'sha256="{stage.first.sha256}",target="log_return",version="{first}"'
        assert stage.metric(f"candlecast_model_info{{{labels}}}") == 1.0
        assert json.loads(stage.running.get("/readyz")[1])["model"] == first
        assert_whole(stage)
        assert stage.running.stop() == 0, stage.running.log
        assert "Traceback" not in stage.running.log
        stage.forecasts += predictions(until_offline(stage.heard))
        for symbol, forecasts in by_symbol_of(stage).items():
            versions = [forecast["model"]["version"] for forecast in forecasts]
            runs = [v for at, v in enumerate(versions) if at == 0 or versions[at - 1] != v]
            assert runs == [first, second, first]
            assert_true(stage, symbol, forecasts)


def test_a_damaged_champion_is_refused_and_its_cure_needs_no_restart(tmp_path: Path) -> None:
    with theatre(tmp_path) as stage:
        first, second = stage.first.version, stage.second.version
        registry = stage.registry
        whole = stage.config.parent / "whole"
        shutil.copytree(registry.root / second, whole)
        step = registry.root / second / "step.onnx"
        step.write_bytes(step.read_bytes()[:-1] + b"!")
        stage.until_served(first)
        # `promote` would not do it: this is what a disk may do afterwards.
        (registry.root / "champion").write_text(second + "\n")
        failing = "candlecast_model_swap_failing"
        stage.until(lambda: stage.metric(failing) == 1.0)
        stage.until_served(first, candles=3)
        assert stage.metric('candlecast_model_swaps_total{outcome="failed"}') == 1.0
        complaints = [
            line
            for line in stage.running.log.splitlines()
            if "the champion cannot be served" in line
        ]
        assert len(complaints) == 1
        assert "step.onnx: has changed" in complaints[0]
        assert first in complaints[0]

        shutil.rmtree(registry.root / second)
        whole.rename(registry.root / second)
        stage.running.process.send_signal(signal.SIGHUP)
        stage.until_served(second)
        assert stage.metric(failing) == 0.0
        assert_whole(stage)
        for symbol, forecasts in by_symbol_of(stage).items():
            assert_true(stage, symbol, forecasts)
