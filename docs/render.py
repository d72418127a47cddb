"""What the documentation takes from the code: rooms, settings, metrics, exchanges, dashboard.

`make docs` runs it. A test compares the files with what this would write, so they cannot go stale.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import annotated_types
import yaml
from pydantic import BaseModel, SecretStr

from config.retired import RETIRED
from config.settings import Settings
from daemon.metrics.metrics import Metrics
from docs.exchange_table import exchanges
from docs.rooms_page import architecture
from monitoring import dashboard

if typing.TYPE_CHECKING:
    from pydantic.fields import FieldInfo

DOCS: Final = Path(__file__).resolve().parent
CONFIG: Final = DOCS.parent / "config" / "config.yaml"
_SIGNS: Final = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def reasons(text: str) -> dict[str, str]:
    r"""The comment above each key of the configuration file, by the key's path.

    >>> reasons("mqtt:\n  # Where it\n  # listens.\n  port: 1883  # 1 to 65535")
    {'mqtt.port': 'Where it listens.'}
    """
    found: dict[str, str] = {}
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        if remark := re.fullmatch(r"\s*# ?(.*)", line):
            comment.append(remark[1])
        elif key := re.match(r"( *)(\w+):", line):
            del path[len(key[1]) // 2 :]
            path.append(key[2])
            if comment:
                found[".".join(path)] = " ".join(comment).strip()
            comment = []
        else:
            comment = []
    return found


def leaves(section: type[BaseModel], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting that has a value, with the path of its key."""
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from leaves(inner, f"{path}{name}.")
        else:
            yield f"{path}{name}", field


def allowed(field: FieldInfo) -> str:
    """What a setting may be, in words."""
    limits = [
        f"{words} {getattr(rule, sign):,}"
        for rule in field.metadata
        if isinstance(rule, annotated_types.BaseMetadata)
        for sign, words in _SIGNS.items()
        if hasattr(rule, sign)
    ]
    return ", ".join([_kind(field.annotation), *limits])


def _kind(annotation: Any) -> str:  # noqa: ANN401 - an annotation can be anything
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(parts[0])
    if origin is typing.Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(_kind(part) for part in parts)
    if origin in {tuple, list}:
        return f"list of {_kind(parts[0])}"
    names: Mapping[Any, str] = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "`true` or `false`",
        Path: "path",
        SecretStr: "secret",
        type(None): "`null`",
    }
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, tuple):
        value = list(value)
    return yaml.safe_dump(value, default_flow_style=True, width=200).split("\n")[0]


def configuration() -> str:
    """docs/configuration.md."""
    words = reasons(CONFIG.read_text(encoding="utf-8"))
    lines = [
        "# Configuration",
        "",
        "Written by `make docs` from the settings and [config.yaml](../config/config.yaml).",
        "",
        "`--config PATH` names the file, by default `config/config.yaml`. A variable",
        "`CANDLECAST__SECTION__KEY` overrides a key. Unknown keys and impossible values are",
        "refused; `candlecast check-config` says what is wrong. Secrets never stand in the file.",
    ]
    section = ""
    for path, field in leaves(Settings):
        if path.partition(".")[0] != section:
            section = path.partition(".")[0]
            info = Settings.model_fields[section]
            lines += ["", f"## {section}", "", f"{_sentence(info.description or '')}"]
            if section in words:
                lines += ["", words[section]]
        text = words.get(path) or _sentence(field.description or "")
        lines += ["", f"**`{path}`** = `{_default(field)}` ({allowed(field)})  ", text]
    lines += [
        "",
        "## Settings of earlier versions",
        "",
        "These keys and their variables are ignored, with one warning that names them.",
        "",
        "| Setting | Now fixed |",
        "|---|---|",
        *(f"| `{section}.{key}` | {text} |" for (section, key), text in RETIRED.items()),
    ]
    return "\n".join(lines) + "\n"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def metrics() -> str:
    """docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Written by `make docs` from what the daemon declares. `/metrics` speaks Prometheus's text",
        "format and OpenMetrics; histograms are classic ones, times are seconds. Series per symbol",
        "exist for the first `metrics.max_symbols` symbols only, three at most for each.",
        "",
        "| Series | Kind | Labels | Meaning |",
        "|---|---|---|---|",
    ]
    for name, kind, labels, meaning in sorted(Metrics().declared):
        names = ", ".join(f"`{label}`" for label in labels)
        lines.append(f"| `{name}` | {kind} | {names} | {meaning} |")
    return "\n".join(lines) + "\n"


def rendered() -> dict[Path, str]:
    """Every file that is written, with its text."""
    return {
        DOCS / "architecture.md": architecture(),
        DOCS / "configuration.md": configuration(),
        DOCS / "metrics.md": metrics(),
        DOCS / "exchanges.md": exchanges(),
        dashboard.TARGET: dashboard.text(),
    }


if __name__ == "__main__":
    for path, text in rendered().items():
        path.write_text(text, encoding="utf-8")
