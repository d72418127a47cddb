from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from model.evaluation.plots import plot_forecasts, plot_report
from model.stats.scores import Scored


def scored(symbols: int, rows: int = 5) -> Scored:
    rng = np.random.default_rng(0)
    n = symbols * rows
    last = 100.0 + rng.normal(size=n)
    times = np.tile(np.arange(rows) * 60_000, symbols)
    close, predicted = last + rng.normal(size=n), last + rng.normal(size=n)
    return Scored(np.repeat(np.arange(symbols), rows), times, last, close, predicted)


def size(path: Path) -> tuple[int, int]:
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    return width, height


def test_every_symbol_has_a_row_up_to_six(tmp_path: Path) -> None:
    sizes = []
    for count in (1, 2, 6, 9):
        path = tmp_path / f"{count}.png"
        plot_forecasts(scored(count), [f"S{n}/USDT" for n in range(count)], "Title", path)
        sizes.append(size(path))
    assert len({width for width, _ in sizes}) == 1
    heights = [height for _, height in sizes]
    assert heights[0] < heights[1] < heights[2] == heights[3]


@pytest.mark.parametrize("rows", [1, 300])
def test_a_market_that_stands_still_can_be_drawn(tmp_path: Path, rows: int) -> None:
    still = scored(1, rows)
    still = still._replace(close=still.last_close, predicted=still.last_close)
    plot_forecasts(still, ["BTC/USDT"], "Title", tmp_path / "still.png")
    assert size(tmp_path / "still.png")[0] > 1000
    astray = still._replace(predicted=still.last_close + 1.0)
    plot_report(astray, still, {}, "Title", tmp_path / "report.png")
    assert size(tmp_path / "report.png")[0] > 1000
