"""Draw the rooms of the source tree from the table of allowed imports."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

from tests.project.rooms import ALLOWED, REPOSITORY, direct

PAGE: Final = Path(__file__).resolve().parent / "architecture.md"
_SECTION: Final = re.compile(
    r"(<!-- rooms: written by make docs -->\n).*?(<!-- end of rooms -->)", re.DOTALL
)


def layers() -> list[list[str]]:
    """The rooms from the top layer to the bottom one: a room imports only layers below its own."""
    height: dict[str, int] = {}
    for room, below in ALLOWED.items():
        height[room] = 1 + max((height[other] for other in below), default=-1)
    top = max(height.values())
    return [[room for room in ALLOWED if height[room] == level] for level in range(top, -1, -1)]


def purpose(room: str) -> str:
    """The first line of a room's docstring.

    Args:
        room: a folder with an `__init__.py`, or a module without its suffix.
    """
    path = REPOSITORY / room
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").split("\n")[0]


def rooms() -> str:
    """The section: a drawing of the layers, and a table of purposes and direct imports."""
    drawing = "\n".join("   ".join(layer) for layer in layers())
    lines = [
        "",
        "```text",
        drawing,
        "```",
        "",
        "| Room | Purpose | Imports directly |",
        "|---|---|---|",
    ]
    for layer in layers():
        for room in layer:
            below = ", ".join(f"`{other}`" for other in direct(room))
            lines.append(f"| `{room}` | {purpose(room)} | {below} |")
    return "\n".join([*lines, ""]) + "\n"


def architecture() -> str:
    """The text of docs/architecture.md with the section of the rooms updated."""
    text = PAGE.read_text(encoding="utf-8")
    return _SECTION.sub(lambda found: found[1] + rooms() + found[2], text, count=1)
