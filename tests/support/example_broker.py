"""Run Mosquitto with the example configuration."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.certificates import Authority
from tests.support.publisher_harness import PASSWORD
from tests.support.servers import HOST, Mosquitto, mosquitto, password_file, program


@contextmanager
def example_broker(folder: Path, authority: Authority, examples: Path) -> Iterator[Mosquitto]:
    """Mosquitto with the example's settings, on a port of its own and with made-up users."""
    authority.issue("broker")
    passwords = {password_file(folder, user, PASSWORD) for user in ("candlecast", "trader")}
    assert passwords == {folder / "passwords"}
    (folder / "mosquitto.acl").write_text((examples / "mosquitto.acl").read_text())
    (folder / "mosquitto.acl").chmod(0o600)
    text = (examples / "mosquitto.conf").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", "listener"))]
    words = [line.split(" ", 1) for line in lines]
    paths = {"cafile", "certfile", "keyfile", "password_file", "acl_file"}
    settled = [
        f"{name} {folder / value}" if name in paths else f"{name} {value}"
        for name, value in words
        if name != "max_queued_messages"
    ]
    with mosquitto(folder, *settled) as server:
        yield server


async def retained_forecasts(server: Mosquitto, authority: Authority, user: str) -> list[str]:
    """The retained forecasts that a user receives within a second."""
    done = await asyncio.to_thread(
        subprocess.run,
        [program("mosquitto_sub"), "-h", HOST, "-p", str(server.port), "-V", "5",
         "--cafile", str(authority.ca), "-u", user, "-P", PASSWORD,
         "-t", "candlecast/v1/+/+/+/prediction", "-W", "1"],
        capture_output=True, text=True, check=False, timeout=20, env=dict(os.environ),
    )  # fmt: skip
    return done.stdout.splitlines()
