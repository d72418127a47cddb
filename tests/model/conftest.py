from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

# Before Keras is first imported: no start-up notes, no search for a GPU.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

Configure = Callable[..., Path]


@pytest.fixture(scope="session")
def all_candles(candles_csv: Path) -> pd.DataFrame:
    frame = pd.read_csv(candles_csv).rename(columns={"ts": "timestamp"})
    return frame.assign(datetime=pd.to_datetime(frame["timestamp"], unit="ms"))


@pytest.fixture
def candles(all_candles: pd.DataFrame) -> pd.DataFrame:
    """A week of quarter hours."""
    return all_candles.iloc[:672].reset_index(drop=True)


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Write a configuration with a small, fast network; keywords go to its `model` section."""

    def write(**model: object) -> Path:
        small = {"target": "close", "lstm_units": [8, 4], "epochs": 2, "batch_size": 64}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({"model": small | model}), encoding="utf-8")
        return path

    return write
