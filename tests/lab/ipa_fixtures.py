"""A server with IPA's plugin as pytest fixtures. Where the plugin cannot be had, what needs it skips and says why."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.certificates import CertificateAuthority
from tests.lab.folder import LabFolder
from tests.lab.ipa_directory import IpaDirectory
from tests.lab.ipa_plugin import Plugin, PluginUnavailableError, obtain
from tests.lab.network import Reservations

_WHY_NOT = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def ipa_plugin(request: pytest.FixtureRequest) -> Plugin:
    try:
        return obtain()
    except PluginUnavailableError as error:
        request.config.stash[_WHY_NOT] = str(error)
        pytest.skip("IPA's password plugin cannot be had here, the last line says why")


@pytest.fixture(scope="session")
def shared_ipa_directory(
    lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority, ipa_plugin: Plugin
) -> Iterator[IpaDirectory]:
    directory = IpaDirectory(lab_folder.path / "ipa", reservations, ca, ipa_plugin)
    directory.start()
    yield directory
    directory.stop()


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line of the run, so that nobody takes skipped tests for good ones."""
    why_not = config.stash.get(_WHY_NOT, None)
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if why_not is not None and terminal is not None:
        terminal.write_line(f"The tests marked ipa were skipped. {why_not}")
