"""What a fuzzer is: a function of bytes that raises only when a promise is broken, and seeds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple


class Target(NamedTuple):
    """One parser of outside bytes.

    Attributes:
        one_input: parses; every exception that escapes it is a finding.
        seeds: well-formed inputs to begin with.
    """

    one_input: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def as_json(*values: object) -> tuple[bytes, ...]:
    """Seeds from values."""
    return tuple(json.dumps(value, separators=(",", ":")).encode() for value in values)
