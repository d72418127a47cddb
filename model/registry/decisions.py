"""Record decisions about models as JSON lines, newest last."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, Self

from model.core.errors import BundleError
from model.files.atomic import read_limited
from model.files.strict_json import (
    as_integer,
    as_list,
    as_number,
    as_object,
    as_text,
    fail,
    parse_object,
)
from model.registry.manifest import VERSION
from model.stats.promotion_gate import Decision

log = logging.getLogger("candlecast.registry")

DECISIONS: Final = "decisions.jsonl"
KEPT: Final = 1000
"""Decisions that are remembered; a night adds one, so this is some years."""

_LARGEST: Final = 16 << 20

Action = Literal["promote", "keep", "rollback"]
By = Literal["hand", "retrain", "shadow"]


@dataclass(frozen=True)
class Entry:
    """One decision.

    Attributes:
        at_ms: when, Unix milliseconds.
        action: what was decided.
        by: a person, the nightly job, or a live trial.
        version: the model it is about.
        champion: who was champion before, None where there was none.
        gate: the evidence; None where a person decided.
    """

    at_ms: int
    action: Action
    by: By
    version: str
    champion: str | None
    gate: Decision | None = None

    def to_json(self) -> str:
        """One line, without its end."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            BundleError: anything else.
        """
        raw = as_object(parse_object(text, DECISIONS), DECISIONS, [f.name for f in fields(cls)])
        gate, champion = raw["gate"], raw["champion"]
        return cls(
            at_ms=as_integer(raw["at_ms"], DECISIONS),
            action=_one_of(raw["action"], ("promote", "keep", "rollback")),
            by=_one_of(raw["by"], ("hand", "retrain", "shadow")),
            version=_version(raw["version"]),
            champion=None if champion is None else _version(champion),
            gate=None if gate is None else _decision(as_object(gate, DECISIONS)),
        )


def read_decisions(root: Path) -> list[Entry]:
    """The decisions about the models of a registry, oldest first; a damaged line is left out."""
    path = root / DECISIONS
    if not path.exists():
        return []
    entries = []
    for line in read_limited(path, _LARGEST).splitlines():
        try:
            entries.append(Entry.from_json(line))
        except BundleError as error:
            log.warning("%s: a line is left out: %s", path, error)
    return entries


def decisions_with(root: Path, entry: Entry) -> bytes:
    """The whole file with one more decision in it, the oldest gone where there are too many."""
    entries = [*read_decisions(root), entry][-KEPT:]
    return "".join(f"{e.to_json()}\n" for e in entries).encode()


def _decision(raw: Mapping[str, Any]) -> Decision:
    as_object(dict(raw), DECISIONS, [field.name for field in fields(Decision)])
    texts = {"rule": as_text(raw["rule"], DECISIONS), "reason": as_text(raw["reason"], DECISIONS)}
    counts = ("n", "candles", "symbols", "from_ms", "to_ms")
    numbers = ("challenger_ratio", "gain", "standard_error", "critical", "detectable")
    ratio = raw["champion_ratio"]
    made: dict[str, Any] = {
        **texts,
        **{name: as_integer(raw[name], DECISIONS) for name in counts},
        **{name: as_number(raw[name], DECISIONS) for name in numbers},
        "promote": raw["promote"] is True,
        "champion_ratio": None if ratio is None else as_number(ratio, DECISIONS),
        "worse": tuple(
            as_integer(number, DECISIONS) for number in as_list(raw["worse"], DECISIONS)
        ),
    }
    return Decision(**made)


def _one_of(value: object, allowed: tuple[Any, ...]) -> Any:  # noqa: ANN401 - one of the literals
    if value not in allowed:
        fail(DECISIONS, f"{ascii(value)[:40]} is none of {', '.join(allowed)}")
    return value


def _version(value: object) -> str:
    text = as_text(value, DECISIONS)
    if not VERSION.fullmatch(text):
        fail(DECISIONS, f"{ascii(text)[:80]} is not a version")
    return text
