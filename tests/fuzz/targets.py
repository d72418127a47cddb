"""Every fuzzer by its name."""

from __future__ import annotations

from tests.fuzz import fuzz_consumer, fuzz_files, fuzz_frames, fuzz_mqtt, fuzz_rest, fuzz_streams

TARGETS = (
    fuzz_frames.TARGETS
    | fuzz_streams.TARGETS
    | fuzz_rest.TARGETS
    | fuzz_mqtt.TARGETS
    | fuzz_files.TARGETS
    | fuzz_consumer.TARGETS
)
