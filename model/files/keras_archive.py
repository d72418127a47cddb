"""Check that a `.keras` file holds only plain layers before Keras opens it.

A `.keras` file is a ZIP archive whose `config.json` names the classes and functions to rebuild.
Keras's own safe mode has been bypassed more than once, so every name must be on a list here.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import IO, Any, Final, NoReturn

_ALLOWED_MEMBERS: Final = {"metadata.json", "config.json", "model.weights.h5"}
_MAX_CONFIG_BYTES: Final = 1 << 20
_ALLOWED_CLASSES: Final = {
    ("keras", "Sequential"),
    ("keras", "DTypePolicy"),
    ("keras.layers", "InputLayer"),
    ("keras.layers", "LSTM"),
    ("keras.layers", "Dropout"),
    ("keras.layers", "Dense"),
    ("keras.optimizers", "Adam"),
    ("keras.initializers", "GlorotUniform"),
    ("keras.initializers", "Orthogonal"),
    ("keras.initializers", "Zeros"),
    ("builtins", "function"),
}
_ALLOWED_FUNCTIONS: Final = {
    "mse",
    "mae",
    "mean_squared_error",
    "mean_absolute_error",
    "huber",
    "logcosh",
}


def check_keras_file(path: Path) -> None:
    """Raise an error unless a file is a plain `.keras` file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another format, a corrupt file, or one that names other classes.
    """
    if not path.is_file():
        msg = f"no model file at {path}"
        raise FileNotFoundError(msg)
    if path.suffix != ".keras":
        msg = f"{path} is not a .keras file; other formats can carry code and are not opened"
        raise ValueError(msg)
    check_keras_content(path, str(path))


def check_keras_content(content: Path | IO[bytes], where: str) -> None:
    """Check the content of a `.keras` file.

    Args:
        content: an existing file, or its bytes.
        where: its name in messages.

    Raises:
        ValueError: a corrupt file, or one that names other classes than plain layers.
    """
    try:
        with zipfile.ZipFile(content) as archive:
            members = {info.filename: info.file_size for info in archive.infolist()}
            if set(members) != _ALLOWED_MEMBERS or members["config.json"] > _MAX_CONFIG_BYTES:
                _refuse(f"it must hold {', '.join(sorted(_ALLOWED_MEMBERS))} and nothing else")
            _check_config(json.loads(archive.read("config.json")))
    # A hostile archive can raise any error.
    except Exception as error:  # noqa: BLE001
        msg = f"{where} is corrupt or not a model of plain layers: {error}"
        raise ValueError(msg) from None


def _refuse(why: str) -> NoReturn:
    raise ValueError(why)


def _check_config(node: object) -> None:
    if isinstance(node, list):
        for item in node:
            _check_config(item)
    elif isinstance(node, dict):
        if "class_name" in node:
            _check_class(node)
        for value in node.values():
            _check_config(value)


def _check_class(node: dict[str, Any]) -> None:
    named = (node.get("module"), node["class_name"])
    if named not in _ALLOWED_CLASSES or node.get("registered_name") not in (
        None,
        node["class_name"],
    ):
        _refuse(f"it names {named[0]}.{named[1]}")
    if named == ("builtins", "function") and node.get("config") not in _ALLOWED_FUNCTIONS:
        _refuse(f"it names the function {node.get('config')!r}")
