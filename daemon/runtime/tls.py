"""Create TLS contexts for the broker's client and for the web server.

The standard library has the protocol. The checks of the files are written here: errors of OpenSSL
name neither setting nor file, and it would ask the terminal for a passphrase.
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Final

from model.core.errors import ConfigError

_ADVICE: Final = {
    "certificate has expired": "renew it, or set the clock",
    "certificate is not yet valid": "set the clock",
    "unable to get local issuer certificate": "check mqtt.tls.ca_file",
    "self-signed certificate": "check mqtt.tls.ca_file",
    "self-signed certificate in certificate chain": "check mqtt.tls.ca_file",
}
_CERTIFICATE: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]*CERTIFICATE-----")
_KEY: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")
_MAX_PEM_BYTES: Final = 1 << 20
_CERTIFICATE_REQUIRED: Final = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE")
_CERTIFICATE_REFUSED: Final = (
    "UNKNOWN_CA",
    "BAD_CERTIFICATE",
    "CERTIFICATE_EXPIRED",
    "DECRYPT_ERROR",
)


def client_context(
    ca_file: Path | None, certificate_file: Path | None, key_file: Path | None
) -> ssl.SSLContext:
    """The context of a client that verifies the server and may present a certificate.

    Args:
        ca_file: certificate of the authority to trust (PEM); None trusts the system's.
        certificate_file: our own certificate (PEM), None for none.
        key_file: its key.

    Raises:
        ConfigError: a file cannot be used.
    """
    context = _loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate_file, key_file, "mqtt")
    if ca_file is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        msg = f"mqtt.tls.ca_file: cannot use {ca_file}: {_reason(error)}"
        raise ConfigError(msg) from None
    return context


def server_context(certificate_file: Path, key_file: Path) -> ssl.SSLContext:
    """The context of a server that presents a certificate.

    Raises:
        ConfigError: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return _loaded(context, certificate_file, key_file, "http")


def _loaded(
    context: ssl.SSLContext, certificate: Path | None, key: Path | None, section: str
) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is None or key is None:
        return context
    _check_pem(certificate, f"{section}.tls.certificate_file", "certificate", _CERTIFICATE)
    _check_pem(key, f"{section}.tls.key_file", "private key", _KEY)
    passphrase_requests = []

    def passphrase() -> bytes:
        # Without this function OpenSSL would ask the terminal.
        passphrase_requests.append(key)
        return b""

    try:
        context.load_cert_chain(certificate, key, password=passphrase)
    except (OSError, ValueError) as error:
        if passphrase_requests:
            msg = (
                f"{section}.tls.key_file: {key} has a passphrase, which a daemon cannot ask for; "
                f"name a key without one: openssl pkey -in {key} -out NEW"
            )
        else:
            msg = f"{section}.tls: cannot use {certificate} with {key}: {_reason(error)}"
        raise ConfigError(msg) from None
    return context


def _check_pem(path: Path, setting: str, what: str, begins: re.Pattern[bytes]) -> None:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_PEM_BYTES)
    except OSError as error:
        msg = f"{setting}: cannot read {path}: {error.strerror}"
        raise ConfigError(msg) from None
    if not begins.search(text):
        der = "; it looks like DER or PKCS #12, which openssl converts" if text[:1] == b"0" else ""
        msg = f"{setting}: {path} holds no {what} in PEM{der}"
        raise ConfigError(msg)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        if not error.reason:
            return "damaged PEM"
        words = str(error.reason).replace("_", " ").lower()
        return "the key belongs to another certificate" if "mismatch" in words else words
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def describe_error(error: ssl.SSLError) -> str:
    """The cause of a TLS failure with a server, and what to do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        words = error.verify_message
        advice = next((text for start, text in _ADVICE.items() if words.startswith(start)), None)
        return f"its certificate is refused: {words}" + (f"; {advice}" if advice else "")
    reason = str(error.reason or error)
    if any(part in reason for part in _CERTIFICATE_REQUIRED):
        return "it wants a certificate of ours (mqtt.tls.certificate_file)"
    if any(part in reason for part in _CERTIFICATE_REFUSED):
        return f"it refuses our certificate ({reason.replace('_', ' ').lower()})"
    return f"no TLS with it: {reason.replace('_', ' ').lower()}; does mqtt.port use TLS?"
