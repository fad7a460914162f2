"""From LSASS's call to a working password through the Windows service: DLL, service and service manager under wine."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from passrelay_producer.windows.folders import MARK
from passrelay_schemas.keys import write_public
from tests.lab.broker import Broker
from tests.lab.directory import Directory
from tests.lab.folder import find_canary
from tests.lab.process import MissingServerError, wait_for
from tests.lab.relay import Relay, Service
from tests.lab.samba import DomainController
from tests.windows.harness import Harness
from tests.windows.hook_build import Built
from tests.windows.records import records
from tests.windows.test_hook_relay import Site, _rid, controller
from tests.windows.windows_python import WindowsPython
from tests.windows.wine import windows_path

__all__ = ["controller"]  # a fixture

_LOADED = r"""
import winreg
rights = winreg.KEY_WRITE | winreg.KEY_WOW64_64KEY
key = winreg.CreateKeyEx(winreg.HKEY_LOCAL_MACHINE, r"SOFTWARE\passrelay\hook\status", 0, rights)
winreg.SetValueEx(key, "State", 0, winreg.REG_SZ, "loaded")
winreg.SetValueEx(key, "Lost", 0, winreg.REG_DWORD, 2)
"""
"""As the DLL says it: LSASS's place has the harness, in a wine of its own."""


@pytest.fixture
def python(windows_folder: Path, built: Built) -> Iterator[WindowsPython]:
    try:
        made = WindowsPython(windows_folder / "relay-python")
    except MissingServerError as error:
        pytest.skip(str(error))
    made.start()
    made.install_dll(built.dll)
    yield made
    made.stop()


@pytest.fixture
def site(
    tmp_path: Path,
    shared_broker: Broker,
    shared_directory: Directory,
    controller: DomainController,
    start_harness: Callable[..., Harness],
    spool: Path,
    windows_folder: Path,
) -> Iterator[Site]:
    relay = Relay(tmp_path / "relay", shared_broker, shared_directory)
    yield Site(relay, controller, start_harness(), spool, windows_folder / "lookup-password")
    relay.close()
    shared_broker.purge_all()


def _configure(site: Site, python: WindowsPython, folder: Path) -> Path:
    """The installer's folders, and in them the lab's keys and producer.toml with its paths as Windows sees them."""
    path = folder / "producer.toml"
    (site.spool / MARK).mkdir()  # the harness has made it: else the installer would take it for another's
    python.passrelay("producer", "windows", "install", "--config", windows_path(path), "--yes")
    enrolled = site.relay.enrolment.producer_keys("dc1")
    for source in enrolled.iterdir():
        shutil.copy(source, folder / "keys")
    text = site.producer().config.read_text()
    text = text.replace(str(enrolled), str(folder / "keys"))
    text = text.replace(str(site.relay.spool("dc1").parent), str(folder / "spool"))
    path.write_text(re.sub(r'"(/[^"]*)"', lambda found: json.dumps(windows_path(Path(found[1]))), text))
    return path


def _controller_row(python: WindowsPython, config: Path) -> dict[str, str]:
    """Of doctor's checks, without its service."""
    command = ["producer", "windows", "status", "--config", windows_path(config), "--json"]
    document = json.loads(python.passrelay(*command, check=False).strip().splitlines()[-1])
    (row,) = (row for row in document["checks"] if row["id"] == "windows.controller")
    found: dict[str, str] = row
    return found


def test_the_service_carries_changes_also_those_from_while_it_was_removed(
    site: Site, python: WindowsPython, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(python.wine.environment, "LAB_DOMAIN_SID", site.dc.sid)
    config = _configure(site, python, tmp_path / "windows")
    log = config.parent / "log" / "producer.log"
    service = Service("dc1", [], config, log)  # which Windows starts and stops
    command = ["--config", windows_path(config), "--yes"]
    hook_key = windows_path(write_public(tmp_path, site.key))
    erika = site.user("service-erika")
    python.passrelay("config", "check", "--config", windows_path(config))

    # A machine that is not the controller which `controller` leads to: nothing is taken.
    python.name_host("another-controller")
    before = site.change("service-erika", _rid(erika))
    said = python.passrelay("producer", "run", "--config", windows_path(config), check=False)
    assert python.exit_code == 2
    assert f"is {site.dc.name}.{site.dc.dns_domain}, this machine is another-controller" in said
    assert _controller_row(python, config)["result"] == "fail"
    assert len(records(site.spool)) == 1
    python.name_host(site.dc.name)
    assert _controller_row(python, config)["result"] == "ok"

    python.passrelay("producer", "windows", "install", "--hook-key", hook_key, *command)
    first = site.change("service-erika", _rid(erika))
    site.wait_for(2)
    assert site.relay.directory.binds("service-erika", first)
    assert not site.relay.directory.binds("service-erika", before)
    wait_for(lambda: records(site.spool) == [], what="an empty folder")
    # Nobody has restarted this machine yet: the service tells that LSASS has no hook, and takes all the same.
    assert service.metric("passrelay_source_up") == 0
    assert ["LSASS has not loaded the hook" in line["why"] for line in service.lines("source_down")] == [True]

    python.passrelay("producer", "windows", "remove", *command)
    second = site.change("service-erika", _rid(erika))
    assert len(records(site.spool)) == 1
    python.passrelay("producer", "windows", "install", "--hook-key", hook_key, *command)
    site.wait_for(3)
    assert site.relay.directory.binds("service-erika", second)
    assert not site.relay.directory.binds("service-erika", first)
    (site.spool / "notes.txt").touch()
    wait_for(lambda: service.metric("passrelay_capture_pending", reason="quarantined") == 1, what="it is told")
    python.run("-c", _LOADED)
    assert service.metric("passrelay_source_up") == 1
    assert service.metric("passrelay_capture_pending", reason="hook_lost") == 2
    python.passrelay("producer", "windows", "remove", *command)

    actions = [json.loads(line)["action"] for line in log.read_text().splitlines()]
    assert actions.count("started") == actions.count("stopped") == 2, "both ends were clean"
    assert find_canary([site.spool, log.parent, *site.relay.data_paths])[2] == []
