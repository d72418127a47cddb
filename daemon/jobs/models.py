"""List, describe, promote and roll back the models of the registry."""

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
_MAX_SHOWN_DECISIONS: Final = 20

_ACTION_TEXT: Final = {"promote": "promoted", "keep": "not promoted", "rollback": "rolled back to"}
_ACTOR_TEXT: Final = {
    "hand": "by hand",
    "retrain": "by the nightly gate",
    "shadow": "by the live trial",
}


def models_command(
    registry: Registry, action: str, version: str | None, now_ms: int
) -> Iterator[str]:
    """Execute `candlecast models`.

    Args:
        registry: registry of the models.
        action: list, show, promote or rollback.
        version: of the model to show (None for the champion) or to promote.
        now_ms: Unix milliseconds.

    Yields:
        Lines to print. The champion has changed when the first line is yielded; the decision is
        recorded after the last line.

    Raises:
        BundleError: before any line: the registry refused and nothing has changed; after lines:
            the decision could not be recorded.
    """
    if action == "list":
        yield from list_models(registry, now_ms)
        return
    if action == "show":
        yield describe_model(registry, version or registry.champion(), now_ms)
        return
    previous = _read(registry.champion)
    if version is None:
        version = registry.rollback()
    else:
        registry.promote(version)
    yield f"{version}: {_skill(registry, version)}"
    yield f"champion: {version}"
    # Recorded last, so that a failure to record does not hide that the champion has changed.
    done: Action = "promote" if action == "promote" else "rollback"
    registry.record_decision(DecisionEntry(now_ms, done, "hand", version, previous))


def list_models(registry: Registry, now_ms: int) -> Iterator[str]:
    """Format one line per model, oldest first, then the latest decisions.

    A damaged model's line contains the error.

    Args:
        registry: registry of the models.
        now_ms: Unix milliseconds.

    Raises:
        BundleError: the file of decisions is damaged.
    """
    versions = registry.list()
    if not versions:
        yield f"no models in {registry.root}; train one with candlecast train"
    for version in versions:
        yield f"{version}  {_role(registry, version):8}  {_about(registry, version, now_ms)}"
    yield from _damage(registry)
    decisions = registry.decisions()
    if decisions:
        yield ""
        hidden = len(decisions) - _MAX_SHOWN_DECISIONS
        earlier = f" ({hidden} earlier ones in {registry.root / DECISIONS})" if hidden > 0 else ""
        yield f"Decisions, newest last{earlier}:"
        for entry in decisions[-_MAX_SHOWN_DECISIONS:]:
            yield decision_line(entry)


def decision_line(entry: DecisionEntry) -> str:
    """Format a decision: time, action, actor and the gate's figures."""
    action, actor = _ACTION_TEXT[entry.action], _ACTOR_TEXT[entry.by]
    line = f"{_minute(entry.at_ms)}  {entry.version} {action} {actor}"
    gate = entry.gate
    if gate is None:
        return f"{line} (champion before: {entry.champion or 'none'})"
    return (
        f"{line}: {gate.reason} ({gate.rule}; {gate.candles} candles, n {gate.n}, standard error "
        f"{gate.standard_error:.6f}, detectable {gate.detectable:.6f}; champion then: "
        f"{entry.champion or 'none'})"
    )


def describe_model(registry: Registry, version: str, now_ms: int) -> str:
    """Format a model's manifest and its decisions as JSON.

    Raises:
        BundleError: no such model, or it is damaged.
    """
    manifest = registry.open(version).manifest
    report = registry.report(version)
    description = json.loads(manifest.to_json()) | {
        "role": _role(registry, version),
        "age_days": round((now_ms - created_ms(version)) / _DAY_MS, 2),
        "report": str(report) if report.exists() else None,
        "decisions": [
            asdict(entry)
            for entry in registry.decisions()
            if version in {entry.version, entry.champion}
        ],
    }
    return json.dumps(description, indent=1)


def _skill(registry: Registry, version: str) -> str:
    """Format a model's error ratio on its test candles."""
    metrics = registry.open(version).manifest.metrics
    ratio, low, high = (metrics.get(f"mae_ratio{end}") for end in ("", "_low", "_high"))
    if ratio is None:
        return "its skill is unknown"
    text = f"error ÷ last-value error on its test candles {ratio:.4f}"
    if low is None or high is None:
        return text
    verdict = "better" if high < 1 else "worse" if low > 1 else "no significant difference"
    return f"{text} (95 %: {low:.4f} to {high:.4f}): {verdict}"


def _role(registry: Registry, version: str) -> str:
    if version == _read(registry.champion):
        return "champion"
    return "previous" if version == _read(registry.previous) else ""


def _read(pointer: Callable[[], str | None]) -> str | None:
    """The version of a pointer file; None if the file is damaged."""
    try:
        return pointer()
    except BundleError:
        return None


def _damage(registry: Registry) -> Iterator[str]:
    """Format a line for each damaged pointer file."""
    for pointer in (registry.champion, registry.previous):
        try:
            pointer()
        except NoChampion:
            continue
        except BundleError as error:
            yield f"{error}; repair it with candlecast models promote"


def _about(registry: Registry, version: str, now_ms: int) -> str:
    try:
        manifest = registry.open(version).manifest
    except BundleError as error:
        return str(error)
    ratio = manifest.metrics.get("mae_ratio")
    score = "" if ratio is None else f", error ÷ last-value error {ratio:.4f}"
    count = len(manifest.symbols)
    days = (now_ms - created_ms(version)) / _DAY_MS
    return (
        f"{manifest.timeframe} {manifest.target}, {count} symbol{'s' if count > 1 else ''}, "
        f"trained to {_minute(manifest.trained_to_ms)}, {days:.1f} days old{score}"
    )


def _minute(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
