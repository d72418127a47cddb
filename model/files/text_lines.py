"""Read the lines of a text file in any common encoding, compressed or not, within limits."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_CHARS: Final = 2 << 30
"""Characters of a file; about twenty million candles."""

_MAX_LINE_CHARS: Final = 1 << 16
_ENCODINGS: Final = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@contextmanager
def opened_lines(path: Path) -> Iterator[Iterator[str]]:
    """Open a plain file, or one compressed by gzip, bzip2, xz or as the only file of a zip archive.

    Invalid characters are replaced, because only the numbers of a file matter, not its titles.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: the fault in one sentence; also raised while reading.
    """
    with ExitStack() as stack:
        raw = stack.enter_context(path.open("rb"))
        try:
            plain = stack.enter_context(_unpacked(raw, stack))
            encoding = _ENCODINGS.get(plain.peek(2)[:2], "utf-8-sig")
            text = io.TextIOWrapper(plain, encoding, errors="replace")
            yield _lines(stack.enter_context(text))
        except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:
            msg = f"it cannot be unpacked: {error}"
            raise ValueError(msg) from None


def _unpacked(raw: io.BufferedReader, stack: ExitStack) -> Any:  # noqa: ANN401 - four classes that share `read` and `peek`
    start = raw.peek(6)
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(raw)
    if start.startswith(b"BZh"):
        return bz2.open(raw)
    if start.startswith(b"\xfd7zXZ\x00"):
        return lzma.open(raw)
    if start.startswith(b"PK\x03\x04"):
        archive = stack.enter_context(zipfile.ZipFile(raw))
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            msg = f"the archive holds {len(names)} files, not one; unpack it or save it as CSV"
            raise ValueError(msg)
        return archive.open(names[0])
    return raw


def _lines(file: io.TextIOWrapper) -> Iterator[str]:
    read = 0
    while line := file.readline(_MAX_LINE_CHARS):
        read += len(line)
        if read > MAX_CHARS:
            msg = f"it has more than {MAX_CHARS >> 20} MiB; use fewer candles"
            raise ValueError(msg)
        if len(line) == _MAX_LINE_CHARS:
            msg = f"it has a line of more than {_MAX_LINE_CHARS:,} characters"
            raise ValueError(msg)
        yield line
