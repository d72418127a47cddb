"""Define a fuzz target and list all targets by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple


class Target(NamedTuple):
    """One parser of bytes from outside.

    Attributes:
        one_input: parses; every exception that escapes it is a finding.
        seeds: well-formed inputs to begin with.
    """

    one_input: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def as_json(*values: object) -> tuple[bytes, ...]:
    """Encode each value as compact JSON."""
    return tuple(json.dumps(value, separators=(",", ":")).encode() for value in values)


def all_targets() -> dict[str, Target]:
    """Import every module of fuzz targets and return their targets by name."""
    from tests.fuzz import (
        fuzz_consumer,
        fuzz_files,
        fuzz_frames,
        fuzz_mqtt,
        fuzz_rest,
        fuzz_streams,
    )

    return (
        fuzz_frames.TARGETS
        | fuzz_streams.TARGETS
        | fuzz_rest.TARGETS
        | fuzz_mqtt.TARGETS
        | fuzz_files.TARGETS
        | fuzz_consumer.TARGETS
    )
