"""Write and clear a request for a retrain outside the schedule."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from model.files.atomic import write_synced

if TYPE_CHECKING:
    from pathlib import Path

REQUEST: Final = "retrain.request"


class RetrainRequest(NamedTuple):
    """A request for a retrain.

    Attributes:
        at_ms: time of the request, Unix milliseconds.
        reason: shown in logs.
    """

    at_ms: int
    reason: str

    def write(self, state: Path) -> None:
        """Write the request to the state folder; it replaces an earlier one."""
        new = state / f".{REQUEST}"
        write_synced(new, f"{json.dumps(self._asdict())}\n".encode())
        new.rename(state / REQUEST)


def clear_request(state: Path) -> None:
    """Delete the request; the job calls this when it starts."""
    (state / REQUEST).unlink(missing_ok=True)
