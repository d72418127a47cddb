"""Write and read `retrain.json`, the result of the last nightly job."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

from model.core.errors import BundleError
from model.files.atomic import read_limited, sync_folder, write_synced
from model.files.strict_json import as_integer, as_number, as_object, as_text, parse_object

STATUS: Final = "retrain.json"
_SCHEMA: Final = 1
_MAX_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class RetrainStatus:
    """The last run; figures that it did not reach are None.

    Attributes:
        finished_ms: when it ended, Unix milliseconds.
        duration_s: seconds that it took, without those of a killed run before it.
        success_ms: when a run last reached a decision, Unix milliseconds.
        error: why this run reached none; None if it did.
        version: the challenger.
        promoted: whether it became champion.
        rule: which of the gate's rules decided.
        reason: the gate's reason.
        candles: candles that the gate compared.
        challenger_ratio: its error divided by the last value's.
        champion_ratio: the champion's.
        gain: how much better the challenger was.
        standard_error: of the gain.
    """

    finished_ms: int
    duration_s: float
    success_ms: int | None
    error: str | None
    version: str | None = None
    promoted: bool = False
    rule: str | None = None
    reason: str | None = None
    candles: int | None = None
    challenger_ratio: float | None = None
    champion_ratio: float | None = None
    gain: float | None = None
    standard_error: float | None = None

    def write(self, folder: Path) -> None:
        """Replace ``retrain.json`` in a folder atomically."""
        text = json.dumps({"schema": _SCHEMA, **asdict(self)}, indent=1, allow_nan=False) + "\n"
        new = folder / f".{STATUS}.new"
        write_synced(new, text.encode())
        new.chmod(0o644)
        new.replace(folder / STATUS)
        sync_folder(folder)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read ``retrain.json``; None if it is missing or has another form."""
        try:
            return cls._of(parse_object(read_limited(folder / STATUS, _MAX_BYTES), STATUS))
        except BundleError:
            return None

    @classmethod
    def _of(cls, raw: dict[str, Any]) -> Self:
        as_object(raw, STATUS, ("schema", *(field.name for field in fields(cls))))
        return cls(
            finished_ms=as_integer(raw["finished_ms"], STATUS),
            duration_s=as_number(raw["duration_s"], STATUS),
            success_ms=_integer(raw["success_ms"]),
            error=_text(raw["error"]),
            version=_text(raw["version"]),
            promoted=raw["promoted"] is True,
            rule=_text(raw["rule"]),
            reason=_text(raw["reason"]),
            candles=_integer(raw["candles"]),
            challenger_ratio=_number(raw["challenger_ratio"]),
            champion_ratio=_number(raw["champion_ratio"]),
            gain=_number(raw["gain"]),
            standard_error=_number(raw["standard_error"]),
        )


def _integer(value: object) -> int | None:
    return None if value is None else as_integer(value, STATUS)


def _number(value: object) -> float | None:
    return None if value is None else as_number(value, STATUS)


def _text(value: object) -> str | None:
    return None if value is None else as_text(value, STATUS)
