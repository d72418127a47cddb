"""Store model bundles on disk, verify them and promote one to champion.

    root/20261123T020000Z-3f9a1c/    model.keras  prefix.onnx  step.onnx  scaler.json
                                     calibration.json  manifest.json
    root/champion                    the version that is served
    root/previous                    the one before it, for `Registry.rollback`
    root/decisions.jsonl             decisions about models, with their authors and reasons
    root/reports/                    one page per challenger

A bundle appears by renaming a complete, synced folder and a pointer by renaming a synced file, so a
crash at any point leaves the old state or the new one. A version never changes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from model.core.errors import BundleError, NoChampion, Overtaken
from model.files.atomic import read_limited, sync_folder, write_synced
from model.files.strict_json import fail
from model.registry.bundle import Bundle, BundleParts, open_bundle, pack
from model.registry.decisions import DECISIONS, DecisionEntry, decisions_with, read_decisions
from model.registry.manifest import MANIFEST, VERSION, Manifest, check_fit

__all__ = ["Bundle", "BundleParts", "Manifest", "Registry", "check_fit"]

Pointer = Literal["champion", "previous"]

_MAX_POINTER_BYTES: Final = 100
_UNFINISHED: Final = ".unfinished-"


class Registry:
    """The bundles below one folder, which is created when the first one is written.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root: Final = root

    def write(self, parts: BundleParts) -> str:
        """Add a bundle; it is not served before it is promoted.

        Returns:
            Its version. The same parts give the same version again and change nothing.

        Raises:
            BundleError: parts that `open` would refuse.
        """
        manifest, files = pack(parts)
        with self._exclusive():
            target = self.root / manifest.version
            if not target.exists():
                folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self.root))
                for name, data in (*files.items(), (MANIFEST, manifest.to_json().encode())):
                    write_synced(folder / name, data)
                open_bundle(folder, manifest.version)
                folder.chmod(0o755)
                sync_folder(folder)
                folder.rename(target)
                sync_folder(self.root)
        return manifest.version

    def list(self) -> list[str]:
        """List every version, oldest first, without verifying them."""
        if not self.root.is_dir():
            return []
        return sorted(entry.name for entry in self.root.iterdir() if VERSION.fullmatch(entry.name))

    def open(self, version: str) -> Bundle:
        """Verify a bundle and read what serving needs.

        Every file is read once and its hash is checked before it is parsed.

        Raises:
            BundleError: no such version, or a file is missing, new or changed.
        """
        if not VERSION.fullmatch(version):
            msg = f"{ascii(version)[:80]} is not a version of a model"
            raise BundleError(msg)
        return open_bundle(self.root / version, version)

    def champion(self) -> str:
        """The version to serve.

        Raises:
            NoChampion: nothing has been promoted yet.
            BundleError: the pointer is damaged.
        """
        version = self._read("champion")
        if version is None:
            msg = f"no model has been promoted in {self.root}: train one with --promote"
            raise NoChampion(msg)
        return version

    def previous(self) -> str | None:
        """The version that `rollback` would serve; None if there is none.

        Raises:
            BundleError: the pointer is damaged.
        """
        version = self._read("previous")
        return None if version == self._read_if_valid("champion") else version

    def promote(self, version: str) -> None:
        """Serve a version from now on; the champion before becomes ``previous``.

        This also repairs a damaged pointer.

        Raises:
            BundleError: the version does not verify; nothing has changed.
        """
        with self._exclusive():
            self.open(version)
            self._set_champion(version)

    def apply_decision(self, entry: DecisionEntry) -> None:
        """Record a decision of the gate and promote the version if that was decided.

        Raises:
            Overtaken: the champion is not the one of the decision; nothing has changed.
            BundleError: the version does not verify; nothing has changed.
        """
        with self._exclusive():
            champion = self._read("champion")
            if champion != entry.champion:
                msg = f"{champion} became champion while {entry.version} was judged"
                raise Overtaken(msg)
            if entry.action == "promote":
                self.open(entry.version)
            # Recorded first: after a crash before the promotion, the next run repeats it.
            self._append_decision(entry)
            if entry.action == "promote":
                self._set_champion(entry.version)

    def rollback(self) -> str:
        """Serve the previous version again; champion and previous are swapped.

        Returns:
            The version that is champion now.

        Raises:
            BundleError: there is no previous version, or it does not verify; nothing has changed.
        """
        previous = self.previous()
        if previous is None:
            msg = f"there is no previous model in {self.root} to roll back to"
            raise BundleError(msg)
        self.promote(previous)
        return previous

    def record_decision(self, entry: DecisionEntry) -> None:
        """Record the decision of a person."""
        with self._exclusive():
            self._append_decision(entry)

    def decisions(self) -> Sequence[DecisionEntry]:
        """Read the recorded decisions, oldest first.

        Raises:
            BundleError: the file cannot be read.
        """
        return read_decisions(self.root)

    def report(self, version: str) -> Path:
        """Path of the report about a version, which may not exist; its plot has the suffix .png."""
        return self.root / "reports" / f"{version}.md"

    def prune(self, keep: int, protected: str | None = None) -> tuple[str, ...]:
        """Delete all but the newest ``keep`` versions, never the champion or the previous one.

        Args:
            keep: how many.
            protected: a version that stays, however old.

        Returns:
            The deleted versions.
        """
        with self._exclusive():
            kept = {self._read("champion"), self._read("previous"), protected}
            versions = self.list()
            old = versions[: max(0, len(versions) - keep)]
            deleted = tuple(version for version in old if version not in kept)
            for version in deleted:
                # Renamed first: a partly deleted folder must not look like a version.
                leftover = self.root / f"{_UNFINISHED}{version}"
                (self.root / version).rename(leftover)
                shutil.rmtree(leftover)
                for suffix in (".md", ".png"):
                    self.report(version).with_suffix(suffix).unlink(missing_ok=True)
        return deleted

    def _set_champion(self, version: str) -> None:
        before = self._read_if_valid("champion")
        if before == version:
            return
        # A crash between the two leaves the old champion and no version to roll back to.
        if before is not None:
            self._write_pointer("previous", before)
        self._write_pointer("champion", version)

    def _append_decision(self, entry: DecisionEntry) -> None:
        self._replace(self.root / DECISIONS, decisions_with(self.root, entry))

    def _read(self, pointer: Pointer) -> str | None:
        path = self.root / pointer
        if not path.exists() and not path.is_symlink():
            return None
        text = read_limited(path, _MAX_POINTER_BYTES).decode("ascii", "replace").strip()
        if not VERSION.fullmatch(text):
            fail(str(path), f"holds {ascii(text)[:80]} instead of a version")
        return text

    def _read_if_valid(self, pointer: Pointer) -> str | None:
        """Read a pointer; None if it is damaged."""
        try:
            return self._read(pointer)
        except BundleError:
            return None

    def _write_pointer(self, pointer: Pointer, version: str) -> None:
        self._replace(self.root / pointer, f"{version}\n".encode())

    def _replace(self, path: Path, data: bytes) -> None:
        handle, name = tempfile.mkstemp(prefix=_UNFINISHED, dir=self.root)
        os.close(handle)
        Path(name).chmod(0o644)
        write_synced(Path(name), data)
        Path(name).rename(path)
        sync_folder(self.root)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Lock the registry and delete what a killed writer left.

        Raises:
            BundleError: the folder cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with (self.root / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                for leftover in self.root.glob(f"{_UNFINISHED}*"):
                    if leftover.is_dir() and not leftover.is_symlink():
                        shutil.rmtree(leftover)
                    else:
                        leftover.unlink()
                yield
        except OSError as error:
            msg = f"{self.root} cannot be written: {error.strerror}"
            raise BundleError(msg) from error
