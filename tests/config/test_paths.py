"""Check that texts and folders that cannot be used are refused by the name of the setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import load
from model.core.errors import ConfigError
from tests.support.config_files import refusal, write


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)


@pytest.mark.parametrize(
    "text",
    [
        'paths: {state: "a%sb"}',
        'paths: {data: "a%sb"}',
        'mqtt: {host: "a%sb"}',
        'mqtt: {password_file: "a%sb"}',
        'mqtt: {tls: {ca_file: "a%sb"}}',
        'http: {host: "127.0.0.1%s"}',
        'trading: {timeframe: "1m%s"}',
    ],
)
@pytest.mark.parametrize(
    ("sign", "reason"), [(r"\0", "holds a NUL character"), (r"\ud800", "surrogate pair")]
)
def test_a_path_with_invalid_characters_is_refused(
    tmp_path: Path, text: str, sign: str, reason: str
) -> None:
    message = refusal(tmp_path, text % sign)
    assert reason in message
    assert "\n" not in message
    section, key = text.replace("tls: {", "tls.").translate({ord("{"): None}).split(": ")[:2]
    assert f" {section}.{key}: " in message.replace("tls: ", "tls.")


@pytest.mark.parametrize("name", ["state", "data", "models"])
def test_an_impossible_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    for folder, reason in (
        (tmp_path / "file", f"{tmp_path / 'file'} is a file; name a folder"),
        (tmp_path / "file" / "in" / "it", f"{tmp_path / 'file'} is a file; name a folder"),
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path / ("x/" * 3_000), "File name too long"),
    ):
        settings = load(write(tmp_path, f"paths: {{{name}: {folder}}}"), {})
        with pytest.raises(ConfigError) as refused:
            settings.check_folders()
        line = str(refused.value)
        assert line.startswith(f"paths.{name}: ")
        assert reason in line
    load(write(tmp_path, f"paths: {{{name}: {tmp_path / 'a' / 'b'}}}"), {}).check_folders()
    assert not (tmp_path / "a").exists()
