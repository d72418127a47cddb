"""Test how a span is split, what is judged, and the report."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.core.candle import Candle, Ohlcv, Timeframe
from model.core.errors import CandlecastError
from model.evaluation.reliability import SIDES, ScoredOutlooks, reliability, score_outlooks
from model.features.scaler import ScalerSet
from model.forecasts.residuals import LEVELS, Residuals, SymbolResiduals
from model.forecasts.rules import Rules
from model.history.reader import candles_as_of
from model.registry.bundle import Bundle
from model.registry.registry import Registry
from model.retraining.challenger import Judged, cut_for_gate, frame_of, judge, long_enough, rows_of
from model.retraining.report import Page, write_report
from model.stats.promotion_gate import GateRules
from model.stats.scores import Scored
from model.training.dataset import build_dataset
from tests.support.tiny_models import promote, random_candles

QUARTER = Timeframe.parse("15m")
SYMBOLS = ("BTC/USDT", "ETH/USDT")
ROWS = 1_400
TRAINED_ROWS = 500
LOOKBACK = 8
RULES = GateRules(gate_days=5, margin=0.5, max_age_days=30)
START_MS = 1_776_859_200_000
NOW_MS = START_MS + ROWS * QUARTER.ms


def silent(_symbol: str, _done: int, _total: int) -> None:
    pass


@pytest.fixture(scope="module")
def markets() -> dict[str, pd.DataFrame]:
    found = {}
    for seed, symbol in enumerate(SYMBOLS):
        ohlcv = random_candles(ROWS, seed)
        candles = [
            Candle(
                symbol,
                START_MS + row * QUARTER.ms,
                START_MS + (row + 1) * QUARTER.ms,
                Ohlcv(*values),
                0,
                0.0,
                "rest",
            )
            for row, values in enumerate(ohlcv.tolist())
        ]
        found[symbol] = frame_of(candles, QUARTER)
    return found


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, markets: dict[str, pd.DataFrame]) -> Registry:
    root = tmp_path_factory.mktemp("state") / "registry"
    for lookback, rows in ((LOOKBACK, TRAINED_ROWS), (LOOKBACK + 4, TRAINED_ROWS + 100)):
        promote(
            root,
            {
                s: f[["open", "high", "low", "close", "volume"]].to_numpy()
                for s, f in markets.items()
            },
            timeframe="15m",
            lookback=lookback,
            trained_to_ms=START_MS + rows * QUARTER.ms,
        )
    return Registry(root)


@pytest.fixture(scope="module")
def both(bundles: Registry) -> tuple[Bundle, Bundle]:
    previous = bundles.previous()
    assert previous is not None
    return bundles.open(bundles.champion()), bundles.open(previous)


@given(st.integers(2, 5_000), st.integers(1, 50), st.floats(0.05, 0.9), st.floats(0.05, 0.5))
def test_the_gate_gets_its_candles_for_any_span(
    gate_rows: int, lookback: int, train: float, validation: float
) -> None:
    rows = 3 * (gate_rows + lookback)
    cut = cut_for_gate(rows, gate_rows, lookback, train, validation)
    kept = rows - int(rows * (cut.train + cut.validation))
    assert gate_rows + lookback <= kept <= gate_rows + lookback + 1
    assert cut.train / cut.validation == pytest.approx(train / validation)


@pytest.mark.parametrize("rows", [ROWS, ROWS - 77, ROWS // 2])
def test_a_market_younger_than_the_span_leaves_the_gate_its_candles(
    markets: dict[str, pd.DataFrame], tmp_path: Path, rows: int
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: {lookback_periods: 8}\nindicators: {rsi_period: 4}\n")
    young = {symbol: frame.tail(rows).reset_index(drop=True) for symbol, frame in markets.items()}
    young["LATE/USDT"] = young[SYMBOLS[0]].tail(rows - 50).reset_index(drop=True)
    cut = cut_for_gate(rows_of(young), 150, LOOKBACK, 0.7, 0.15)
    dataset = build_dataset(path, young, (cut.train, cut.validation))
    newest_ms = START_MS + (ROWS - 1) * QUARTER.ms
    assert 0 <= (newest_ms - dataset.test_from_ms) // QUARTER.ms + 1 - (150 + LOOKBACK) <= 1


def test_symbols_too_young_to_be_trained_on_can_be_left_out(
    markets: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: {lookback_periods: 8}\nindicators: {rsi_period: 4}\n")
    whole = markets[SYMBOLS[0]]
    cut = cut_for_gate(ROWS, 150, LOOKBACK, 0.7, 0.15)
    trained_rows = int(ROWS * cut.train)
    candles = {
        "WHOLE": whole,
        # The newest of its training candles just make one window.
        "JUST": whole.tail(ROWS - trained_rows + 40 + LOOKBACK + 1),
        "YOUNG": whole.tail(ROWS - trained_rows + 40 + LOOKBACK),
        "GONE": whole.head(ROWS - 150),
    }
    candles = {symbol: frame.reset_index(drop=True) for symbol, frame in candles.items()}
    kept = long_enough(candles, cut, LOOKBACK, 40)
    assert list(kept) == ["WHOLE", "JUST"]
    assert build_dataset(path, kept, (cut.train, cut.validation)).symbols == ("WHOLE", "JUST")
    with pytest.raises(CandlecastError, match="GONE: too few candles"):
        build_dataset(path, candles, (cut.train, cut.validation))
    assert long_enough({"YOUNG": whole.tail(100)}, cut, LOOKBACK, 300) == {}


def test_a_span_without_training_candles_is_refused() -> None:
    with pytest.raises(CandlecastError, match="100 candles are too few: 60 are kept"):
        cut_for_gate(100, 50, 10, 0.7, 0.15)


def test_only_candles_that_neither_model_was_trained_on_are_judged(
    both: tuple[Bundle, Bundle], markets: dict[str, pd.DataFrame]
) -> None:
    challenger, champion = both
    judged = judge(challenger, champion, markets, RULES, NOW_MS, silent)
    first_ms = START_MS + (TRAINED_ROWS + 100 + LOOKBACK + 4 + 1) * QUARTER.ms
    for scored in (judged.challenger, judged.champion):
        assert scored is not None
        assert int(scored.open_ms.min()) == first_ms
        assert len(scored.open_ms) == 2 * (ROWS - (TRAINED_ROWS + 100 + LOOKBACK + 4 + 1))
    assert judged.symbols == SYMBOLS
    assert judged.decision.symbols == 2
    assert judged.decision.from_ms == first_ms
    assert judged.decision.champion_ratio is not None
    # Drawn weights forecast nothing, so that the same candles without the champion are refused.
    alone = judge(challenger, None, markets, replace(RULES, margin=1e-6), NOW_MS, silent)
    assert alone.decision.rule == "first_refused"
    assert alone.champion is None


def test_a_champion_of_another_timeframe_or_of_no_common_candle(
    both: tuple[Bundle, Bundle], markets: dict[str, pd.DataFrame]
) -> None:
    challenger, champion = both
    foreign = replace(champion, manifest=replace(champion.manifest, timeframe="1h"))
    assert judge(challenger, foreign, markets, RULES, NOW_MS, silent).champion is None
    newest = replace(champion, manifest=replace(champion.manifest, trained_to_ms=NOW_MS))
    judged = judge(challenger, newest, markets, RULES, NOW_MS, silent)
    assert (judged.decision.rule, judged.decision.n) == ("too_few", 0)


def test_a_champion_of_other_symbols_altogether_defends_nothing(
    both: tuple[Bundle, Bundle], markets: dict[str, pd.DataFrame]
) -> None:
    challenger, champion = both
    one = champion.scalers.by_symbol[SYMBOLS[0]]

    def knowing(*symbols: str) -> Bundle:
        known = ScalerSet(
            champion.scalers.features, champion.scalers.target, dict.fromkeys(symbols, one)
        )
        return replace(champion, scalers=known)

    judged = judge(challenger, knowing("OLD/USDT"), markets, RULES, NOW_MS, silent)
    assert judged.decision.champion_ratio is None
    assert judged.symbols == SYMBOLS
    # Where one symbol is common, that one is what is compared.
    judged = judge(challenger, knowing("OLD/USDT", SYMBOLS[1]), markets, RULES, NOW_MS, silent)
    assert judged.symbols == SYMBOLS[1:]
    assert judged.decision.champion_ratio is not None


def half_no_price(bundle: Bundle, scored: Scored) -> Bundle:
    """The bundle, its returns stretched until about half of its prices are 0 or infinite."""
    by = 745.0 / float(np.median(np.abs(np.log(scored.predicted / scored.last_close))))
    stretched = {
        symbol: replace(
            one, target_offset=by * one.target_offset, target_scale=by * one.target_scale
        )
        for symbol, one in bundle.scalers.by_symbol.items()
    }
    return replace(
        bundle, scalers=ScalerSet(bundle.scalers.features, bundle.scalers.target, stretched)
    )


def test_forecasts_that_are_no_price_are_no_evidence_for_their_model(
    both: tuple[Bundle, Bundle], markets: dict[str, pd.DataFrame]
) -> None:
    challenger, champion = both
    judged = judge(challenger, champion, markets, RULES, NOW_MS, silent)
    assert judged.champion is not None
    silenced = half_no_price(champion, judged.champion)
    half = judge(challenger, silenced, markets, RULES, NOW_MS, silent).decision
    # Where the champion has no forecast, there is nothing to compare.
    assert 0.3 < half.n / judged.decision.n < 0.7
    wild = half_no_price(challenger, judged.challenger)
    with pytest.raises(CandlecastError, match=r"of the \d+ forecasts of .* are not prices"):
        judge(wild, champion, markets, RULES, NOW_MS, silent)


def with_residuals(bundle: Bundle) -> Bundle:
    known = SymbolResiduals(500, tuple(np.linspace(-3.0, 3.0, len(LEVELS)).tolist()))
    residuals = Residuals(by_symbol=dict.fromkeys(SYMBOLS, known))
    return replace(bundle, residuals=residuals)


def page(challenger: Bundle, champion: Bundle | None, markets: dict[str, pd.DataFrame]) -> Page:
    judged = judge(challenger, champion, markets, RULES, NOW_MS, silent)
    return Page(challenger, champion, judged, markets, RULES, Rules())


def test_the_page_shows_the_decision_and_its_reason(
    both: tuple[Bundle, Bundle], markets: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    challenger, champion = both
    path = tmp_path / "reports" / "one.md"
    made = page(with_residuals(challenger), champion, markets)
    write_report(made, path)
    text = path.read_text(encoding="utf-8")
    decision = made.judged.decision
    assert f"# Model {challenger.version}" in text
    assert f"(`{decision.rule}`): {decision.reason}." in text
    assert f"| champion's ratio | {decision.champion_ratio:.6f} |" in text
    assert f"| detectable (power 0.8) | {decision.detectable:.6f} |" in text
    assert "| ETH/USDT | " in text
    assert "closes lay inside their 90 % interval" in text
    assert re.search(r"fifth of the hours \d+\.\d % lay inside, in the wildest \d+\.\d %", text)
    assert "![" in text
    assert len(text.splitlines()) < 60
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

    newest = replace(champion, manifest=replace(champion.manifest, trained_to_ms=NOW_MS))
    bare = tmp_path / "reports" / "two.md"
    write_report(page(challenger, newest, markets), bare)
    assert "There are no candles that neither model was trained on." in bare.read_text()
    assert "There was not enough evidence to give any." in bare.read_text()
    assert not bare.with_suffix(".png").exists()


def test_outlooks_are_those_of_the_daemon(
    both: tuple[Bundle, Bundle], markets: dict[str, pd.DataFrame]
) -> None:
    challenger = with_residuals(both[0])
    judged: Judged = judge(challenger, None, markets, RULES, NOW_MS, silent)
    outlooks = score_outlooks(challenger, markets, judged.challenger, judged.symbols, Rules())
    assert outlooks is not None
    assert len(outlooks.outcome) == len(judged.challenger.open_ms)
    assert outlooks.probabilities.sum(axis=1) == pytest.approx(1.0)
    assert 0.8 < outlooks.inside.mean() < 0.97
    # Of each candle the symbols one after the other, as they were taken in.
    one, other = (judged.challenger.of(number) for number in range(2))
    moved = np.abs(np.stack([s.close / s.last_close - 1 for s in (one, other)], axis=1)).ravel()
    mean = moved.mean()
    assert moved[outlooks.calm].mean() < 0.9 * mean < 1.1 * mean < moved[outlooks.wild].mean()
    for fifth in (outlooks.calm, outlooks.wild):
        assert fifth.mean() == pytest.approx(0.2, abs=0.05)
    # There is no outlook without evidence.
    assert (
        score_outlooks(both[0], markets, judged.challenger, judged.symbols, Rules(min_n=5_000))
        is None
    )


def test_reliability_compares_probabilities_with_outcomes() -> None:
    rng = np.random.default_rng(4)
    short = rng.uniform(0.0, 0.5, 20_000)
    chances = np.column_stack([short, 0.8 * (1 - short), 0.2 * (1 - short)])
    came = (rng.uniform(size=(20_000, 1)) > chances.cumsum(axis=1)).sum(axis=1)
    yes = np.ones(20_000, bool)
    outlooks = ScoredOutlooks(chances, came, yes, yes, yes)
    for side in range(len(SIDES)):
        bins = reliability(outlooks, side)
        assert sum(one.n for one in bins) == 20_000
        for one in bins:
            assert one.observed == pytest.approx(one.forecast, abs=0.03 + 2 / one.n**0.5)
    assert outlooks.brier < outlooks.brier_of_shares
    sure_of_it = ScoredOutlooks(
        np.array([[0.0, 1.0, 0.0]]), np.array([1]), yes[:1], yes[:1], yes[:1]
    )
    (sure,) = reliability(sure_of_it, 1)
    assert sure == (1.0, 1.0, 1)


def revision(slot: int, received: int, close: float, *, filled: bool = False) -> Candle:
    ohlcv = Ohlcv(close, close, close, close, 0.0)
    return Candle("A/B", slot * 10, slot * 10 + 10, ohlcv, received, 0.0, "rest", filled)


def test_history_is_read_as_it_was_known() -> None:
    first_revision, revised = revision(0, 11, 1.0), revision(0, 15, 2.0)
    flat, late = revision(1, 21, 2.0, filled=True), revision(1, 30, 3.0)
    flat_again = revision(0, 40, 2.5, filled=True)
    revisions = [first_revision, revised, flat_again, flat, late]
    assert candles_as_of(revisions) == [revised, late]
    assert candles_as_of(revisions, 21) == [revised, flat]
    assert candles_as_of(revisions, 14) == [first_revision]
    assert candles_as_of([], 5) == []


def test_frames_have_a_row_per_boundary() -> None:
    frame = frame_of([revision(0, 1, 1.0), revision(3, 1, 2.0)], Timeframe("x", 10, 0))
    assert frame["timestamp"].tolist() == [0, 10, 20, 30]
    assert frame["close"].tolist() == [1.0, 1.0, 1.0, 2.0]
