"""Draw a reproducible schedule of faults from a seed."""

from __future__ import annotations

import random
from typing import NamedTuple

WAYS = ("stream", "rest", "broker")
ON_A_WAY = ("reset", "close", "half-open", "delay", "throttle", "garble", "refuse")
ELSEWHERE = (
    "reorder",
    "kill broker",
    "restart broker",
    "restart daemon",
    "ban",
    "silence",
    "skip",
    "untraded",
    "repeat",
    "late close",
)
"""No revision after the close: a forecast of before it is right and yet not that of the truth."""

_APART_S = 2.5
"""From one fault to the next, on average."""

_LONGEST_S = 6.0


class Fault(NamedTuple):
    """One fault.

    Attributes:
        at_s: when it begins, seconds of the exchange's time from the start.
        what: one of the names above.
        way: between daemon and what, one of `WAYS`, where that matters.
        lasts_s: until it is over, seconds.
        size: from 0 to 1, how bad it is.
    """

    at_s: float
    what: str
    way: str
    lasts_s: float
    size: float

    def __str__(self) -> str:
        return (
            f"{self.at_s:6.1f} s: {self.what:14} {self.way:6} {self.lasts_s:.1f} s, {self.size:.2f}"
        )


def draw_schedule(seed: int, seconds: float) -> list[Fault]:
    """Faults over ``seconds`` of the exchange's time, some of them at once."""
    draw = random.Random(seed)
    faults = []
    at_s = draw.expovariate(1 / _APART_S)
    while at_s < seconds:
        everywhere = draw.random() < 0.6
        what = draw.choice(ON_A_WAY if everywhere else ELSEWHERE)
        way = draw.choice(WAYS) if everywhere else ""
        faults.append(Fault(at_s, what, way, draw.uniform(0.5, _LONGEST_S), draw.random()))
        at_s += draw.expovariate(1 / _APART_S)
    return faults
