"""Files that are whole after a crash, and files of others read with care."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from model.files.strict_json import fail


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the disk has the names in a folder."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_limited(path: Path, largest: int) -> bytes:
    """Read a regular file of at most ``largest`` bytes.

    Raises:
        BundleError: it is missing, larger, a link, or something that only looks like a file.
    """
    try:
        # A named pipe would block the opening; it is refused below like every other oddity.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        fail(str(path), f"cannot be read: {error.strerror}")
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            fail(str(path), "is not a regular file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(largest + 1)
    finally:
        os.close(handle)
    if len(data) > largest:
        fail(str(path), f"has more than {largest} bytes")
    return data
