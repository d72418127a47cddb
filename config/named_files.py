"""The files that a configuration names: where they are, and reading the secrets among them."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from model.core.errors import ConfigError

SYSTEM: Final = "system"
"""Where a file of certificates is asked for, this word stands for those of the machine."""

_LARGEST_SECRET: Final = 64 << 10


def finder(beside: Path, environ: Mapping[str, str]) -> Callable[[str], Path]:
    """How to find a named file, whatever the working directory is.

    Args:
        beside: folder of the configuration file; absolute.
        environ: ``$CREDENTIALS_DIRECTORY``, which systemd sets, goes before that folder.
    """
    credentials = environ.get("CREDENTIALS_DIRECTORY")

    def find(name: str) -> Path:
        if name == SYSTEM:
            return Path(name)
        if credentials and (Path(credentials) / name).is_file():
            return Path(credentials) / name
        return beside / name

    return find


def with_files_found(
    raw: Mapping[str, Any], model: type[BaseModel], find: Callable[[str], Path]
) -> dict[str, Any]:
    """The mapping, with the value of every setting that ends in ``_file`` replaced by its path."""
    found = dict(raw)
    for key, field in model.model_fields.items():
        value, inner = raw.get(key), field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            if isinstance(value, Mapping):
                found[key] = with_files_found(value, inner, find)
        elif key.endswith("_file") and isinstance(value, str):
            found[key] = str(find(value))
    return found


def check_folder(path: Path, setting: str) -> None:
    """Check that a folder is there or could be made, as far as that can be seen.

    Args:
        path: the folder.
        setting: its dotted name, for the error.

    Raises:
        ConfigError: there is a file in its place or above it, or it cannot have that name.
    """
    for place in (path, *path.absolute().parents):
        try:
            found = place.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            # Another user may see more; the daemon often runs as one.
            return
        except OSError as error:
            msg = f"{setting}: cannot use {path}: {error.strerror}"
            raise ConfigError(msg) from None
        if not stat.S_ISDIR(found.st_mode):
            msg = f"{setting}: {place} is a file; name a folder"
            raise ConfigError(msg)
        return


def read_secret(path: Path, setting: str) -> str:
    """The first thing a user asks of a secret is that it is never shown: only its file is named.

    Args:
        path: holds the secret and perhaps a line end.
        setting: its dotted name, for the error.

    Raises:
        ConfigError: the file cannot be read, is empty, too large or no text.
    """
    try:
        with path.open("rb") as file:
            secret = file.read(_LARGEST_SECRET + 1)
        text = secret.decode().rstrip("\r\n")
    except OSError as error:
        reason = str(error.strerror)
    except UnicodeDecodeError:
        reason = "not UTF-8 text"
    else:
        if text and len(secret) <= _LARGEST_SECRET:
            return text
        reason = "it is too large" if text else "it is empty"
    msg = f"{setting}: cannot read {path}: {reason}"
    raise ConfigError(msg)
