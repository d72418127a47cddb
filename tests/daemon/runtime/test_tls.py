"""The publisher and a real mosquitto verify each other by TLS."""

from __future__ import annotations

import asyncio
import ssl
from functools import partial
from pathlib import Path

import pytest

from daemon.runtime.tls import client_context, server_context
from model.core.errors import BrokerError, ConfigError
from tests.support.certificates import Authority, Pair
from tests.support.example_broker import example_broker, retained_forecasts
from tests.support.publisher_harness import PublisherHarness, running, wait_connected
from tests.support.servers import MAX_WAIT_S, Mosquitto, mosquitto
from tests.support.waiting import until


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def broker_lines(authority: Authority, pair: Pair, *more: str) -> tuple[str, ...]:
    files = (f"cafile {authority.ca}", f"certfile {pair.certificate}", f"keyfile {pair.key}")
    return (*files, *more)


def trial_with(server: Mosquitto, context: ssl.SSLContext | None) -> PublisherHarness:
    return PublisherHarness(server.port, tls=context)


async def complaint(trial: PublisherHarness, caplog: pytest.LogCaptureFixture) -> str:
    """The one line about a broker that cannot be used, though it is tried again and again."""
    async with running(trial):
        await until(lambda: any("no MQTT broker" in r.getMessage() for r in caplog.records))
        await asyncio.sleep(0.3)
        assert not trial.publisher.connected.is_set()
    (line,) = [r.getMessage() for r in caplog.records if r.name.startswith("candlecast")]
    assert "\n" not in line
    return line


async def test_forecasts_travel_encrypted(tmp_path: Path, authority: Authority) -> None:
    lines = broker_lines(authority, authority.issue("broker"))
    with mosquitto(tmp_path, *lines) as server:
        async with running(trial_with(server, client_context(authority.ca, None, None))) as trial:
            await wait_connected(trial)
            trial.publisher.offer(trial.forecast("A/B", "there"))
            await until(lambda: trial.outcome("published") == 1)


@pytest.mark.may_block(reason="reads certificates")
async def test_a_client_certificate_is_accepted(tmp_path: Path, authority: Authority) -> None:
    ours = authority.issue("candlecast")
    lines = broker_lines(
        authority, authority.issue("broker"),
        "require_certificate true", "use_identity_as_username true", "allow_anonymous false",
    )  # fmt: skip
    with mosquitto(tmp_path, *lines) as server:
        context = client_context(authority.ca, ours.certificate, ours.key)
        async with running(trial_with(server, context)) as trial:
            await wait_connected(trial)
        assert "u'candlecast'" in server.log


