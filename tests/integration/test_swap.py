"""Promote and roll back models under a running daemon process."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

from tests.integration.harness import predictions, until_offline
from tests.integration.model_harness import assert_true, assert_whole, by_symbol_of, model_harness


def test_promoting_and_rolling_back_take_effect_without_losing_a_candle(tmp_path: Path) -> None:
    with model_harness(tmp_path, registry={"shadow": True}) as harness:
        first, second = harness.first.version, harness.second.version
        # The third, the newest, is tried beside the first and not published.
        harness.until((harness.config.parent / "state" / "trial" / "losses").exists)
        assert harness.metric(f'candlecast_shadow_info{{version="{harness.third.version}"}}') == 1.0
        harness.until_served(first)
        assert harness.metric("candlecast_shadow_candles") > 3.0
        assert harness.metric('candlecast_shadow_mae_ratio{role="champion"}') > 0.0
        harness.models("promote", second)
        harness.until_served(second)
        assert f"champion: {first}" in harness.models("rollback")
        harness.until_served(first)
        assert harness.metric('candlecast_model_swaps_total{outcome="done"}') == 2.0
        labels = f'sha256="{harness.first.sha256}",target="log_return",version="{first}"'
        assert harness.metric(f"candlecast_model_info{{{labels}}}") == 1.0
        assert json.loads(harness.running.get("/readyz")[1])["model"] == first
        assert_whole(harness)
        assert harness.running.stop() == 0, harness.running.log
        assert "Traceback" not in harness.running.log
        harness.forecasts += predictions(until_offline(harness.subscriber))
        for symbol, forecasts in by_symbol_of(harness).items():
            versions = [forecast["model"]["version"] for forecast in forecasts]
            runs = [v for at, v in enumerate(versions) if at == 0 or versions[at - 1] != v]
            assert runs == [first, second, first]
            assert_true(harness, symbol, forecasts)


def test_a_damaged_champion_is_refused_and_its_repair_needs_no_restart(tmp_path: Path) -> None:
    with model_harness(tmp_path) as harness:
        first, second = harness.first.version, harness.second.version
        registry = harness.registry
        whole = harness.config.parent / "whole"
        shutil.copytree(registry.root / second, whole)
        step = registry.root / second / "step.onnx"
        step.write_bytes(step.read_bytes()[:-1] + b"!")
        harness.until_served(first)
        # `promote` would not do it: this is what a disk may do afterwards.
        (registry.root / "champion").write_text(second + "\n")
        failing = "candlecast_model_swap_failing"
        harness.until(lambda: harness.metric(failing) == 1.0)
        harness.until_served(first, candles=3)
        assert harness.metric('candlecast_model_swaps_total{outcome="failed"}') == 1.0
        complaints = [
            line
            for line in harness.running.log.splitlines()
            if "the champion cannot be served" in line
        ]
        assert len(complaints) == 1
        assert "step.onnx: has changed" in complaints[0]
        assert first in complaints[0]

        shutil.rmtree(registry.root / second)
        whole.rename(registry.root / second)
        harness.running.process.send_signal(signal.SIGHUP)
        harness.until_served(second)
        assert harness.metric(failing) == 0.0
        assert_whole(harness)
        for symbol, forecasts in by_symbol_of(harness).items():
            assert_true(harness, symbol, forecasts)
