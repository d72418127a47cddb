"""Read a YAML mapping, apply environment variables to it and explain validation errors."""

from __future__ import annotations

import difflib
import re
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, SecretStr, ValidationError

from config.retired import RETIRED
from model.core.errors import ConfigError

if typing.TYPE_CHECKING:
    from pydantic_core import ErrorDetails

PREFIX: Final = "CANDLECAST__"
_ALTERNATIVES: Final = {("trading", "symbol"): "symbols", ("trading", "symbols"): "symbol"}
"""Two names of one setting: that of the environment replaces that of the file."""

_MAX_SHOWN_CHARS: Final = 60
_MAX_FILE_BYTES: Final = 1 << 20


class _Loader(yaml.SafeLoader):
    """A safe YAML loader that refuses a repeated key and reads 1e-3 as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        """Build a mapping; PyYAML would silently use the last value of a repeated key."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                problem = "a key must be text"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            if key.value in seen:
                problem = f"key {key.value!r} is written twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read one YAML mapping.

    Raises:
        ConfigError: the file is missing, unreadable, invalid (with line and column) or no mapping.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        example = Path(__file__).with_name("config.yaml")
        msg = f"{path}: no such file; name one with --config, or copy {example} there"
        raise ConfigError(msg) from None
    except OSError as error:
        msg = f"{path}: cannot read it: {error.strerror}"
        raise ConfigError(msg) from None
    if len(text) > _MAX_FILE_BYTES:
        msg = f"{path}: has more than {_MAX_FILE_BYTES} bytes, which no configuration needs"
        raise ConfigError(msg)
    loaded = _parsed(path, text)
    if loaded is None:
        return {}
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        msg = f"{path}: must be a mapping of sections such as exchange: and trading:"
        raise ConfigError(msg)
    return loaded


def _parsed(path: Path, text: bytes) -> object:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        msg = f"{path}: {where}not valid YAML: {error.problem or error.context}"
        raise ConfigError(msg) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        msg = f"{path}: not valid YAML: {' '.join(str(error).split())[:200]}"
        raise ConfigError(msg) from None


def overlay(
    raw: dict[str, Any], model: type[BaseModel], environ: Mapping[str, str]
) -> dict[str, Any]:
    """Override values of a mapping by ``CANDLECAST__SECTION__KEY`` variables.

    Values of text settings are used as they are, others are read as YAML; a list is written
    ``[64, 32]``. Variables that name a retired setting are skipped.

    Raises:
        ConfigError: a variable names no setting, or its value is not valid YAML.
    """
    result = dict(raw)
    for name, path in _variables(environ):
        if path in RETIRED:
            continue
        annotation = _annotation(model, path)
        if annotation is None:
            hint = _hint(path[-1], _siblings(model, path))
            msg = f"{name}: there is no setting {'.'.join(path)}{hint}"
            raise ConfigError(msg)
        target = result
        for key in path[:-1]:
            inner = target.get(key)
            target[key] = dict(inner) if isinstance(inner, dict) else {}
            target = target[key]
        target.pop(_ALTERNATIVES.get((path[0], path[-1]), ""), None)
        target[path[-1]] = _value(name, environ[name], annotation)
    return result


def retired_variables(environ: Mapping[str, str]) -> list[str]:
    """The names of the variables that set a retired setting."""
    return [name for name, path in _variables(environ) if path in RETIRED]


def explain(
    error: ValidationError, model: type[BaseModel], file: Path, environ: Mapping[str, str]
) -> str:
    """One line per error: file or variable, path of the key, value, allowed values."""
    names = {path: name for name, path in _variables(environ)}
    lines: list[str] = []
    findings = error.errors(include_url=False)
    places = [finding["loc"] for finding in findings]
    for finding in findings:
        loc = finding["loc"]
        # A list whose only item is refused is also reported as empty; the item's error is enough.
        if any(len(other) > len(loc) and other[: len(loc)] == loc for other in places):
            continue
        path = tuple(str(part) for part in loc)
        source = next((names[path[:n]] for n in range(len(path), 0, -1) if path[:n] in names), file)
        line = f"{source}: {_dotted(loc)}: {_complaint(finding, model)}"
        if line not in lines:
            lines.append(line)
    return "\n".join(lines)


