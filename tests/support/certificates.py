"""Make certificate authorities and certificates for one test."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from tests.support.servers import HOST


@dataclass(frozen=True)
class Pair:
    """A certificate and its key.

    Attributes:
        certificate: file, with those between it and its authority.
        key: file.
    """

    certificate: Path
    key: Path


class Authority:
    """A certificate authority; ``ca`` is the file that clients trust."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._authority = trustme.CA()
        self._folder = folder
        self.ca = folder / f"{name}.pem"
        self._authority.cert_pem.write_to_path(self.ca)

    def issue(self, name: str, host: str = HOST, *, expired: bool = False) -> Pair:
        """A certificate for ``host``."""
        end = datetime.now(UTC) - timedelta(days=1) if expired else None
        issued = self._authority.issue_cert(host, common_name=name, not_after=end)
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        pair.certificate.write_bytes(chain)
        issued.private_key_pem.write_to_path(pair.key)
        pair.key.chmod(0o600)
        return pair
