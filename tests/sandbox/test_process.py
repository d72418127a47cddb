from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.sandbox import EXCHANGES
from daemon.sandbox.exchange import PROTOCOLS
from daemon.sandbox.recording import build_playback
from tests.sandbox.scaled import RECORDING, SECOND, binance, ccxt_client
from tests.support.servers import accepts, sandbox_process


async def test_the_process_plays_what_it_announces() -> None:
    with sandbox_process("--symbols", "3", "--history", "50", "--slice-rows", "700") as sandbox:
        playback = build_playback(
            3, SECOND, sandbox.origin_ms, recording=RECORDING, slice_rows=sandbox.slice_rows
        )
        assert tuple(sandbox.symbols) == playback.symbols
        options = {"fetchMarkets": {"types": ["spot"]}}
        async with binance(sandbox.rest_url, sandbox.ws_url, **options) as client:
            rows = await client.fetch_ohlcv("S02/USDT", "1s", sandbox.origin_ms, 50)
    assert [tuple(row[1:]) for row in rows] == [playback.candle("S02/USDT", row[0]) for row in rows]
    assert len(rows) == 50


async def test_candles_may_be_streamed_now_and_then(tmp_path: Path) -> None:
    noted = tmp_path / "bursts"
    arguments = ("--symbols", "1", "--updates", "0", "--every", "2", "--bursts", str(noted))
    with sandbox_process(*arguments) as sandbox:
        options = {"fetchMarkets": {"types": ["spot"]}}
        async with binance(sandbox.rest_url, sandbox.ws_url, **options) as client:
            seen: list[int] = []
            while len(seen) < 3:
                rows = await client.watch_ohlcv("S00/USDT", "1s")
                seen += [row[0] for row in rows if row[0] not in seen]
    opens = [int(line.split()[0]) for line in noted.read_text(encoding="ascii").splitlines()]
    assert set(seen) <= set(opens)
    # The first candle may be any.
    assert [opened - opens[1] for opened in opens[1:3]] == [0, 2 * SECOND.ms]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_on_a_signal(number: signal.Signals) -> None:
    with sandbox_process("--symbols", "1") as sandbox:
        ports = [int(url.rpartition(":")[2]) for url in (sandbox.rest_url, sandbox.ws_url)]
        assert all(map(accepts, ports))
        sandbox.process.send_signal(number)
        assert sandbox.process.wait(10) == 0
    assert not any(map(accepts, ports))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--data", "nowhere.csv"], 1, "nowhere.csv: no such file"),
        (["--timeframe", "1M"], 2, "timeframe '1M'"),
        (["--symbols", "99999"], 1, "different slices"),
    ],
)
def test_a_refusal_is_one_line(
    repository: Path, arguments: list[str], code: int, says: str
) -> None:
    command = [sys.executable, "-m", "daemon.sandbox", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=repository)
    assert done.returncode == code
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", EXCHANGES)
async def test_every_exchange_can_be_played(name: str) -> None:
    with sandbox_process("--exchange", name, "--symbols", "2", "--history", "50") as sandbox:
        assert sandbox.timeframe == ("1s" if name == "binance" else "1m")
        async with ccxt_client(name, sandbox.rest_url, sandbox.ws_url) as client:
            rows = await client.fetch_ohlcv("S01/USDT", sandbox.timeframe, limit=50)
            assert len(rows) == 50


def test_the_names_are_those_of_the_protocols() -> None:
    assert tuple(PROTOCOLS) == EXCHANGES
