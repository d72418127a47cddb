"""Fuzz one parser: ``python -m tests.fuzz.run okx -max_total_time=60``.

The options are those of libFuzzer.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

# libFuzzer counts coverage in modules imported here.
with atheris.instrument_imports(include=["config", "daemon", "model", "mqtt5", "yaml"]):
    from tests.fuzz.target import all_targets

    TARGETS = all_targets()


def main() -> None:
    """Fuzz the parser that the first argument names, starting from its seeds."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz.run {{{','.join(TARGETS)}}} [libFuzzer options]")
    name = sys.argv.pop(1)
    # Not removed: libFuzzer ends the process before Python could.
    corpus = Path(tempfile.gettempdir()) / f"candlecast-fuzz-{name}"
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([*sys.argv, str(corpus)], TARGETS[name].one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
