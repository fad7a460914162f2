"""The lab's own certificate authority (trustme): one CA per lab, leaf certificates as PEM files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificate:
    """Paths of one leaf certificate."""

    certificate: Path
    key: Path


class CertificateAuthority:
    """Issues certificates into a folder; `ca_file` is what clients pin."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ca_file = folder / "ca.pem"
        self._ca = trustme.CA()
        self._ca.cert_pem.write_to_path(str(self.ca_file))

    def issue(self, *names: str, common_name: str | None = None, not_after: datetime | None = None) -> Certificate:
        """A certificate for host names or IP addresses (subjectAltName); the first name also names the files."""
        leaf = self._ca.issue_cert(*names, common_name=common_name or names[0], not_after=not_after)
        certificate, key = self.folder / f"{names[0]}.pem", self.folder / f"{names[0]}.key"
        leaf.private_key_pem.write_to_path(str(key))
        key.chmod(0o600)
        certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        return Certificate(certificate, key)