def _variables(environ: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name in sorted(environ):
        if name.upper().startswith(PREFIX):
            yield name, tuple(name[len(PREFIX) :].lower().split("__"))


def _value(name: str, text: str, annotation: object) -> object:
    if _is_text(annotation):
        return text
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError):
        msg = f"{name}: not a valid value; lists are written [BTC/USDT, ETH/USDT]"
        raise ConfigError(msg) from None


def _is_text(annotation: object) -> bool:
    if typing.get_origin(annotation) is typing.Literal:
        return True
    if typing.get_origin(annotation) in {typing.Annotated, typing.Union, types.UnionType}:
        return any(_is_text(part) for part in typing.get_args(annotation))
    return annotation in {str, Path, SecretStr}


def _annotation(model: type[BaseModel], path: tuple[str, ...]) -> object:
    """The type of a setting; None if it does not exist or is a section."""
    if path == ("trading", "symbol"):
        return str
    annotation: object = model
    for key in path:
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        field = annotation.model_fields.get(key)
        annotation = field.annotation if field else None
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return None if is_section else annotation


def _siblings(model: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    """The valid keys in the section of ``path``."""
    here = model
    for key in path[:-1]:
        field = here.model_fields.get(key)
        if field is None or not isinstance(field.annotation, type):
            return []
        if not issubclass(field.annotation, BaseModel):
            return []
        here = field.annotation
    return list(here.model_fields)


def _hint(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known here: {', '.join(known)}" if known else ""


def _dotted(loc: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.lstrip(".")


def _complaint(finding: ErrorDetails, model: type[BaseModel]) -> str:
    kind, context = finding["type"], finding.get("ctx", {})
    if kind == "extra_forbidden":
        # The value is not shown: it may be that of a misspelt `password`.
        path = tuple(str(part) for part in finding["loc"])
        known = _siblings(model, path)
        # A key with a `_file` variant is a secret, which is refused in the configuration.
        return f"unknown key{_hint(path[-1], [k for k in known if f'{k}_file' not in known])}"
    if kind in {"model_type", "model_attributes_type"}:
        return "must be a section with keys of its own"
    sentences = {
        "value_error": "{error}",
        "tuple_type": "must be a list, in brackets",
        "too_short": "must have at least {min_length} item",
        "literal_error": "is not allowed; allowed: {expected}",
        "string_pattern_mismatch": "is not of the form "
        + _FORMS.get(str(context.get("pattern")), ""),
    }
    plain = finding["msg"].replace("Input should", "must")
    text = sentences[kind].format(**context) if kind in sentences else plain
    return f"{_shown(finding['input'])}{text[0].lower()}{text[1:]}"


_FORMS: Final = {
    r"^[A-Za-z0-9._-]{1,253}$": "of a host name, without scheme and port",
    r"^[a-z0-9_]+$": "of a ccxt exchange id (lower-case letters and digits)",
    r"^[^\s/:+#\x00]+/[^\s/:+#\x00]+(:[^\s/:+#\x00]+)?$": "BASE/QUOTE or BASE/QUOTE:SETTLE",
}


# YAML's aliases can make lists that are endless when written out in full. Texts are not cut here,
# because the pattern that hides a password in an address would not match a cut one.
_BRIEF: Final = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 100_000


def _shown(value: object) -> str:
    """The refused value; empty for sections, which may contain a secret."""
    if isinstance(value, (dict, BaseModel, SecretStr)):
        return ""
    text = re.sub(r"//[^/@]*@", "//***@", _BRIEF.repr(value))
    return f"{text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + '…'} "
