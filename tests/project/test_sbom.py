"""Check that the bill of materials is valid, complete and reproducible."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
import referencing.jsonschema

REPOSITORY = Path(__file__).resolve().parents[2]


def written(path: Path) -> str:
    script = REPOSITORY / "systemd" / "sbom.py"
    subprocess.run([sys.executable, str(script), str(path)], check=True, timeout=60)
    return path.read_text()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(tmp_path_factory.mktemp("sbom") / "sbom.json")


def schemas() -> dict[str, Any]:
    """The standard's own schemas, as its library brings them."""
    folder = resources.files("cyclonedx.schema") / "_res"
    return {
        file.name: json.loads(file.read_text())
        for file in folder.iterdir()
        if file.name.endswith(".schema.json")
    }


def test_it_is_valid_cyclonedx(text: str) -> None:
    known = schemas()
    bom = known["bom-1.6.SNAPSHOT.schema.json"]
    # They refer to each other by the names of their files.
    base = bom["$id"].rpartition("/")[0]
    registry: referencing.Registry[Any] = referencing.Registry().with_resources(
        (f"{base}/{name}", referencing.jsonschema.DRAFT7.create_resource(schema))
        for name, schema in known.items()
    )
    jsonschema.Draft7Validator(bom, registry=registry).validate(json.loads(text))


def test_it_names_what_is_installed_and_who_needs_it(text: str) -> None:
    bill = json.loads(text)
    lock = (REPOSITORY / "systemd" / "requirements.lock").read_text()
    pinned = set(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", lock, re.MULTILINE))
    assert {(part["name"], part["version"]) for part in bill["components"]} == pinned
    assert bill["metadata"]["component"]["name"] == "candlecast"
    needs = {entry["ref"].partition("@")[0]: entry.get("dependsOn", []) for entry in
             bill["dependencies"]}  # fmt: skip
    direct = {ref.partition("@")[0] for ref in needs["candlecast"]}
    assert {"ccxt", "aiohttp", "onnxruntime", "uvloop", "tensorflow", "keras"} <= direct
    assert "multidict" in {ref.partition("@")[0] for ref in needs["aiohttp"]}
    hashed = [part for part in bill["components"] if part.get("hashes")]
    assert len(hashed) == len(pinned)
    licensed = [part for part in bill["components"] if part.get("licenses")]
    assert len(licensed) > 0.8 * len(pinned)


def test_the_same_lock_gives_the_same_bill(text: str, tmp_path: Path) -> None:
    assert written(tmp_path / "again.json") == text
