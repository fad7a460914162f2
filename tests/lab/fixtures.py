"""The lab's servers as pytest fixtures: one of each per test session, started when a test first asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.broker import Broker
from tests.lab.certificates import CertificateAuthority
from tests.lab.directory import Directory
from tests.lab.folder import LabFolder
from tests.lab.network import Reservations


@pytest.fixture(scope="session")
def lab_folder() -> Iterator[LabFolder]:
    folder = LabFolder()
    yield folder
    folder.remove()


@pytest.fixture(scope="session")
def reservations() -> Iterator[Reservations]:
    held = Reservations()
    yield held
    held.release()


@pytest.fixture(scope="session")
def ca(lab_folder: LabFolder) -> CertificateAuthority:
    return CertificateAuthority(lab_folder.path / "ca")


@pytest.fixture(scope="session")
def shared_directory(
    lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority
) -> Iterator[Directory]:
    directory = Directory(lab_folder.path / "directory", reservations, ca)
    directory.start()
    yield directory
    directory.stop()


@pytest.fixture(scope="session")
def shared_broker(lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority) -> Iterator[Broker]:
    broker = Broker(lab_folder.path / "broker", reservations, ca)
    broker.start()
    yield broker
    broker.stop()
