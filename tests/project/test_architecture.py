"""Check the imports between rooms and other rules of the source tree."""

from __future__ import annotations

import ast
import collections
import graphlib
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.project.rooms import (
    ALLOWED,
    PACKAGES,
    REPOSITORY,
    imported_files,
    imports,
    room_of,
    sources,
)

ROOMS = PACKAGES
SOURCES = sources()
EVERY_PYTHON = sorted(
    path
    for folder in (*ROOMS, "tests", "examples", "benchmarks", "docs", "monitoring")
    for path in (REPOSITORY / folder).rglob("*.py")
)
EVERY_TEXT = sorted(
    path
    for path in REPOSITORY.rglob("*")
    if path.is_file()
    and path.suffix in {".py", ".md", ".yaml", ".yml", ".toml", ".json", ".service", ".timer"}
    and path.relative_to(REPOSITORY).parts[0]
    in {*ROOMS, "tests", "examples", "benchmarks", "docs", "monitoring", "systemd"}
) + [REPOSITORY / name for name in ("README.md", "CHANGELOG.md", "Makefile", "pyproject.toml")]

MAX_MODULES = 14
KERAS = {"keras", "tensorflow", "torch", "jax"}
READS_KERAS = {"model/lstm_model.py"}
TRAINING_ONLY = {"keras", "matplotlib", "onnx", "pandas", "sklearn", "talib", "tensorflow"}
UNPICKLER = "model/features/sklearn_scaler.py"


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_room_imports_only_what_the_table_allows(path: Path) -> None:
    room = room_of(path)
    others = {room_of(other) for other in imported_files(path)} - {room, "daemon", "model"}
    assert others <= ALLOWED.get(room, frozenset()), f"{room} may import {sorted(ALLOWED[room])}"
    assert "tests" not in {module.partition(".")[0] for module in imports(path)}


def test_the_table_names_the_existing_rooms() -> None:
    found = {room_of(path) for path in SOURCES} - {"daemon/__init__", "model/__init__"}
    assert found == set(ALLOWED)


def test_the_table_allows_only_imports_that_exist() -> None:
    used: dict[str, set[str]] = {room: set() for room in ALLOWED}
    for path in SOURCES:
        used.setdefault(room_of(path), set()).update(map(room_of, imported_files(path)))
    assert not {
        room: sorted(below - used[room]) for room, below in ALLOWED.items() if below - used[room]
    }


def test_no_room_imports_a_higher_one() -> None:
    order = list(ALLOWED)
    for room, below in ALLOWED.items():
        assert below <= set(order[: order.index(room)]), room


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    graph = {path: imported_files(path) for path in SOURCES if path.name != "__init__.py"}
    for path, imported in graph.items():
        graph[path] = {other for other in imported if other.name != "__init__.py"}
    graphlib.TopologicalSorter(graph).prepare()


def test_no_room_hides_a_module_of_the_standard_library() -> None:
    # `python daemon/__main__.py` puts `daemon` first on `sys.path`.
    for package in ROOMS:
        names = {path.stem for path in (REPOSITORY / package).iterdir() if path.name[0] != "_"}
        assert not names & set(sys.stdlib_module_names)


def test_rooms_hold_at_most_a_dozen_modules() -> None:
    modules = [path for path in SOURCES if path.name != "__init__.py"]
    count = collections.Counter(path.parent for path in modules)
    assert not {name_of(room): n for room, n in count.items() if n > MAX_MODULES}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_says_in_one_sentence_what_it_does(path: Path) -> None:
    lines = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()
    assert lines
    assert lines[0].endswith(".")
    assert len(lines) == 1 or not lines[1]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_loggers_keep_their_names_when_modules_move(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "getLogger(__name__)" not in text
    for name in re.findall(
        r'^\w+(?:: Final)? = logging\.getLogger\("([^"]*)"\)', text, re.MULTILINE
    ):
        assert name.startswith("candlecast.")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_keras_is_imported_in_one_place_and_lazily(path: Path) -> None:
    imported = {module.partition(".")[0] for module in imports(path, at_run_time=True)}
    assert name_of(path) in READS_KERAS or not imported & KERAS
    at_once = {name.partition(".")[0] for name in imports(path, at_run_time=True, top_level=True)}
    assert not at_once & (KERAS | TRAINING_ONLY)


@pytest.mark.parametrize("module", ["daemon.app", "daemon.cli.main", "daemon.jobs.fetch"])
def test_serving_loads_nothing_that_only_training_needs(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert module.partition(".")[0] in loaded
    assert not loaded & (TRAINING_ONLY | KERAS)


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_from_outside_is_executed(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if name_of(path) != UNPICKLER:
        modules = {module.partition(".")[0] for module in imports(path)}
        assert not modules & {"pickle", "marshal", "shelve", "joblib", "dill", "cloudpickle"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            assert called(node) not in {"eval", "exec", "compile", "os.system", "os.popen"}
            for keyword in node.keywords:
                assert keyword.arg != "shell" or ast.unparse(keyword.value) == "False"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_task_belongs_to_a_group(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    groups = {
        ast.unparse(item.optional_vars)
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncWith)
        for item in node.items
        if item.optional_vars is not None and "TaskGroup" in ast.unparse(item.context_expr)
    } | {
        ast.unparse(target)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and "TaskGroup" in ast.unparse(node.value)
        for target in node.targets
    }
    parameters = {
        argument.arg
        for node in ast.walk(tree)
        if isinstance(node, ast.arg)
        for argument in (node,)
        if argument.annotation is not None and "TaskGroup" in ast.unparse(argument.annotation)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and called(node).endswith(".create_task"):
            owner = called(node).removesuffix(".create_task")
            assert owner in groups | parameters, f"line {node.lineno}: {called(node)}"


@pytest.mark.parametrize("path", EVERY_PYTHON, ids=name_of)
def test_files_are_short_and_finished(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    if path != Path(__file__):
        assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b|raise NotImplementedError", text)


# Put together, so that this file does not name them either.
INDEX = re.compile("|".join(re.escape(".".join(host)) for host in (
    ("pypi", "org"), ("files", "python" + "hosted"), ("registry", "npm" + "js"), ("deb", "debian"),
)))  # fmt: skip


@pytest.mark.parametrize("path", EVERY_TEXT, ids=name_of)
def test_no_path_of_a_machine_and_no_package_index(path: Path) -> None:
    if path == Path(__file__):
        return
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"/(root|home|work|Users)/\w", text)
    assert not INDEX.search(text)


def test_the_lock_file_names_no_index() -> None:
    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in lock
    requirements = re.findall(r"^[A-Za-z0-9][^\s=]*==\S+.*$", lock, re.MULTILINE)
    assert len(requirements) > 50
    assert lock.count("--hash=sha256:") >= len(requirements)


def test_the_wheel_contains_the_packages_and_no_tests(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation",
         "--no-index", "--quiet", "--wheel-dir", str(tmp_path)],
        cwd=copy_of_sources(tmp_path / "source"), check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in names} == set(ROOMS)
    modules = {name_of(path) for path in SOURCES}
    assert {name for name in names if name.endswith(".py")} == modules
    data = {name for name in names if not name.endswith(".py")}
    assert "config/config.yaml" in data
    assert {Path(name).parent.as_posix() for name in data} == {
        "config",
        "daemon/sandbox/data",
        "daemon/web/static",
    }


def copy_of_sources(target: Path) -> Path:
    """Build from a copy, or setuptools would leave its build folder beside the sources."""
    for room in ROOMS:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / room, target / room, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, target / name)
    return target
