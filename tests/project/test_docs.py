"""Run the examples of the documentation and compare its generated parts with the code."""

from __future__ import annotations

import doctest
import importlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from config.settings import load
from daemon.cli.main import build_parser, main
from docs.render import rendered

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted([REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[Any]:
    return [
        pytest.param(found[2], id=f"{page.name}-{index}")
        for page in PAGES
        for index, found in enumerate(FENCE.finditer(page.read_text(encoding="utf-8")))
        if found[1] == language
    ]


def commands() -> Iterator[str]:
    for block in blocks("sh"):
        for line in block.values[0].splitlines():
            if command := line.partition("#")[0].strip():
                yield command


def inline_commands() -> Iterator[str]:
    for page in PAGES:
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        yield from re.findall(r"`((?:[A-Z_]+=\S+ )*candlecast [a-z-]+(?: -[^`]*)?)`", text)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_configuration_examples_load(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    load(path, {})


@pytest.mark.parametrize("text", blocks("json"))
def test_json_examples_follow_the_schema(text: str) -> None:
    validator(schema()).validate(json.loads(text))


@pytest.mark.parametrize("command", sorted({*commands(), *inline_commands()}))
def test_commands_exist(command: str) -> None:
    words = [word for word in shlex.split(command) if "=" not in word or word.startswith("-")]
    if words[0] == "make":
        makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE)
        return
    assert words[0] == "candlecast"
    build_parser().parse_args(words[1:])


def test_check_config_accepts_what_the_project_ships(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-config", "--config", str(repository / "config" / "config.yaml")]) == 0
    assert "1 symbol of binance at 1m" in capsys.readouterr().out


@pytest.mark.parametrize("path", rendered(), ids=lambda path: path.name)
def test_what_is_written_from_the_code_is_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == rendered()[path], "run: make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def modules_with_examples() -> list[str]:
    return sorted(
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for room in ("config", "daemon", "docs", "model")
        for path in (REPOSITORY / room).rglob("*.py")
        if ">>> " in path.read_text(encoding="utf-8")
    )


@pytest.mark.parametrize("name", modules_with_examples())
def test_docstring_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def schema() -> dict[str, Any]:
    path = REPOSITORY / "docs" / "prediction.schema.json"
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def validator(of: dict[str, Any]) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(of)


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "docs").glob("*.schema.json")), ids=lambda path: path.name
)
def test_schemas_are_schemas_and_their_examples_follow_them(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(document)
    assert document["examples"]
    for example in document["examples"]:
        validator(document).validate(example)


def test_the_design_example_follows_the_schema(shared_dir: Path) -> None:
    text = (shared_dir / "design.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    prediction = json.loads(example.replace('"…"', f'"{"0" * 64}"'))
    validator(schema()).validate(prediction)
    assert list(prediction) == schema()["required"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), 2),
        (("symbol",), "BTCUSDT"),
        (("seq",), 1.5),
        (("last_close",), 0),
        (("late",), None),
        (("extra",), 1),
        (("interval",), {"level": 1, "lower": 1, "upper": 2}),
        (("probabilities", "short"), 1.1),
        (("window", "final_by"), "guess"),
        (("model", "sha256"), "abc"),
        (("latency_ms", "total"), 1),
        (("skill", "n"), 0),
        (("predicted_close",), None),
    ],
)
def test_the_schema_refuses(path: tuple[str, ...], value: object) -> None:
    document = schema()["examples"][0]
    target = document
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        validator(schema()).validate(document)
