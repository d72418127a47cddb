"""Find the files that a configuration names, and read secrets from them."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from model.core.errors import ConfigError

SYSTEM: Final = "system"
"""In place of a file of certificates: the machine's own authorities."""

_MAX_SECRET_BYTES: Final = 64 << 10


def finder(beside: Path, environ: Mapping[str, str]) -> Callable[[str], Path]:
    """Return a function from the name of a file to its path, for any working directory.

    Args:
        beside: absolute folder of the configuration file.
        environ: ``$CREDENTIALS_DIRECTORY``, which systemd sets, is searched before that folder.
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
    """Replace the value of every setting that ends in ``_file`` by its path."""
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
    """Check that a folder exists or can be created, as far as this user can see.

    Args:
        path: the folder.
        setting: its dotted name, for the error.

    Raises:
        ConfigError: a file is in its place or above it, or the name is invalid.
    """
    for place in (path, *path.absolute().parents):
        try:
            found = place.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            # The daemon often runs as another user, who may see more.
            return
        except OSError as error:
            msg = f"{setting}: cannot use {path}: {error.strerror}"
            raise ConfigError(msg) from None
        if not stat.S_ISDIR(found.st_mode):
            msg = f"{setting}: {place} is a file; name a folder"
            raise ConfigError(msg)
        return


def read_secret(path: Path, setting: str) -> str:
    """Read a secret from a file. Errors name the file and never contain the secret.

    Args:
        path: contains the secret and optionally a line end.
        setting: its dotted name, for the error.

    Raises:
        ConfigError: the file cannot be read, is empty, too large or no text.
    """
    try:
        with path.open("rb") as file:
            secret = file.read(_MAX_SECRET_BYTES + 1)
        text = secret.decode().rstrip("\r\n")
    except OSError as error:
        reason = str(error.strerror)
    except UnicodeDecodeError:
        reason = "not UTF-8 text"
    else:
        if text and len(secret) <= _MAX_SECRET_BYTES:
            return text
        reason = "it is too large" if text else "it is empty"
    msg = f"{setting}: cannot read {path}: {reason}"
    raise ConfigError(msg)
