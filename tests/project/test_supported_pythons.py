"""Check that one list of supported Pythons governs all tools."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MAKEFILE = REPOSITORY / "Makefile"
RUNNING = "{}.{}".format(*sys.version_info[:2])


def supported() -> list[str]:
    found = re.search(r"^PYTHONS := (.+)$", MAKEFILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1].split()


def interpreter(folder: Path, name: str, version: str = RUNNING) -> Path:
    """A Python that runs, in ``folder``, and takes itself for one of another version."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    numbers = ", ".join(version.split("."))
    path.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'import sys; text = sys.stdin.read() "
        'if sys.argv[1] == "-" else sys.argv.pop(1) and sys.argv[1]; sys.argv.pop(0); '
        f'sys.version_info = ({numbers}, 0); sys.executable = "{path}"; exec(text)\' "$@"\n',
        encoding="utf-8",
    )
    path.chmod(0o755)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder that holds what the tools need, without any Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("sh", "bash", "env", "sed", "dirname", "cat"):
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    return folder


def make(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make with a rule that prints the Python that the Makefile finds."""
    program = shutil.which("make")
    if program is None:
        pytest.skip("make is not installed")
    return subprocess.run(
        [program, "-f", MAKEFILE, "-f", "-", "found", *arguments],
        input="found:\n\t@$(find_python); command -v $$python\n",
        capture_output=True, text=True, check=False, timeout=60, env={"PATH": str(path)},
    )  # fmt: skip


def listed(path: Path, pyenv: Path) -> list[list[str]]:
    done = subprocess.run(
        [REPOSITORY / ".ci" / "pythons"],
        capture_output=True, text=True, check=True, timeout=60,
        env={"PATH": str(path), "PYENV_ROOT": str(pyenv)},
    )  # fmt: skip
    return [line.split(" ", 1) for line in done.stdout.splitlines()]


def test_package_and_pages_name_the_versions_that_are_tested() -> None:
    versions = supported()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    next_minor = int(versions[-1].partition(".")[2]) + 1
    assert project["project"]["requires-python"] == f">={versions[0]},<3.{next_minor}"
    assert "python_version" not in project["tool"]["mypy"]
    sentence = f"Python {', '.join(versions[:-1])} or {versions[-1]} with `venv`"
    for page in ("README.md", "docs/operations.md"):
        assert sentence in (REPOSITORY / page).read_text(encoding="utf-8"), page


def test_the_tests_run_on_a_supported_python() -> None:
    assert RUNNING in supported()


@pytest.mark.parametrize("version", ["3.10", "3.14"])
def test_make_refuses_a_python_that_is_not_supported(path: Path, version: str) -> None:
    for name in ("python3", f"python{version}", "python"):
        interpreter(path, name, version)
    done = make(path)
    assert done.returncode == 2
    assert done.stdout == ""
    first_line = done.stderr.splitlines()[0]
    assert first_line.startswith(
        "candlecast needs Python with venv, one of the versions 3.11 3.12 3.13"
    )


def test_make_passes_over_a_python_that_is_not_supported(path: Path) -> None:
    interpreter(path, "python3", "3.14")
    wanted = interpreter(path, "python3.12", "3.12")
    assert make(path).stdout == f"{wanted}\n"


def test_make_takes_the_only_version_that_it_is_asked_for(path: Path) -> None:
    interpreter(path, "python3", "3.11")
    wanted = interpreter(path, "python3.13", "3.13")
    assert make(path, "PYTHONS=3.13").stdout == f"{wanted}\n"


def test_pythons_are_found_on_path_and_among_those_of_pyenv(path: Path, tmp_path: Path) -> None:
    pyenv = tmp_path / "py env"
    on_path = interpreter(path, "python3", "3.12")
    interpreter(path, "python3.14", "3.14")
    # A version manager's shim, of a version that is not chosen.
    shim = path / "python3.13"
    shim.write_text("#!/bin/sh\nexit 127\n", encoding="utf-8")
    shim.chmod(0o755)
    own = interpreter(pyenv / "versions" / "3.13.0" / "bin", "python", "3.13")
    interpreter(pyenv / "versions" / "3.10.2" / "bin", "python", "3.10")
    assert listed(path, pyenv) == [["3.12", str(on_path)], ["3.13", str(own)]]


def test_without_python_none_is_listed(path: Path, tmp_path: Path) -> None:
    assert listed(path, tmp_path / "none") == []


def test_the_python_that_runs_is_found() -> None:
    home = os.environ.get("HOME", "")
    folder = Path(sys.executable).parent
    found = listed(Path(f"{folder}:{os.environ['PATH']}"), Path(home) / ".pyenv")
    assert RUNNING in [version for version, _ in found]
