"""Exit codes and output of the command line."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from config.settings import load
from daemon.app import serve
from daemon.cli.main import main
from daemon.runtime.clock import SystemClock
from daemon.sandbox.exchange import SandboxExchange
from daemon.sandbox.recording import Playback, build_playback
from model.core.candle import Timeframe
from model.core.errors import BundleError
from model.inference.onnx_export import export_onnx
from model.registry.registry import Registry
from tests.support.bundles import parts
from tests.support.servers import silent_exchange
from tests.support.tiny_models import drawn_weights

MINUTE = Timeframe.parse("1m")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(
        f"trading: {{symbols: [S00/USDT]}}\npaths: {{data: {tmp_path / 'data'}}}\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def playback() -> Playback:
    return build_playback(1, MINUTE, MINUTE.floor(SystemClock().wall_ms()) - 2 * 86_400_000)


def outcome(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    try:
        code = main(argv)
    except SystemExit as error:
        code = int(str(error.code))
    return code, *capsys.readouterr()


def test_help_is_immediate() -> None:
    code = "import sys\nfrom daemon.cli.main import build_parser\nbuild_parser().format_help()"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(*sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"aiohttp", "ccxt", "numpy", "onnxruntime", "pydantic", "rich", "yaml"}


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ((), "required: COMMAND"),
        (("fly",), "invalid choice: 'fly'"),
        (("fetch", "--days", "-1"), "must be a positive number, not '-1'"),
        (("fetch", "--symbols", "btc/usdt"), "'btc/usdt' is not of the form BASE/QUOTE; did you"),
        (("fetch", "--symbols", "ETH/BTC", "BTCUSDT"), "did you mean BTC/USDT?"),
        (("fetch", "--days", "0"), "must be a positive number, not '0'"),
        (("fetch", "--days", "nan"), "must be a positive number, not 'nan'"),
        (("fetch", "--days", "inf"), "must be a positive number, not 'inf'"),
        (("fetch", "--days", "1e309"), "must be a positive number, not '1e309'"),
        (("fetch", "--days", "1e9"), "--days 1e+09 reaches back before 2009; it can be"),
        (("fetch", "--days", "1e300"), "--days 1e+300 reaches back before 2009; it can be"),
        (("fetch", "--days", "1e-300"), "--days 1e-300 holds no closed candle of 1m; ask for more"),
        (("models",), "required: ACTION"),
        (("models", "promote"), "required: version"),
        (("demo", "--exchange", "x"), "cannot simulate 'x'; allowed: binance, okx, bybit, kraken"),
    ],
)
def test_wrong_usage_exits_2(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], expected: str
) -> None:
    code, out, err = outcome(capsys, *argv)
    assert (code, out) == (2, "")
    assert expected in err


def test_config_may_stand_before_and_after_the_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    nowhere = str(tmp_path / "none.yaml")
    for argv in (["--config", nowhere, "check-config"], ["check-config", "--config", nowhere]):
        code, _, err = outcome(capsys, *argv)
        assert code == 2
        assert err.startswith(f"candlecast: {nowhere}: no such file")


def test_every_finding_has_its_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("mqtt: {port: 0}\nhttp: {prt: 1}\n", encoding="utf-8")
    code, _, err = outcome(capsys, "check-config", "--config", str(path))
    assert code == 2
    assert len(err.splitlines()) == 2
    assert all(line.startswith(f"candlecast: {path}: ") for line in err.splitlines())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("exchange: {name: binanse}", "cannot watch an exchange 'binanse'; did you mean binance"),
        ("exchange: {name: coinbase}", "coinbase has no candle stream"),
        ("trading: {timeframe: 7m}", "binance has no timeframe 7m; allowed: 1s, 1m"),
        ("mqtt: {password_file: /none}", "mqtt.password_file: cannot read /none"),
    ],
)
def test_check_config_asks_ccxt_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, expected: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    code, out, err = outcome(capsys, "check-config", "--config", str(path))
    assert (code, out) == (2, "")
    assert expected in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("command", ["check-config", "doctor", "fetch", "train"])
def test_a_file_in_place_of_a_folder_is_refused(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("paths: {state: config.yaml}\n", encoding="utf-8")
    code, out, err = outcome(capsys, command, "--config", str(path))
    assert (code, out) == (2, "")
    assert err == f"candlecast: paths.state: {path} is a file; name a folder\n"


def test_check_config_reports_why_the_nightly_job_would_fail(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    refused = "but candlecast retrain would fail"
    for text, *expected in (
        ("trading: {timeframe: 1h}",),
        ("trading: {timeframe: 1d}", f"{refused}: 30 candles are too few: 160 are kept"),
        ("retrain: {days: 5}", f"{refused}: retrain.days 5 must be more than registry.gate_days 7"),
    ):
        path.write_text(text, encoding="utf-8")
        code, out, err = outcome(capsys, "check-config", "--config", str(path))
        valid, *more = out.splitlines()
        assert (code, err) == (0, "")
        assert ": valid: " in valid
        assert [line[: len(begin)] for line, begin in zip(more, expected, strict=True)] == expected


def test_promoting_an_unservable_model_prints_a_warning(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    registry = Registry(load(config).registry_dir)
    versions = [registry.write(parts(number)) for number in range(2)]
    last_lines = []
    for argv in (["promote", versions[0]], ["promote", versions[1]], ["rollback"]):
        code, out, err = outcome(capsys, "models", *argv, "--config", str(config))
        assert (code, err) == (0, "")
        last_lines.append(out.splitlines()[-1])
    assert registry.champion() == versions[0]
    refused = "the daemon will not serve it: model {} was trained for timeframe 15m but"
    for line, version in zip(last_lines, [*versions, versions[0]], strict=True):
        assert line.startswith(refused.format(version))
    config.write_text("trading: {timeframe: 15m, symbols: [BTC/USDT]}\n", encoding="utf-8")
    _, out, _ = outcome(capsys, "models", "promote", versions[1], "--config", str(config))
    assert "the daemon will not serve it: manifest.json says" in out.splitlines()[-1]
    served = replace(parts(2), onnx=export_onnx(drawn_weights(6, (64, 32))))
    version = registry.write(served)
    _, out, _ = outcome(capsys, "models", "promote", version, "--config", str(config))
    assert out.splitlines()[-1] == f"champion: {version}"


def test_models_with_an_empty_registry(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    options = ("--config", str(config))
    code, out, _ = outcome(capsys, "models", "list", *options)
    assert code == 0
    assert out.startswith("no models in ")
    assert outcome(capsys, "models", "show", *options)[0] == 2
    assert outcome(capsys, "models", "rollback", *options)[0] == 1
    code, _, err = outcome(capsys, "models", "promote", "20261123T020000Z-3f9a1c", *options)
    assert code == 1
    assert len(err.splitlines()) == 1


def test_a_damaged_model_is_listed_as_such(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    (config.parent / "state" / "registry" / "20261123T020000Z-3f9a1c").mkdir(parents=True)
    code, out, _ = outcome(capsys, "models", "list", "--config", str(config))
    assert code == 0
    assert out.startswith("20261123T020000Z-3f9a1c")
    assert len(out.splitlines()) == 1


def test_a_folder_that_cannot_be_written_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("paths: {state: /proc/candlecast}\n", encoding="utf-8")
    version = "20261123T020311Z-3f9a1c"
    code, _, err = outcome(capsys, "models", "promote", version, "--config", str(config))
    assert code == 1
    assert err.startswith("candlecast: /proc/candlecast")
    assert err.endswith(": No such file or directory\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_signs_that_the_encoding_lacks_are_replaced(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "daemon", "demo", "--help"],
        capture_output=True, check=False, env=os.environ | {"PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"(CSV: timestamp, open ? volume)" in done.stdout


async def start(exchange: SandboxExchange, config: Path, *argv: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "daemon", *argv, "--config", str(config),
        env=os.environ | {"CANDLECAST__EXCHANGE__ENDPOINT__REST": exchange.rest_url},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


async def test_fetch_prints_plain_lines_and_the_files(playback: Playback, config: Path) -> None:
    async with SandboxExchange(playback) as exchange:
        process = await start(exchange, config, "fetch", "--days", "0.5")
        out, err = (text.decode() for text in await process.communicate())
    assert (process.returncode, err) == (0, "")
    *progress, path = out.splitlines()
    assert progress[-1].startswith("S00/USDT: ")
    assert "\x1b" not in out
    assert Path(path).is_file()


async def test_an_interrupted_fetch_says_so_without_traceback(config: Path) -> None:
    async with silent_exchange() as (url, asked):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "daemon", "fetch", "--config", str(config),
            env=os.environ | {"CANDLECAST__EXCHANGE__ENDPOINT__REST": url},
            stderr=subprocess.PIPE,
        )  # fmt: skip
        await asked.wait()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert (process.returncode, err.decode()) == (1, "candlecast: interrupted\n")


async def test_an_unreachable_exchange_is_one_line(config: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "daemon", "fetch", "--config", str(config),
        env=os.environ | {"CANDLECAST__EXCHANGE__ENDPOINT__REST": "http://127.0.0.1:9"},
        stderr=subprocess.PIPE,
    )  # fmt: skip
    _, err = await process.communicate()
    assert process.returncode == 1
    assert err.decode().startswith("candlecast: binance: loading its markets: it cannot be reached")
    assert len(err.decode().splitlines()) == 1


def test_a_file_argument_is_resolved_against_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["watch", "--host", "127.0.0.1", "--password-file", "secret"]) == 2
    assert f"cannot read {tmp_path}/secret: No such file" in capsys.readouterr().err


def test_a_sighup_while_files_are_opened_is_survived(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}\n")
    settings = load(tmp_path / "config.yaml", {"STATE_DIRECTORY": str(tmp_path)})

    async def send_sighup() -> None:
        serving = asyncio.create_task(serve(settings, asyncio.Event(), lambda: settings))
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGHUP)
        await serving

    unhandled: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: unhandled.append(number))
    try:
        with pytest.raises(BundleError):
            asyncio.run(send_sighup())
    finally:
        signal.signal(signal.SIGHUP, before)
    assert unhandled == []
