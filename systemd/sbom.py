"""Write a software bill of materials of what `make install` installs: CycloneDX 1.6, JSON.

Packages and versions come from requirements.lock beside this file. Licences and dependencies come
from the metadata of the installed packages. The same lock gives the same output.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK: Final = Path(__file__).with_name("requirements.lock")
_NAMESPACE: Final = uuid.UUID("6f1f3a52-5a4e-4f4a-9d53-0b1f6f1f7a10")
_MAX_LICENCE_CHARS: Final = 60
"""Some packages give the whole licence text in place of its name."""


def locked(text: str) -> Iterator[tuple[Requirement, list[str]]]:
    """Every requirement of a lock file, with the SHA-256 of each file that satisfies it."""
    for entry in text.replace("\\\n", " ").splitlines():
        line, *hashes = re.split(r"\s+--hash=sha256:", entry.strip())
        if line and not line.startswith("#"):
            yield Requirement(line.strip()), [digest.strip() for digest in hashes]


def licence_of(name: str) -> str | None:
    """A package's licence by its metadata; None if it is not installed or has no short licence."""
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    fields = about.json
    stated = [fields.get("license_expression"), fields.get("license")]
    classifiers = (text.rpartition(" :: ") for text in fields.get("classifier") or ())
    stated += [last for first, _, last in classifiers if first.startswith("License")]
    short = (str(text).strip() for text in stated if text)
    return next((text for text in short if 0 < len(text) <= _MAX_LICENCE_CHARS), None)


def needs_of(name: str, extras: tuple[str, ...] = ("",)) -> Iterator[str]:
    """The canonical names of the packages that a package requires on this machine."""
    try:
        stated = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    for requirement in map(Requirement, stated):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
            yield canonicalize_name(requirement.name)


def bill(lock: str) -> str:
    """The bill of materials for the text of a lock file."""
    licences = LicenseFactory()

    def component(name: str, version: str, kind: ComponentType) -> Component:
        licence = licence_of(name)
        return Component(
            name=name,
            version=version,
            type=kind,
            bom_ref=f"{name}@{version}",
            purl=PackageURL("pypi", name=name, version=version),
            licenses=[licences.make_from_string(licence)] if licence else (),
        )

    ours = component("candlecast", metadata.version("candlecast"), ComponentType.APPLICATION)
    bom = Bom(serial_number=uuid.uuid5(_NAMESPACE, lock))
    bom.metadata.component = ours
    found: dict[str, Component] = {"candlecast": ours}
    for requirement, hashes in locked(lock):
        name = str(canonicalize_name(requirement.name))
        (pinned,) = requirement.specifier
        part = found[name] = component(name, pinned.version, ComponentType.LIBRARY)
        part.hashes.update(HashType(alg=HashAlgorithm.SHA_256, content=h) for h in hashes)
        if requirement.marker:
            part.properties.add(Property(name="marker", value=str(requirement.marker)))
        bom.components.add(part)
    for name, part in found.items():
        extras = ("", "train") if part is ours else ("",)
        needed = [found[need] for need in needs_of(name, extras) if need in found]
        bom.register_dependency(part, needed)
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    # The time of writing would make every output different.
    del document["metadata"]["timestamp"]
    return json.dumps(document, indent=2) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(bill(LOCK.read_text(encoding="utf-8")), encoding="utf-8")
