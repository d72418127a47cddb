"""Store model bundles on disk, verify them and promote one to champion.

    root/20261123T020000Z-3f9a1c/    model.keras  prefix.onnx  step.onnx  scaler.json
                                     calibration.json  manifest.json
    root/champion                    the version that is served
    root/previous                    the one before it, for `Registry.rollback`
    root/decisions.jsonl             what was decided, by whom and why
    root/reports/                    how each challenger did, one page a version

A bundle appears by the rename of a finished, synced folder and a pointer by the rename of a synced
file, so a crash at any point leaves the old state or the new one. A version never changes.
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
from model.registry.decisions import DECISIONS, Entry, decisions_with, read_decisions
from model.registry.manifest import MANIFEST, VERSION, Manifest, check_fit

__all__ = ["Bundle", "BundleParts", "Manifest", "Registry", "check_fit"]

Pointer = Literal["champion", "previous"]

_LARGEST_POINTER: Final = 100
_UNFINISHED: Final = ".unfinished-"


class Registry:
    """The bundles below one folder, which is created when the first one is written.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root: Final = root

    def write(self, parts: BundleParts) -> str:
        """Add a bundle; it is served only once it is promoted.

        Returns:
            Its version. The same parts give the same version again and change nothing.

        Raises:
            BundleError: parts that `open` would refuse.
        """
        manifest, files = pack(parts)
        with self._alone():
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
        """Every version, oldest first; whether one can be opened is for `open` to say."""
        if not self.root.is_dir():
            return []
        return sorted(entry.name for entry in self.root.iterdir() if VERSION.fullmatch(entry.name))

    def open(self, version: str) -> Bundle:
        """Verify a bundle and read what serving needs.

        Every file is read once and its hash compared before anything looks into it.

        Raises:
            BundleError: no such version, or anything about it that is not as it was written.
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
        """The version `rollback` would serve, if there is one.

        Raises:
            BundleError: the pointer is damaged.
        """
        version = self._read("previous")
        return None if version == self._read_sound("champion") else version

    def promote(self, version: str) -> None:
        """Serve a version from now on; the champion before becomes ``previous``.

        This mends a damaged pointer too.

        Raises:
            BundleError: the version does not verify; nothing has changed.
        """
        with self._alone():
            self.open(version)
            self._crown(version)

    def conclude(self, entry: Entry) -> None:
        """Write down what a gate has decided and, where it says so, promote.

        Raises:
            Overtaken: the champion is none that the decision was made about; nothing has changed.
            BundleError: the version does not verify; nothing has changed.
        """
        with self._alone():
            champion = self._read("champion")
            if champion != entry.champion:
                msg = f"{champion} became champion while {entry.version} was judged"
                raise Overtaken(msg)
            if entry.action == "promote":
                self.open(entry.version)
            # Written down first: a crash before the promotion is made good by the next run.
            self._write_down(entry)
            if entry.action == "promote":
                self._crown(entry.version)

    def rollback(self) -> str:
        """Serve the previous version again; the two change places.

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

    def record(self, entry: Entry) -> None:
        """Write down what a person has done."""
        with self._alone():
            self._write_down(entry)

    def decisions(self) -> Sequence[Entry]:
        """What was decided, oldest first.

        Raises:
            BundleError: the file cannot be read.
        """
        return read_decisions(self.root)

    def report(self, version: str) -> Path:
        """Where the page about a version is, once there is one; its plot has the suffix .png."""
        return self.root / "reports" / f"{version}.md"

    def prune(self, keep: int, spared: str | None = None) -> tuple[str, ...]:
        """Delete all but the newest ``keep`` versions, never the champion or the previous one.

        Args:
            keep: how many.
            spared: a version that stays, however old.

        Returns:
            The versions that are gone.
        """
        with self._alone():
            safe = {self._read("champion"), self._read("previous"), spared}
            versions = self.list()
            old = versions[: max(0, len(versions) - keep)]
            gone = tuple(version for version in old if version not in safe)
            for version in gone:
                # Renamed first: what is half deleted must not look like a version.
                doomed = self.root / f"{_UNFINISHED}{version}"
                (self.root / version).rename(doomed)
                shutil.rmtree(doomed)
                for suffix in (".md", ".png"):
                    self.report(version).with_suffix(suffix).unlink(missing_ok=True)
        return gone

    def _crown(self, version: str) -> None:
        before = self._read_sound("champion")
        if before == version:
            return
        # A crash between the two leaves the old champion, and nothing to roll back to.
        if before is not None:
            self._point("previous", before)
        self._point("champion", version)

    def _write_down(self, entry: Entry) -> None:
        self._replace(self.root / DECISIONS, decisions_with(self.root, entry))

    def _read(self, pointer: Pointer) -> str | None:
        path = self.root / pointer
        if not path.exists() and not path.is_symlink():
            return None
        text = read_limited(path, _LARGEST_POINTER).decode("ascii", "replace").strip()
        if not VERSION.fullmatch(text):
            fail(str(path), f"holds {ascii(text)[:80]} instead of a version")
        return text

    def _read_sound(self, pointer: Pointer) -> str | None:
        """As `_read` does; a damaged one says nothing."""
        try:
            return self._read(pointer)
        except BundleError:
            return None

    def _point(self, pointer: Pointer, version: str) -> None:
        self._replace(self.root / pointer, f"{version}\n".encode())

    def _replace(self, path: Path, data: bytes) -> None:
        handle, name = tempfile.mkstemp(prefix=_UNFINISHED, dir=self.root)
        os.close(handle)
        Path(name).chmod(0o644)
        write_synced(Path(name), data)
        Path(name).rename(path)
        sync_folder(self.root)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other writers out, and sweep up what a killed one left.

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
