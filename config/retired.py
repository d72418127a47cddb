"""Remove settings that earlier versions had from a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

RETIRED: Final[Mapping[tuple[str, str], str]] = {
    ("inference", "threads"): (
        "The network runs on one thread. A step of 1,024 symbols takes 0.6 ms there, and a second "
        "thread takes a core from everything else."
    ),
    ("inference", "max_batch"): (
        "At most 1,024 symbols run in one call. More run in several calls, which costs no more."
    ),
    ("inference", "forming_interval_ms"): (
        "250 ms pass between two forecasts of one forming candle, as between two updates of the "
        "exchanges that send the most."
    ),
    ("mqtt", "outbox_size"): (
        "The outbox keeps 4,096 messages. It holds the newest of each symbol, and a daemon is "
        "measured with up to 2,000 symbols."
    ),
    ("calibration", "gamma"): (
        "The step is 0.005. The coverage that [calibration.md](calibration.md) promises was "
        "measured with it."
    ),
    ("registry", "max_age"): (
        "A champion may be replaced without being beaten after 30 days, the span of candles that "
        "the nightly job trains on."
    ),
    ("retrain", "nice"): (
        "The nightly job runs with niceness 15. Its idle scheduling policy decides; niceness "
        "counts only where that policy is refused."
    ),
}
"""Section and key of each removed setting, with what holds in its place."""


def without_retired(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Remove the retired settings from a configuration.

    Args:
        raw: the mapping that a file holds.

    Returns:
        A copy without them, and the dotted names of those that it held.
    """
    kept, found = dict(raw), []
    for section, key in RETIRED:
        values = kept.get(section)
        if isinstance(values, dict) and key in values:
            kept[section] = {name: value for name, value in values.items() if name != key}
            found.append(f"{section}.{key}")
    return kept, found
