"""Parse JSON from untrusted files and check the type of every value.

Every function raises `BundleError` with one line that names the file and the key. Written by hand:
orjson and pydantic accept a key that occurs twice in an object, and keep the last value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, NoReturn

from model.core.errors import BundleError


def fail(where: str, why: str) -> NoReturn:
    """Raise `BundleError` for ``where`` (a file, or a key in it) with a reason."""
    msg = f"{where}: {why}"
    raise BundleError(msg)


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Parse one JSON object; NaN, Infinity and repeated keys are refused."""

    def constant(name: str) -> NoReturn:
        fail(where, f"{name} is not JSON")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            fail(where, "a key occurs twice in one object")
        return found

    try:
        value = json.loads(text, parse_constant=constant, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        fail(where, f"not JSON: {error}")
    return as_object(value, where)


def as_object(value: object, where: str, keys: Iterable[str] | None = None) -> dict[str, Any]:
    """Require an object and, where ``keys`` are given, exactly those keys."""
    if not isinstance(value, dict):
        fail(where, f"must be an object, not {_brief(value)}")
    if keys is not None:
        wanted = set(keys)
        lacking, unknown = sorted(wanted - value.keys()), sorted(value.keys() - wanted)
        if lacking or unknown:
            fail(where, f"lacks keys {lacking}, has unknown keys {[k[:40] for k in unknown[:5]]}")
    return value


def as_number(value: object, where: str) -> float:
    """Require a finite number."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, str) or not math.isfinite(number):
        fail(where, f"must be a finite number, not {_brief(value)}")
    return number


def as_integer(value: object, where: str) -> int:
    """Require an integer that fits 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 63:
        fail(where, f"must be an integer, not {_brief(value)}")
    return value


def as_text(value: object, where: str) -> str:
    """Require a string that is not empty."""
    if not isinstance(value, str) or not value:
        fail(where, f"must be a text, not {_brief(value)}")
    return value


def as_list(value: object, where: str) -> list[Any]:
    """Require an array."""
    if not isinstance(value, list):
        fail(where, f"must be an array, not {_brief(value)}")
    return value


def _brief(value: object) -> str:
    return type(value).__name__ if isinstance(value, dict | list) else ascii(value)[:40]