async def test_a_missing_client_certificate(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    lines = broker_lines(authority, authority.issue("broker"), "require_certificate true")
    with mosquitto(tmp_path, *lines) as server:
        trial = trial_with(server, client_context(authority.ca, None, None))
        line = await complaint(trial, caplog)
    # Its reason and the end of the connection race each other.
    assert "want" in line
    assert "a certificate of ours (mqtt.tls.certificate_file)" in line


@pytest.mark.may_block(reason="reads certificates")
async def test_a_client_certificate_of_another_authority(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    lines = broker_lines(authority, authority.issue("broker"), "require_certificate true")
    ours = Authority(tmp_path, "other").issue("candlecast")
    with mosquitto(tmp_path, *lines) as server:
        trial = trial_with(server, client_context(authority.ca, ours.certificate, ours.key))
        line = await complaint(trial, caplog)
    assert "our certificate" in line or "a certificate of ours" in line


async def test_a_wrong_authority(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    lines = broker_lines(authority, authority.issue("broker"))
    other = Authority(tmp_path, "other")
    with mosquitto(tmp_path, *lines) as server:
        line = await complaint(trial_with(server, client_context(other.ca, None, None)), caplog)
    assert "its certificate is refused: self-signed certificate in certificate chain" in line
    assert "check mqtt.tls.ca_file" in line


async def test_an_expired_certificate(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    lines = broker_lines(authority, authority.issue("broker", expired=True))
    with mosquitto(tmp_path, *lines) as server:
        line = await complaint(trial_with(server, client_context(authority.ca, None, None)), caplog)
    assert "its certificate is refused: certificate has expired; renew it" in line


async def test_a_certificate_of_another_host(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    lines = broker_lines(authority, authority.issue("broker", "elsewhere.example"))
    with mosquitto(tmp_path, *lines) as server:
        line = await complaint(trial_with(server, client_context(authority.ca, None, None)), caplog)
    assert "not valid for '127.0.0.1'" in line


async def test_a_broker_without_tls(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    with mosquitto(tmp_path) as server:
        line = await complaint(trial_with(server, client_context(authority.ca, None, None)), caplog)
    assert f"no MQTT broker at 127.0.0.1:{server.port} (" in line


async def test_a_broker_that_requires_tls(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    lines = broker_lines(authority, authority.issue("broker"))
    with mosquitto(tmp_path, *lines) as server:
        line = await complaint(trial_with(server, None), caplog)
    assert "before it accepted the login; does it want TLS (mqtt.tls.ca_file)?" in line


async def test_the_example_broker_lets_the_daemon_write_and_the_trader_read(
    tmp_path: Path, authority: Authority, repository: Path
) -> None:
    """The files in examples/ as they are, but for the port and the user."""
    with example_broker(tmp_path, authority, repository / "examples") as server:
        context = client_context(authority.ca, None, None)
        async with running(
            PublisherHarness(server.port, username="candlecast", tls=context)
        ) as trial:
            await wait_connected(trial)
            trial.publisher.offer(trial.forecast("A/B", "there"))
            await until(lambda: trial.outcome("published") == 1)
            assert await retained_forecasts(server, authority, "trader") == ["there"]
            assert await retained_forecasts(server, authority, "candlecast") == []
        denied = PublisherHarness(server.port, username="trader", tls=context)
        with pytest.raises(BrokerError, match=r"denies publishing to .* let user 'trader' write"):
            async with asyncio.timeout(MAX_WAIT_S):
                await denied.publisher.run()


@pytest.mark.parametrize("side", ["client", "server"])
def test_files_that_cannot_be_used_are_named(
    tmp_path: Path, authority: Authority, side: str
) -> None:
    pair, other = authority.issue("one"), authority.issue("two")
    none, garbage = tmp_path / "none.pem", tmp_path / "garbage.pem"
    garbage.write_text("not a certificate\n")
    der, cut = tmp_path / "der.pem", tmp_path / "cut.pem"
    der.write_bytes(ssl.PEM_cert_to_DER_cert(first_of(pair.certificate)))
    cut.write_bytes(pair.certificate.read_bytes()[:100])

    def load(certificate: Path, key: Path) -> ssl.SSLContext:
        if side == "server":
            return server_context(certificate, key)
        return client_context(authority.ca, certificate, key)

    load(pair.certificate, pair.key)
    for certificate, key, words in (
        (none, pair.key, "certificate_file: cannot read .*none.pem: No such file"),
        (pair.certificate, none, "key_file: cannot read .*none.pem: No such file"),
        (pair.certificate, other.key, "the key belongs to another certificate"),
        (garbage, pair.key, "certificate_file: .*garbage.pem holds no certificate in PEM$"),
        (pair.certificate, garbage, "key_file: .*garbage.pem holds no private key in PEM$"),
        (pair.key, pair.certificate, "certificate_file: .* holds no certificate in PEM$"),
        (der, pair.key, "certificate_file: .* no certificate in PEM; it looks like DER"),
        (cut, pair.key, "cannot use .*cut.pem with .*: damaged PEM$"),
    ):
        with pytest.raises(ConfigError, match=words):
            load(certificate, key)


def test_an_authority_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("not a certificate\n")
    for path in (tmp_path / "none.pem", garbage):
        with pytest.raises(ConfigError, match=f"mqtt.tls.ca_file: cannot use {path}"):
            client_context(path, None, None)


def first_of(chain: Path) -> str:
    end = "-----END CERTIFICATE-----\n"
    return chain.read_text().partition(end)[0] + end


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL"])
def test_a_key_with_a_passphrase_is_refused_without_a_prompt(
    tmp_path: Path, authority: Authority, side: str, form: str
) -> None:
    from cryptography.hazmat.primitives import serialization

    pair = authority.issue("one")
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            getattr(serialization.PrivateFormat, form),
            serialization.BestAvailableEncryption(b"sesame"),
        )
    )
    load = server_context if side == "server" else partial(client_context, authority.ca)
    with pytest.raises(ConfigError, match=r"tls\.key_file: .* has a passphrase") as caught:
        load(pair.certificate, locked)
    assert str(caught.value).endswith(f"openssl pkey -in {locked} -out NEW")
    assert "\n" not in str(caught.value)


def test_the_system_authorities_verify_the_host_name() -> None:
    context = client_context(None, None, None)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
