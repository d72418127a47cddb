"""Check that the suite fails on skips where all tests are required, and on a blocked loop."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def run(folder: Path, text: str, **environ: str) -> subprocess.CompletedProcess[str]:
    path = folder / "test_inner.py"
    path.write_text(text, encoding="utf-8")
    clean = {key: value for key, value in os.environ.items() if key != "CANDLECAST_REQUIRE_ALL"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-c", str(REPOSITORY / "pyproject.toml"), "--rootdir",
         str(folder), "-p", "tests.conftest", "-p", "no:cacheprovider", "-q", str(path)],
        cwd=REPOSITORY, env=clean | environ, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_skip_fails_where_everything_is_required(tmp_path: Path) -> None:
    text = (
        "import pytest\n"
        "def test_1(): pytest.skip('no broker')\n"
        "@pytest.mark.skip(reason='no time')\ndef test_2(): pass\n"
        "def test_3(shared_dir): pass\n"
    )
    nowhere = {"CANDLECAST_SHARED": str(tmp_path / "none")}
    assert "3 skipped" in run(tmp_path, text, **nowhere).stdout
    done = run(tmp_path, text, CANDLECAST_REQUIRE_ALL="1", **nowhere)
    assert done.returncode == 1
    for reason in ("no broker", "no time", "no recorded data at"):
        assert f"CANDLECAST_REQUIRE_ALL is set, and yet: Skipped: {reason}" in done.stdout


def test_a_module_that_skips_itself_fails_too(tmp_path: Path) -> None:
    text = "import pytest\npytest.skip('no broker', allow_module_level=True)"
    assert "1 skipped" in run(tmp_path, text).stdout
    done = run(tmp_path, text, CANDLECAST_REQUIRE_ALL="1")
    assert done.returncode == pytest.ExitCode.INTERRUPTED
    assert "CANDLECAST_REQUIRE_ALL is set, and yet: Skipped: no broker" in done.stdout


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    text = "import pytest\n@pytest.mark.xfail\ndef test(): assert False"
    assert run(tmp_path, text, CANDLECAST_REQUIRE_ALL="1").returncode == 0


def test_blocking_the_loop_in_the_project_fails(tmp_path: Path) -> None:
    text = (
        "import pytest\nfrom pathlib import Path\nfrom config.settings import read_yaml\n"
        "PATH = Path('config/config.yaml')\n"
        "async def test_blocks(): read_yaml(PATH)\n"
        "@pytest.mark.may_block(reason='shown here')\n"
        "async def test_may(): read_yaml(PATH)\n"
        "def test_no_loop(): read_yaml(PATH)\n"
    )
    done = run(tmp_path, text)
    assert "1 failed, 2 passed" in done.stdout
    assert "BlockingError" in done.stdout


def test_a_pause_of_the_machine_is_nothing_that_the_project_logged(tmp_path: Path) -> None:
    text = (
        "import asyncio, time\n"
        "async def test(caplog):\n"
        "    asyncio.get_running_loop().call_soon(time.sleep, 0.15)\n"
        "    await asyncio.sleep(0.01)\n"
        "    assert not caplog.records\n"
    )
    assert "1 passed" in run(tmp_path, text).stdout


def test_a_second_collection_finds_the_same_tests(request: pytest.FixtureRequest) -> None:
    """Two workers share the tests by their names, which thus hang neither on time nor on hashes."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"],
        cwd=REPOSITORY, env=os.environ | {"PYTHONHASHSEED": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    found = set(done.stdout.splitlines())
    missing = [item.nodeid for item in request.session.items if item.nodeid not in found]
    assert not missing, done.stdout[-1_000:]
