"""A market, a model for it and a history, for tests of the candle pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from model.history.store import History
from model.registry.bundle import Bundle
from tests.support.pipeline_harness import ROWS, SYMBOLS, SampleMarket, network
from tests.support.tiny_models import Floats, promote, random_candles


@pytest.fixture(scope="module")
def candles() -> dict[str, Floats]:
    return {symbol: random_candles(ROWS, seed) for seed, symbol in enumerate(SYMBOLS)}


@pytest.fixture(scope="module")
def bundle(
    tmp_path_factory: pytest.TempPathFactory, candles: dict[str, Floats]
) -> Iterator[Bundle]:
    yield promote(tmp_path_factory.mktemp("registry"), candles)
    network.cache_clear()


@pytest.fixture
def market(candles: dict[str, Floats]) -> SampleMarket:
    return SampleMarket(candles)


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    made = History(tmp_path / "history.sqlite")
    yield made
    made.close()
