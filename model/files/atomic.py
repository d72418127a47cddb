"""Write files durably and read untrusted files within limits.

Written by hand: neither the standard library nor a package of the lock file syncs a file and its
folder, or refuses links and pipes when reading.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from model.files.strict_json import fail


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until its content is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_limited(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of at most ``max_bytes`` bytes.

    Raises:
        BundleError: it is missing, larger, a link or not a regular file.
    """
    try:
        # Without O_NONBLOCK a named pipe would block here; it is refused below.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        fail(str(path), f"cannot be read: {error.strerror}")
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            fail(str(path), "is not a regular file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    finally:
        os.close(handle)
    if len(data) > max_bytes:
        fail(str(path), f"has more than {max_bytes} bytes")
    return data
