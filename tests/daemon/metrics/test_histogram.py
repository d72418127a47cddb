"""Values that are observed together are counted as one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.metrics.histogram import Histogram

BOUNDS = (0.1, 0.5, 1.0, 5.0)


@given(values=st.lists(st.sampled_from([*BOUNDS, 0.0, 0.25, 0.999, 7.0]), max_size=40))
def test_values_observed_together_are_counted_as_one_by_one(values: list[float]) -> None:
    together, plain = Histogram(BOUNDS), Histogram(BOUNDS)
    together.observe_all(np.array(values, np.float64))
    for value in values:
        plain.observe(value)
    assert together.cumulative() == plain.cumulative()
    assert together.sum == pytest.approx(plain.sum)
