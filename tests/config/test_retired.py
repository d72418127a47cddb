"""Settings of earlier versions are ignored and named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from config.retired import RETIRED
from config.settings import Settings, load, read_yaml
from daemon.cli.main import main
from tests.support.config_files import write


def variable(section: str, key: str) -> str:
    return f"CANDLECAST__{section.upper()}__{key.upper()}"


@pytest.mark.parametrize(("section", "key"), RETIRED)
def test_a_retired_key_of_the_file_is_ignored_and_named(
    tmp_path: Path, section: str, key: str
) -> None:
    settings = load(write(tmp_path, f"{section}: {{{key}: anything}}\n"), {})
    assert settings.model_dump() == Settings().model_dump()
    assert settings.ignored == (f"{section}.{key}",)


@pytest.mark.parametrize(("section", "key"), RETIRED)
def test_a_retired_variable_is_ignored_and_named(tmp_path: Path, section: str, key: str) -> None:
    name = variable(section, key)
    settings = load(write(tmp_path, ""), {name: "["})
    assert settings.model_dump() == Settings().model_dump()
    assert settings.ignored == (name,)


def test_other_keys_of_the_section_still_count(tmp_path: Path) -> None:
    settings = load(write(tmp_path, "inference: {threads: 4, device: cpu}\n"), {})
    assert settings.inference.device == "cpu"


def test_the_reference_classes_ignore_them_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable("mqtt", "outbox_size"), "1")
    path = write(tmp_path, "retrain: {nice: 1, days: 3}\n")
    assert read_yaml(path) == {"retrain": {"days": 3}}


def test_no_retired_key_is_a_setting() -> None:
    known = {
        (section, key)
        for section, field in Settings.model_fields.items()
        for key in getattr(field.annotation, "model_fields", ())
    }
    assert not known & set(RETIRED)


def test_check_config_warns_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"inference": {"threads": 2, "max_batch": 7}, "paths": {"state": str(tmp_path)}}
    path = write(tmp_path, yaml.safe_dump(keys))
    name = variable("calibration", "gamma")
    monkeypatch.setenv(name, "0.01")
    assert main(["check-config", "--config", str(path)]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        f"{path}: settings that no longer exist are ignored: "
        f"inference.threads, inference.max_batch, {name}; remove them"
    )
    assert "WARNING" in line
