"""Objects made from settings, and the warnings logged about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import load
from daemon.factories import broker_of, page_access_of
from model.core.errors import ConfigError
from tests.support.certificates import Authority


@pytest.mark.parametrize(
    ("mqtt", "warned"),
    [
        ("{host: broker.example}", False),
        ("{host: broker.example, username: me, password_file: secret}", True),
        ("{host: 127.0.0.1, username: me, password_file: secret}", False),
        ("{host: broker.example, password_file: secret, tls: {ca_file: ca.pem}}", False),
        ("{host: broker.example, password_file: secret, tls: {ca_file: system}}", False),
    ],
)
def test_an_unencrypted_password_over_the_network_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mqtt: str, *, warned: bool
) -> None:
    Authority(tmp_path)
    (tmp_path / "secret").write_text("hunter2\n")
    (tmp_path / "config.yaml").write_text(f"mqtt: {mqtt}\n")
    broker = broker_of(load(tmp_path / "config.yaml", {}))
    assert (broker.tls is not None) == ("tls" in mqtt)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == warned
    assert "hunter2" not in caplog.text
    if warned:
        assert lines[0].startswith("the password for broker.example travels unencrypted; mqtt")


def test_login_and_certificate_of_the_pages(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("pages")
    (tmp_path / "secret").write_text("hunter2\n")
    (tmp_path / "config.yaml").write_text(
        "http: {username: me, password_file: secret, "
        f"tls: {{certificate_file: pages.pem, key_file: {pair.key.name}}}}}\n"
    )
    settings = load(tmp_path / "config.yaml", {})
    guard = page_access_of(settings)
    assert guard.login == ("me", "hunter2")
    assert guard.tls is not None
    pair.certificate.write_text("none")
    with pytest.raises(ConfigError, match=r"certificate_file: .*pages\.pem holds no certificate"):
        page_access_of(settings)
