"""A wish for a retrain before its hour, left in the state folder: the job takes it away."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from model.files.atomic import write_synced

if TYPE_CHECKING:
    from pathlib import Path

REQUEST: Final = "retrain.request"


class RetrainRequest(NamedTuple):
    """Why somebody wishes for a retrain.

    Attributes:
        at_ms: since when, Unix milliseconds.
        reason: for people.
    """

    at_ms: int
    reason: str

    def write(self, state: Path) -> None:
        """Leave it in the state folder; one that waits there already is replaced."""
        draft = state / f".{REQUEST}"
        write_synced(draft, f"{json.dumps(self._asdict())}\n".encode())
        draft.rename(state / REQUEST)


def take_request(state: Path) -> None:
    """The job begins: whatever was wished for is under way."""
    (state / REQUEST).unlink(missing_ok=True)
