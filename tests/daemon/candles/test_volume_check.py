"""Volumes by websocket and by REST are compared, scaled or refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daemon.candles.volume_check import VolumeCheck
from daemon.candles.volume_comparison import Finding, Pair, Verdict, judge
from model.core.candle import Candle, FinalBy, Ohlcv, Timeframe

MINUTE = Timeframe.parse("1m")
START_MS = 1_790_000_040_000
SYMBOL = "BTC/USDT"
TRUE = [12.345, 0.871, 153.2, 44.01, 7.5, 31.9, 9.99, 60.06]
PRICES = [(99.0, 101.0), (100.0, 102.0), (101.5, 103.0), (102.0, 104.0), (103.5, 105.5)]


def pairs(stream: Sequence[float], rest: Sequence[float]) -> list[Pair]:
    prices = (PRICES * 2)[: len(stream)]
    both = zip(stream, rest, prices, strict=True)
    return [Pair(streamed, fetched, low, high) for streamed, fetched, (low, high) in both]


def in_quote(volumes: Sequence[float]) -> list[float]:
    return [v * (low + high) / 2 for v, (low, high) in zip(volumes, PRICES * 2, strict=False)]


def test_one_candle_with_the_same_volume_shows_that_units_are_equal() -> None:
    assert judge(pairs(TRUE[:1], TRUE[:1]), None) == Finding(Verdict.EQUAL)
    assert judge([], None) is None


@pytest.mark.parametrize("size", [0.1, 0.001, 10.0, 100.0])
def test_one_candle_is_enough_to_detect_a_contract_size(size: float) -> None:
    contracts = [volume / size for volume in TRUE]
    assert judge(pairs(contracts[:1], TRUE[:1]), size) == Finding(Verdict.SCALED, size)
    assert judge(pairs(TRUE[:1], contracts[:1]), size) == Finding(Verdict.SCALED, 1 / size)


@pytest.mark.parametrize("factor", [1e-8, 0.001, 0.37, 3.0, 1e6])
def test_three_candles_show_a_constant_factor(factor: float) -> None:
    stream = [volume / factor for volume in TRUE]
    assert judge(pairs(stream[:2], TRUE[:2]), None) is None
    found = judge(pairs(stream[:3], TRUE[:3]), None)
    assert found is not None
    assert found.verdict is Verdict.SCALED
    assert found.factor == pytest.approx(factor)


def test_equal_consecutive_volumes_show_no_factor() -> None:
    # Each candle had one trade of one lot: that may be any price or size.
    assert judge(pairs([2.0] * 3, [1.0] * 3), None) is None


def test_a_partial_candle_among_scaled_ones_does_not_count() -> None:
    stream = [volume * 1_000 for volume in TRUE[:4]]
    stream[1] *= 0.4
    found = judge(pairs(stream, TRUE[:4]), None)
    assert found is not None
    assert found.verdict is Verdict.SCALED
    assert found.factor == pytest.approx(1e-3)


@pytest.mark.parametrize("stream_counts_quote", [True, False])
def test_volumes_in_quote_currency_are_refused(*, stream_counts_quote: bool) -> None:
    both = (in_quote(TRUE[:3]), TRUE[:3])
    stream, rest = both if stream_counts_quote else both[::-1]
    found = judge(pairs(stream, rest), None)
    assert found is not None
    assert found.verdict is Verdict.REFUSED
    assert "quote" in found.reason


def test_quote_currency_is_not_taken_for_a_factor_at_a_constant_price() -> None:
    still = [Pair(volume * 50.0, volume, 50.0, 50.0) for volume in TRUE[:5]]
    found = judge(still, None)
    assert found is not None
    assert found.verdict is Verdict.REFUSED


def test_late_trades_are_not_taken_for_another_unit() -> None:
    stream = [
        volume * short for volume, short in zip(TRUE, [0.98, 0.7, 0.999, 0.95, 0.9], strict=False)
    ]
    assert judge(pairs(stream[:4], TRUE[:4]), None) is None
    assert judge(pairs(stream[:5], TRUE[:5]), None) == Finding(Verdict.EQUAL)
    assert judge(pairs([*stream[:3], TRUE[3]], TRUE[:4]), None) == Finding(Verdict.EQUAL)


def test_volumes_without_a_constant_factor_are_refused() -> None:
    stream = [volume * factor for volume, factor in zip(TRUE, [9, 40, 3, 700, 25], strict=False)]
    found = judge(pairs(stream, TRUE[:5]), None)
    assert found is not None
    assert found.verdict is Verdict.REFUSED
    assert "0.00143 to 0.333 times" in found.reason


def test_a_stream_without_volumes_is_refused() -> None:
    found = judge(pairs([0.0] * 5, TRUE[:5]), None)
    assert found is not None
    assert found.verdict is Verdict.REFUSED
    found = judge(pairs(TRUE[:5], [0.0] * 5), None)
    assert found is not None
    assert found.verdict is Verdict.REFUSED


VOLUME = st.floats(min_value=0.0, max_value=1e300, allow_subnormal=False)


@example(both=[(1.0, 0.0)], size=2.225073858507203e-309)
@given(
    both=st.lists(st.tuples(VOLUME, VOLUME).filter(any), max_size=6),
    size=st.none() | st.floats(min_value=0.0, max_value=1e9),
)
def test_any_volumes_get_a_verdict(both: list[tuple[float, float]], size: float | None) -> None:
    found = judge([Pair(*volumes, 1.0, 2.0) for volumes in both], size)
    if found is not None and found.verdict is Verdict.SCALED:
        assert 0.0 < found.factor < float("inf")


def candle(number: int, volume: float, *, by: FinalBy | None, filled: bool = False) -> Candle:
    open_ms = START_MS + number * MINUTE.ms
    ohlcv = Ohlcv(100.0, 101.0, 99.0, 100.5, volume)
    return Candle(SYMBOL, open_ms, open_ms + MINUTE.ms, ohlcv, 0, 0.0, by, filled)


def check_of(*, known: bool = True, size: float | None = None) -> VolumeCheck:
    return VolumeCheck(MINUTE, lambda _symbol: known, lambda _symbol: size)


def stream(check: VolumeCheck, number: int, volume: float) -> float | None:
    """The volume that is used of a closed candle of the stream."""
    used = check.convert(candle(number, volume, by="exchange_flag"))
    return None if used is None else used.ohlcv.volume


def rest(check: VolumeCheck, number: int, volume: float) -> Finding | None:
    return check.compare(SYMBOL, [candle(number, volume, by="rest")])


def test_volumes_of_a_documented_market_are_used_at_once() -> None:
    check = check_of()
    assert stream(check, 0, 2.5) == 2.5
    assert rest(check, 0, 2.5) is None
    assert stream(check, 1, 3.5) == 3.5
    assert check.count_verdicts()[Verdict.EQUAL] == 1


def test_volumes_of_another_market_are_used_when_they_have_been_compared() -> None:
    check = check_of(known=False)
    assert stream(check, 0, 2.5) is None
    assert check.count_verdicts()[Verdict.PENDING] == 1
    assert rest(check, 0, 2.5) is None
    assert stream(check, 1, 3.5) == 3.5


def test_a_market_without_trades_gives_no_verdict() -> None:
    check = check_of(known=False)
    for number in range(6):
        assert stream(check, number, 0.0) is None
        assert rest(check, number, 0.0) is None
    assert check.count_verdicts()[Verdict.PENDING] == 1


def test_a_filled_candle_gives_no_verdict() -> None:
    check = check_of()
    stream(check, 0, 2.5)
    assert check.compare(SYMBOL, [candle(0, 0.0, by="rest", filled=True)]) is None
    assert check.count_verdicts()[Verdict.PENDING] == 1


def test_scaled_volumes_equal_the_decimals_of_the_history() -> None:
    check = check_of(size=0.001)
    assert stream(check, 0, 12_345) == 12_345
    found = rest(check, 0, 12.345)
    assert found == Finding(Verdict.SCALED, 0.001)
    for number, contracts in enumerate([1, 7, 43, 100_003, 33_333], 1):
        assert stream(check, number, contracts) == float(f"{contracts / 1_000:.3f}")
    used = check.convert(candle(6, 500, by=None))
    assert used is not None
    assert used.ohlcv.volume == 0.5


def test_after_a_first_difference_candles_wait_for_a_verdict() -> None:
    check = check_of()
    assert stream(check, 0, 1_000 * TRUE[0]) is not None
    assert rest(check, 0, TRUE[0]) is None
    assert stream(check, 1, 1_000 * TRUE[1]) is None
    assert rest(check, 1, TRUE[1]) is None
    assert stream(check, 2, 1_000 * TRUE[2]) is None
    found = rest(check, 2, TRUE[2])
    assert found is not None
    assert found.verdict is Verdict.SCALED
    assert stream(check, 3, 1_000 * TRUE[3]) == TRUE[3]


def test_a_small_difference_withholds_nothing() -> None:
    check = check_of()
    stream(check, 0, 10.0)
    rest(check, 0, 10.4)
    assert stream(check, 1, 10.0) == 10.0


@pytest.mark.parametrize(("volume", "used"), [(1e5, None), (1e-3, None), (30.0, 30.0), (0.0, 0.0)])
def test_a_first_volume_far_from_the_history_waits_to_be_compared(
    volume: float, used: float | None
) -> None:
    check = check_of()
    check.compare(SYMBOL, [candle(n, 1.0 + n % 7, by="rest") for n in range(40)])
    assert stream(check, 40, volume) == used


def test_a_forming_candle_may_be_small_but_not_large() -> None:
    check = check_of()
    check.compare(SYMBOL, [candle(n, 1.0 + n % 7, by="rest") for n in range(40)])
    assert check.convert(candle(40, 1e-3, by=None)) is not None
    assert check.convert(candle(40, 1e5, by=None)) is None


def test_a_large_volume_is_used_and_compared_once_units_are_known_to_be_equal() -> None:
    check = check_of()
    check.compare(SYMBOL, [candle(n, 1.0 + n % 7, by="rest") for n in range(40)])
    stream(check, 40, 3.0)
    rest(check, 40, 3.0)
    assert check.symbol_due(START_MS + 100 * MINUTE.ms) is None
    assert stream(check, 41, 1e5) == 1e5
    assert check.symbol_due(START_MS + 100 * MINUTE.ms) == SYMBOL
    rest(check, 41, 1e5)
    stream(check, 42, 3.0)
    assert check.symbol_due(START_MS + 100 * MINUTE.ms) is None


def test_on_a_new_connection_volumes_are_compared_again() -> None:
    check = check_of()
    stream(check, 0, 3.0)
    rest(check, 0, 3.0)
    check.request_comparison(SYMBOL)
    assert check.symbol_due(START_MS + 100 * MINUTE.ms) is None
    assert stream(check, 1, 3_000.0) == 3_000.0
    assert check.symbol_due(START_MS + 100 * MINUTE.ms) == SYMBOL
    rest(check, 1, 3.0)
    assert stream(check, 2, 3_000.0) is None


def test_refused_candles_are_withheld_and_named() -> None:
    check = check_of()
    found = None
    for number, volume in enumerate(TRUE[:3]):
        stream(check, number, volume * 100.0)
        found = rest(check, number, volume)
    assert found is not None
    assert found.verdict is Verdict.REFUSED
    assert check.refused_symbols() == [SYMBOL]
    assert stream(check, 3, 1.0) is None
    assert check.convert(candle(4, 1.0, by=None)) is None


def test_a_change_of_units_is_noticed_and_so_is_its_end() -> None:
    check = check_of()
    stream(check, 0, TRUE[0])
    rest(check, 0, TRUE[0])
    findings = []
    for number in range(1, 4):
        stream(check, number, TRUE[number] * 1_000)
        findings.append(rest(check, number, TRUE[number]))
        # From the first difference on nothing is used that may be wrong.
        expected = TRUE[number] if findings[-1] else None
        assert stream(check, number + 10, TRUE[number] * 1_000) == expected
    assert [found and found.verdict for found in findings] == [None, None, Verdict.SCALED]
    stream(check, 5, TRUE[5])
    assert rest(check, 5, TRUE[5]) == Finding(Verdict.EQUAL)
    assert stream(check, 6, TRUE[6]) == TRUE[6]


def test_the_history_is_requested_once_per_available_candle() -> None:
    check = check_of()
    stream(check, 0, 2.5)
    close_ms = START_MS + MINUTE.ms
    assert check.symbol_due(close_ms + 1_000) is None
    assert check.symbol_due(close_ms + 3_000) == SYMBOL
    assert check.symbol_due(close_ms + 3_500) is None
    stream(check, 1, 2.5)
    assert check.symbol_due(close_ms + MINUTE.ms + 3_000) == SYMBOL
    rest(check, 1, 2.5)
    stream(check, 2, 2.5)
    assert check.symbol_due(close_ms + 10 * MINUTE.ms) is None


def test_candles_without_trades_are_not_requested() -> None:
    check = check_of()
    stream(check, 0, 0.0)
    assert check.symbol_due(START_MS + 10 * MINUTE.ms) is None


def test_other_symbols_are_forgotten() -> None:
    check = check_of()
    stream(check, 0, 2.5)
    check.set_symbols(["ETH/USDT"])
    assert not check.count_verdicts()


def test_memory_use_is_bounded() -> None:
    check = check_of()
    for number in range(1_000):
        stream(check, number, 2.5)
    assert rest(check, 3, 9.0) is None
    assert check.count_verdicts()[Verdict.PENDING] == 1
    assert rest(check, 999, 2.5) is None
    assert check.count_verdicts()[Verdict.EQUAL] == 1
