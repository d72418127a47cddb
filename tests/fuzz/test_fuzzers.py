"""Check every parser of outside bytes: seeds, mutations of them, and one short fuzzing run."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.target import all_targets

TARGETS = all_targets()
REPOSITORY = Path(__file__).resolve().parents[2]
MUTATIONS = 100
RUNS = 3_000


def mutated(draw: random.Random, seed: bytes) -> bytes:
    """The seed with some bytes changed, doubled or cut off."""
    data = bytearray(seed)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(data) + 1)
        what = draw.randrange(4)
        if what == 0:
            data[at:] = b""
        elif what == 1:
            data[at:at] = draw.randbytes(draw.randint(1, 4))
        elif what == 2:
            data[at:at] = data[draw.randrange(len(data) + 1) :][:40]
        else:
            data[at : at + 1] = draw.choice((b"0", b"-", b"9" * 20, b"null", b"[", b'"', b"\xff"))
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_no_seed_and_no_mutation_of_it_breaks_an_invariant(name: str) -> None:
    target, draw = TARGETS[name], random.Random(name)
    for seed in target.seeds:
        target.one_input(seed)
        for _ in range(MUTATIONS // len(target.seeds)):
            data = mutated(draw, seed)
            try:
                target.one_input(data)
            except Exception as error:
                error.add_note(f"{name}: {data!r}")
                raise


def test_a_fuzzer_runs(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris has no wheel for this Python")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", "mqtt5", f"-runs={RUNS}", "-seed=1",
         f"-artifact_prefix={tmp_path}/"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4_000:]
    assert f"Done {RUNS} runs" in done.stderr
