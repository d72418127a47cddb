"""Models and what was decided about them, as `candlecast models` shows them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from model.core.errors import BundleError, NoChampion
from model.registry.decisions import DECISIONS, Action, DecisionEntry
from model.registry.manifest import created_ms

if TYPE_CHECKING:
    from model.registry.registry import Registry

_DAY_MS: Final = 86_400_000
_SHOWN: Final = 20
"""Decisions in a list; the file has them all."""

_DONE: Final = {"promote": "promoted", "keep": "not promoted", "rollback": "rolled back to"}
_BY: Final = {"hand": "by hand", "retrain": "by the nightly gate", "shadow": "by the live trial"}


def models_command(
    registry: Registry, action: str, version: str | None, now_ms: int
) -> Iterator[str]:
    """What `candlecast models` does and says.

    Args:
        registry: where the models are.
        action: list, show, promote or rollback.
        version: of show (None: the champion) and promote.
        now_ms: Unix milliseconds.

    Yields:
        Lines; what is done is done when its line comes, and written down after the last.

    Raises:
        BundleError: the registry refuses, and nothing has changed; after lines: what they say could
            not be written down.
    """
    if action == "list":
        yield from model_lines(registry, now_ms)
        return
    if action == "show":
        yield model_story(registry, version or registry.champion(), now_ms)
        return
    before = _read(registry.champion)
    if version is None:
        version = registry.rollback()
    else:
        registry.promote(version)
    yield f"{version}: {_skill(registry, version)}"
    yield f"champion: {version}"
    # At three in the morning a story that cannot be written must not hide what was done.
    done: Action = "promote" if action == "promote" else "rollback"
    registry.record_decision(DecisionEntry(now_ms, done, "hand", version, before))


def model_lines(registry: Registry, now_ms: int) -> Iterator[str]:
    """One line a model, oldest first, then the newest decisions; of a damaged model what is wrong.

    Args:
        registry: where they are.
        now_ms: Unix milliseconds.

    Raises:
        BundleError: the file of decisions is damaged.
    """
    versions = registry.list()
    if not versions:
        yield f"no models in {registry.root}; make one with candlecast train"
    for version in versions:
        yield f"{version}  {_role(registry, version):8}  {_about(registry, version, now_ms)}"
    yield from _damage(registry)
    decisions = registry.decisions()
    if decisions:
        yield ""
        hidden = len(decisions) - _SHOWN
        earlier = f" ({hidden} earlier ones in {registry.root / DECISIONS})" if hidden > 0 else ""
        yield f"What was decided, newest last{earlier}:"
        for entry in decisions[-_SHOWN:]:
            yield decision_line(entry)


def decision_line(entry: DecisionEntry) -> str:
    """When, what, by whom, and on which evidence."""
    line = f"{_minute(entry.at_ms)}  {entry.version} {_DONE[entry.action]} {_BY[entry.by]}"
    gate = entry.gate
    if gate is None:
        return f"{line} (champion before: {entry.champion or 'none'})"
    return (
        f"{line}: {gate.reason} ({gate.rule}; {gate.candles} candles, n {gate.n}, standard error "
        f"{gate.standard_error:.6f}, detectable {gate.detectable:.6f}; champion then: "
        f"{entry.champion or 'none'})"
    )


def model_story(registry: Registry, version: str, now_ms: int) -> str:
    """The manifest of a model and everything decided about it, as JSON.

    Raises:
        BundleError: no such model, or it does not verify.
    """
    manifest = registry.open(version).manifest
    report = registry.report(version)
    story = json.loads(manifest.to_json()) | {
        "role": _role(registry, version),
        "age_days": round((now_ms - created_ms(version)) / _DAY_MS, 2),
        "report": str(report) if report.exists() else None,
        "decisions": [
            asdict(entry)
            for entry in registry.decisions()
            if version in {entry.version, entry.champion}
        ],
    }
    return json.dumps(story, indent=1)


def _skill(registry: Registry, version: str) -> str:
    """What is known of a model, for whoever promotes it by hand."""
    metrics = registry.open(version).manifest.metrics
    ratio, low, high = (metrics.get(f"mae_ratio{end}") for end in ("", "_low", "_high"))
    if ratio is None:
        return "nothing is known of its skill"
    said = f"error ÷ last value's on its test candles {ratio:.4f}"
    if low is None or high is None:
        return said
    verdict = "skill" if high < 1 else "worse than it" if low > 1 else "cannot be told from it"
    return f"{said} (95 %: {low:.4f} to {high:.4f}): {verdict}"


def _role(registry: Registry, version: str) -> str:
    if version == _read(registry.champion):
        return "champion"
    return "previous" if version == _read(registry.previous) else ""


def _read(pointer: Callable[[], str | None]) -> str | None:
    """Where a pointer points; nowhere where it is damaged."""
    try:
        return pointer()
    except BundleError:
        return None


def _damage(registry: Registry) -> Iterator[str]:
    """A line for each pointer that is damaged."""
    for pointer in (registry.champion, registry.previous):
        try:
            pointer()
        except NoChampion:
            continue
        except BundleError as error:
            yield f"{error}; to mend it: candlecast models promote"


def _about(registry: Registry, version: str, now_ms: int) -> str:
    try:
        manifest = registry.open(version).manifest
    except BundleError as error:
        return str(error)
    ratio = manifest.metrics.get("mae_ratio")
    score = "" if ratio is None else f", error ÷ last value's {ratio:.4f}"
    count = len(manifest.symbols)
    days = (now_ms - created_ms(version)) / _DAY_MS
    return (
        f"{manifest.timeframe} {manifest.target}, {count} symbol{'s' if count > 1 else ''}, "
        f"trained to {_minute(manifest.trained_to_ms)}, {days:.1f} days old{score}"
    )


def _minute(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
