"""Look into a `.keras` file before Keras does: only plain layers may come out of it.

A `.keras` file is a ZIP whose `config.json` names the classes and functions to rebuild. Such names
have passed Keras's own safe mode more than once, so here every one of them has to be on a list.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import IO, Any, Final, NoReturn

_MEMBERS: Final = {"metadata.json", "config.json", "model.weights.h5"}
_MAX_CONFIG_BYTES: Final = 1 << 20
_CLASSES: Final = {
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
_FUNCTIONS: Final = {"mse", "mae", "mean_squared_error", "mean_absolute_error", "huber", "logcosh"}


def check_keras_file(path: Path) -> None:
    """Refuse what is not a plain `.keras` file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another format, a corrupt file, or one that names anything but plain layers.
    """
    if not path.is_file():
        msg = f"no model file at {path}"
        raise FileNotFoundError(msg)
    if path.suffix != ".keras":
        msg = f"{path} is not a .keras file; other formats can carry code and are not opened"
        raise ValueError(msg)
    check_keras_content(path, str(path))


def check_keras_content(content: Path | IO[bytes], where: str) -> None:
    """The same for a file that is known to exist, or its bytes.

    Raises:
        ValueError: see `check_keras_file`; ``where`` is how it is called.
    """
    try:
        with zipfile.ZipFile(content) as archive:
            members = {info.filename: info.file_size for info in archive.infolist()}
            if set(members) != _MEMBERS or members["config.json"] > _MAX_CONFIG_BYTES:
                _refuse(f"it must hold {', '.join(sorted(_MEMBERS))} and nothing else")
            _check_config(json.loads(archive.read("config.json")))
    # A hostile archive fails in whatever way its contents lead to.
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
    if named not in _CLASSES or node.get("registered_name") not in (None, node["class_name"]):
        _refuse(f"it names {named[0]}.{named[1]}")
    if named == ("builtins", "function") and node.get("config") not in _FUNCTIONS:
        _refuse(f"it names the function {node.get('config')!r}")
