"""Define which room may import which, and read the imports that there are.

A room is a package of one purpose, or a module that stands alone beside such packages.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("config", "daemon", "model")

ALLOWED_TEXT: Final = """
model/core:
model/stats:
daemon/candles:
    model/core
daemon/runtime:
    model/core
model/files:
    model/core
model/inference:
    model/core
daemon/sandbox:
    daemon/runtime model/core model/files
model/features:
    model/core model/files
model/forecasts:
    model/core model/files model/stats
model/shared_state:
    model/core model/files model/stats
config:
    model/core model/features
model/history:
    model/core model/forecasts
model/registry:
    model/core model/features model/files model/forecasts model/inference model/stats
daemon/scoring:
    model/core model/forecasts model/history
model/evaluation:
    model/core model/features model/forecasts model/inference model/registry model/stats
model/reference_config:
    config model/core
model/serving:
    model/core model/features model/forecasts model/inference model/registry
model/serving_check:
    model/serving
daemon/metrics:
    daemon/candles daemon/runtime daemon/scoring model/core model/forecasts model/shared_state
model/preprocess:
    model/core model/features model/reference_config
model/replay:
    model/core model/features model/forecasts model/history model/inference model/registry
    model/serving
daemon/exchange:
    daemon/candles daemon/metrics daemon/runtime model/core
daemon/mqtt:
    daemon/metrics daemon/runtime model/core
daemon/persistence:
    daemon/candles daemon/metrics daemon/runtime model/core model/files model/forecasts
    model/history model/serving
model/training:
    model/core model/features model/files model/inference model/preprocess
daemon/feed:
    daemon/candles daemon/exchange daemon/metrics daemon/runtime model/core
daemon/forecast:
    daemon/candles daemon/metrics daemon/mqtt daemon/persistence daemon/runtime daemon/scoring
    model/core model/forecasts model/history model/serving model/serving_check
daemon/watch:
    daemon/mqtt daemon/runtime model/core
model/lstm_model:
    model/features model/files model/inference model/preprocess model/reference_config
    model/stats model/training
daemon/web:
    daemon/candles daemon/forecast daemon/metrics daemon/persistence daemon/runtime model/core
    model/forecasts model/history
model/train_lstm:
    model/core model/features model/files model/forecasts model/inference model/lstm_model
    model/preprocess model/reference_config model/stats model/training
daemon/control:
    daemon/candles daemon/feed daemon/forecast daemon/metrics daemon/mqtt daemon/persistence
    daemon/runtime daemon/scoring daemon/web model/core model/features model/files
    model/forecasts model/inference model/registry model/serving model/serving_check
    model/shared_state model/stats
model/retraining:
    model/core model/evaluation model/forecasts model/inference model/registry model/stats
    model/train_lstm model/training
daemon/doctor:
    daemon/control daemon/exchange daemon/feed daemon/metrics daemon/mqtt daemon/runtime
    daemon/watch model/core
daemon/factories:
    config daemon/control daemon/mqtt daemon/runtime daemon/web model/features model/forecasts
    model/stats
daemon/jobs:
    daemon/candles daemon/exchange daemon/runtime model/core model/evaluation model/files
    model/forecasts model/history model/registry model/retraining model/shared_state model/stats
    model/training
daemon/components:
    config daemon/candles daemon/control daemon/exchange daemon/factories daemon/feed
    daemon/forecast daemon/metrics daemon/mqtt daemon/persistence daemon/runtime daemon/scoring
    daemon/web model/core model/forecasts model/history model/registry model/shared_state
daemon/app:
    config daemon/components daemon/control daemon/factories daemon/forecast daemon/runtime
    daemon/web model/core model/history model/registry model/serving_check
daemon/cli:
    config daemon/app daemon/control daemon/doctor daemon/exchange daemon/factories daemon/jobs
    daemon/runtime daemon/sandbox daemon/watch model/core model/files model/forecasts
    model/history model/registry model/replay model/retraining model/train_lstm model/training
daemon/__main__:
    daemon/cli
"""


def _parse(text: str) -> dict[str, frozenset[str]]:
    """Rooms by name: a line with a colon names one, the lines below what it may import."""
    allowed: dict[str, frozenset[str]] = {}
    room = ""
    for line in text.strip().splitlines():
        if line.endswith(":"):
            room = line.removesuffix(":")
            allowed[room] = frozenset()
        else:
            allowed[room] |= set(line.split())
    return allowed


ALLOWED: Final = _parse(ALLOWED_TEXT)
"""The rooms that each room may import; those that need least come first."""


def sources() -> list[Path]:
    """Every Python file of the installed packages."""
    return sorted(path for name in PACKAGES for path in (REPOSITORY / name).rglob("*.py"))


def _module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES: Final = {_module_name(path): path for path in sources()}
"""The file of each module, by its dotted name."""


def room_of(path: Path) -> str:
    """The room of a file: the folder below `daemon` or `model`, or the module itself.

    Args:
        path: a file of one of the packages.
    """
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    if parts[0] == "config":
        return "config"
    return "/".join(parts[:2])


def imports(path: Path, *, at_run_time: bool = False, top_level: bool = False) -> Iterator[str]:
    """Full names of what a file imports.

    Args:
        path: the file.
        at_run_time: leave out what only type checkers import.
        top_level: only what is imported together with the module.
    """
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if top_level and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if at_run_time and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        pending += ast.iter_child_nodes(node)


def imported_files(path: Path) -> set[Path]:
    """The files of the packages that a file imports."""
    # A name is a module, or something that a module defines.
    found = {
        MODULES.get(name) or MODULES.get(name.rpartition(".")[0], path) for name in imports(path)
    }
    return found - {path}


def direct(room: str) -> list[str]:
    """The rooms right below a room: the allowed ones that no other allowed one may import."""
    below = ALLOWED[room]
    return sorted(name for name in below if not any(name in ALLOWED[other] for other in below))
