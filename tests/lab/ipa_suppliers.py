"""Two directory servers with IPA's password plugin that replicate to each other, as two IdM servers do."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tests.lab.certificates import CertificateAuthority
from tests.lab.ipa_directory import IpaDirectory
from tests.lab.ipa_plugin import Plugin
from tests.lab.network import Reservations
from tests.lab.replication import Suppliers


class IpaSuppliers(Suppliers):
    """Suppliers of which each lists passrelay's service account."""

    a: IpaDirectory
    b: IpaDirectory

    def __init__(self, folder: Path, reservations: Reservations, ca: CertificateAuthority, plugin: Plugin) -> None:
        super().__init__(folder, reservations, ca, make=partial(IpaDirectory, plugin=plugin))

    def start(self) -> None:
        """What stands in cn=config does not replicate, so it is written on each."""
        super().start()
        self.b.add_manager()
