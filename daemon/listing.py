"""Models as `candlecast models list` shows them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from model.errors import BundleError, NoChampion

if TYPE_CHECKING:
    from model.registry import Registry


def model_lines(registry: Registry) -> Iterator[str]:
    """One line a model, oldest first, the served one marked; a damaged one says what is wrong.

    Raises:
        BundleError: a pointer of the registry is damaged.
    """
    try:
        champion: str | None = registry.champion()
    except NoChampion:
        champion = None
    roles = {registry.previous(): "previous", champion: "champion"}
    versions = registry.list()
    if not versions:
        yield f"no models in {registry.root}; make one with candlecast train"
    for version in versions:
        yield f"{version}  {roles.get(version, ''):8}  {_about(registry, version)}"


def _about(registry: Registry, version: str) -> str:
    try:
        manifest = registry.open(version).manifest
    except BundleError as error:
        return str(error)
    until = datetime.fromtimestamp(manifest.trained_to_ms / 1000, UTC)
    ratio = manifest.metrics.get("mae_ratio")
    score = "" if ratio is None else f", error ÷ last value's {ratio:.4f}"
    count = len(manifest.symbols)
    return (
        f"{manifest.timeframe} {manifest.target}, {count} symbol{'s' if count > 1 else ''}, "
        f"trained to {until:%Y-%m-%d %H:%M} UTC{score}"
    )
