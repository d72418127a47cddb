"""The rules that hold the rooms apart, read from the source itself."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = ("config", "daemon", "model")
SOURCES = sorted(path for room in ROOMS for path in (REPOSITORY / room).rglob("*.py"))
EVERY_PYTHON = sorted(
    path
    for folder in (*ROOMS, "tests", "examples", "benchmarks", "docs", "monitoring")
    for path in (REPOSITORY / folder).rglob("*.py")
)
EVERY_TEXT = sorted(
    path
    for folder in (*ROOMS, "tests", "examples", "benchmarks", "docs", "monitoring", "systemd")
    for path in (REPOSITORY / folder).rglob("*")
    if path.is_file()
    and path.suffix in {".py", ".md", ".yaml", ".yml", ".toml", ".json", ".service", ".timer"}
) + [REPOSITORY / name for name in ("README.md", "CHANGELOG.md", "Makefile", "pyproject.toml")]

READS_SETTINGS = {
    "daemon/app.py",
    "daemon/cli.py",
    "daemon/cli_base.py",
    "daemon/cli_look.py",
    "daemon/cli_model.py",
    "daemon/demo.py",
    "daemon/wiring.py",
    "model/retrain.py",
    # What a reference class finds under its `config_path`.
    "model/training_config.py",
    "model/train_lstm.py",
}
KERAS = {"keras", "tensorflow", "torch", "jax"}
READS_KERAS = {"model/lstm_model.py"}
TRAINING_ONLY = {"keras", "matplotlib", "onnx", "pandas", "sklearn", "talib", "tensorflow"}
UNPICKLER = "model/scaler_file.py"


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def imports(path: Path, *, top_level: bool = False) -> Iterator[str]:
    """Full names of the modules a file imports; those only for type checkers are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        if top_level and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        pending += ast.iter_child_nodes(node)


def rooms_imported(path: Path) -> set[str]:
    return {module.partition(".")[0] for module in imports(path)}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_run_from_daemon_to_model(path: Path) -> None:
    imported = rooms_imported(path)
    room = path.relative_to(REPOSITORY).parts[0]
    assert "tests" not in imported
    if room != "daemon":
        assert "daemon" not in imported
    if room == "model":
        allowed = name_of(path) in READS_SETTINGS
        assert allowed or "config" not in imported


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_settings_are_read_where_things_are_wired(path: Path) -> None:
    if name_of(path).startswith("config/"):
        return
    assert name_of(path) in READS_SETTINGS or "config" not in rooms_imported(path)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_keras_is_met_in_one_place_and_lazily(path: Path) -> None:
    imported = {module.partition(".")[0] for module in imports(path)}
    assert name_of(path) in READS_KERAS or not imported & KERAS
    at_once = {module.partition(".")[0] for module in imports(path, top_level=True)}
    assert not at_once & (KERAS | TRAINING_ONLY)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_the_sandbox_is_never_imported_by_what_serves(path: Path) -> None:
    name = name_of(path)
    if name.startswith("daemon/sandbox/") or name == "daemon/demo.py":
        return
    assert not any(module.startswith("daemon.sandbox") for module in imports(path))


@pytest.mark.parametrize("module", ["daemon.app", "daemon.cli", "daemon.fetch"])
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


def test_the_wheel_holds_what_serves_and_no_tests(tmp_path: Path) -> None:
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
        "daemon/static",
    }


def copy_of_sources(target: Path) -> Path:
    """Build from a copy, or setuptools would leave its build folder beside the sources."""
    for room in ROOMS:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / room, target / room, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, target / name)
    return target
