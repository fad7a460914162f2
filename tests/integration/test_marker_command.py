"""`passrelay idm marker` on real directory servers: what an operator sees, and what consumers then do."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from ldap3 import MODIFY_ADD, MODIFY_DELETE, MODIFY_REPLACE
from typer.testing import CliRunner

from passrelay_consumer.handler import Handler
from passrelay_consumer.outcome import Delivery, Outcome
from passrelay_consumer.servers import Servers
from passrelay_ops import floors, markers
from passrelay_ops.cli import app
from passrelay_schemas import filetime
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.logs import Log
from passrelay_schemas.marker import Marker
from passrelay_schemas.message import Counters
from passrelay_schemas.settings import ConsumerSettings
from passrelay_schemas.verdict import Reason, Verdict
from tests.lab.certificates import CertificateAuthority
from tests.lab.directory import Directory
from tests.lab.directory_tree import Changes, modify
from tests.lab.enrolment import DOMAIN, Enrolment, Sender, change, toml
from tests.lab.folder import LabFolder, canary_password
from tests.lab.network import Reservations
from tests.lab.replication import Suppliers

pytestmark = pytest.mark.integration

_NAMES = (f"floor{number}" for number in itertools.count())
_NOBODY_HOME = "ldaps://127.0.0.1:9"


@dataclass
class Office:
    """An operator's ops.toml and a consumer's handler for the same servers."""

    folder: Path
    directory: Directory
    enrolment: Enrolment
    sender: Sender
    handler: Handler
    settings: dict[str, Any]
    guids: dict[str, UUID] = field(default_factory=dict)
    start: int = field(default_factory=filetime.now)

    def run(self, *arguments: str, exit_code: int = 0, **changes: Any) -> dict[str, Any]:
        """The command's document; `changes` replace keys of [idm], or with `domain` the whole [[domain]] list."""
        domains = changes.pop("domain", self.settings["domain"])
        document = {**self.settings, "idm": self.settings["idm"] | changes, "domain": domains}
        path = self.folder / "ops.toml"
        path.write_text(toml({name: value for name, value in document.items() if value}))
        result = CliRunner().invoke(app, ["idm", "marker", *arguments, "--config", str(path), "--json"])
        assert result.exit_code == exit_code, result.output
        parsed: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        return parsed

    def complaint(self, *arguments: str, exit_code: int, **changes: Any) -> str:
        """What the command says about its failure."""
        failures = self.run(*arguments, exit_code=exit_code, **changes)["failures"]
        return "\n".join(failure["detail"] for failure in failures)

    def user(self, **attributes: str) -> str:
        name = next(_NAMES)
        self.directory.add_user(name, canary_password(), **attributes)
        return name

    def send(self, name: str, password: str, kvno: int, guid: UUID | None = None) -> Outcome:
        """A change of the AD account of this name, as a consumer handles it."""
        owner = guid or self.guids.setdefault(name, uuid4())
        event = change(name, password, guid=owner, kvno=kvno, changed_at=self.start + kvno)
        outcome = self.handler.handle(Delivery(self.sender.envelope(event), Counters(), datetime.now(UTC)))
        assert isinstance(outcome, Outcome)
        return outcome

    def marker(self, name: str) -> Marker:
        return Marker.parse(self.directory.read(name)["passrelayMarker"][0])


@pytest.fixture(scope="module")
def office(shared_directory: Directory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder = tmp_path_factory.mktemp("office")
    enrolment = Enrolment(folder / "keys")
    sender = enrolment.enrol("dc1")
    settings: dict[str, Any] = {
        "broker": {"url": "amqp://127.0.0.1/"},
        "keys": {"directory": enrolment.consumer_keys},
        "idm": {
            # The second one is the same server over StartTLS: to the command it is one more.
            "servers": [shared_directory.ldaps_url, shared_directory.ldap_url],
            "ca_file": shared_directory.ca_file,
            "bind_dn": shared_directory.service_dn,
            "password_file": shared_directory.password_file,
            "timeout_seconds": 3,
        },
        "domain": [enrolment.domain(shared_directory.search_base)],
    }
    consumer = ConsumerSettings(**settings)
    servers = Servers(consumer.idm, log=Log("test"))
    handler = Handler(consumer, keyring=Keyring(enrolment.consumer_keys), servers=servers)
    yield Office(folder, shared_directory, enrolment, sender, handler, settings)
    handler.close()
    servers.close()


@pytest.fixture(scope="module")
def stranger(
    shared_directory: Directory, lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority
) -> Iterator[Directory]:
    """A second server that does not replicate with the first, as one whose agreement is broken."""
    directory = Directory(lab_folder.path / "stranger", reservations, ca)
    directory.start()
    # The service account is the same one on every IdM server.
    password = shared_directory.password_file.read_text()
    with directory.manager() as manager:
        modify(manager, directory.service_dn, {"userPassword": [(MODIFY_REPLACE, [password])]})
    yield directory
    directory.kill()


# --- show


def test_show_tells_every_server_and_what_the_marker_means(office: Office) -> None:
    user = office.user()
    office.send(user, canary_password(), 7)
    document = office.run("show", user)
    assert document["schema"] == "passrelay.idm/1"
    assert document["identical"] is True
    first, second = document["entries"]
    assert (first["server"], second["server"]) == (office.directory.ldaps_url, office.directory.ldap_url)
    assert first["marker"] == second["marker"]
    assert (first["dn"], first["marker"]["kvno"]) == (office.directory.user_dn(user), 7)
    assert first["marker"]["guid"] == str(office.guids[user])
    assert "password version 7" in first["marker"]["text"]
    assert office.run("show", office.directory.user_dn(user))["entries"] == document["entries"]


def test_show_of_an_entry_that_ad_never_wrote(office: Office) -> None:
    assert [entry["marker"] for entry in office.run("show", office.user())["entries"]] == [None, None]


def test_show_names_a_server_that_is_down_and_still_shows_the_others(office: Office) -> None:
    user = office.user()
    office.send(user, canary_password(), 2)
    document = office.run("show", user, exit_code=3, servers=[_NOBODY_HOME, office.directory.ldaps_url])
    assert [failure["subject"] for failure in document["failures"]] == [_NOBODY_HOME]
    down, up = document["entries"]
    assert (down["marker"], up["marker"]["kvno"]) == (None, 2)
    assert office.complaint("show", user, exit_code=3, servers=[_NOBODY_HOME]).count(_NOBODY_HOME) == 1


def test_show_sees_that_servers_differ(office: Office, stranger: Directory) -> None:
    user = office.user()
    office.send(user, canary_password(), 3)
    stranger.add_user(user)
    servers = [office.directory.ldaps_url, stranger.ldaps_url]
    document = office.run("show", user, exit_code=1, servers=servers)
    assert document["identical"] is False
    assert "passrelay settle" in document["failures"][0]["detail"]
    plan = office.run("reset", user, servers=servers)
    assert (plan["written"], plan["identical"]) == (False, False)


# --- reset


def test_reset_without_yes_writes_nothing(office: Office) -> None:
    user = office.user()
    office.send(user, canary_password(), 7)
    before = office.directory.read(user)
    plan = office.run("reset", user)
    assert (plan["written"], plan["old"]["kvno"], plan["new"]["kvno"]) == (False, 7, 6)
    assert plan["new"]["flags"] == ["f"]
    assert office.directory.read(user) == before


def test_reset_lets_the_same_password_come_once_more(office: Office) -> None:
    """As after `ipa user-undel`: the marker is there, the password is not, and AD has nothing newer."""
    user, password = office.user(), canary_password()
    office.send(user, password, 7)
    with office.directory.manager() as manager:
        modify(manager, office.directory.user_dn(user), {"userPassword": [(MODIFY_DELETE, [])]})
    assert office.send(user, password, 7).verdict is Verdict.DUPLICATE
    done = office.run("reset", user, "--yes")
    assert (done["written"], done["identical"]) == (True, True)
    assert [entry["marker"]["flags"] for entry in done["entries"]] == [["f"], ["f"]]
    assert office.send(user, canary_password(), 6).verdict is Verdict.SUPERSEDED
    assert office.send(user, password, 7).verdict is Verdict.APPLIED
    assert office.directory.binds(user, password)


def test_reset_twice_is_as_good_as_once(office: Office) -> None:
    user = office.user()
    office.send(user, canary_password(), 7)
    office.run("reset", user, "--yes")
    floor = office.marker(user)
    again = office.run("reset", user, "--yes")
    assert again["written"] is False
    assert office.marker(user) == floor


def test_reset_to_a_version_lets_only_newer_ones_pass(office: Office) -> None:
    user, newer = office.user(), canary_password()
    office.send(user, canary_password(), 100_007)
    assert office.send(user, newer, 9).verdict is Verdict.SUPERSEDED
    office.run("reset", user, "--kvno", "8", "--yes")
    assert office.send(user, canary_password(), 8).verdict is Verdict.SUPERSEDED
    assert office.send(user, newer, 9).verdict is Verdict.APPLIED
    assert office.directory.binds(user, newer)


def test_reset_of_a_marker_that_a_consumer_changes_meanwhile_writes_nothing(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, newer = office.user(), canary_password()
    office.send(user, canary_password(), 7)
    write = floors.write

    def late(*arguments: Any) -> None:
        office.send(user, newer, 8)
        write(*arguments)

    monkeypatch.setattr(floors, "write", late)
    assert "changed meanwhile" in office.complaint("reset", user, "--yes", exit_code=4)
    assert office.marker(user).kvno == 8
    assert office.directory.binds(user, newer)


def test_reset_says_which_server_did_not_get_the_floor(
    office: Office, stranger: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(markers, "REPLICATION_SECONDS", 0.5)
    user = office.user()
    office.send(user, canary_password(), 7)
    stranger.add_user(user, passrelayMarker=str(office.marker(user)))
    servers = [_NOBODY_HOME, office.directory.ldaps_url, stranger.ldaps_url]
    document = office.run("reset", user, "--yes", exit_code=3, servers=servers)
    assert (document["written"], document["identical"]) == (True, False)
    assert document["servers"]["directory"] == office.directory.ldaps_url
    assert [failure["subject"] for failure in document["failures"]] == [
        _NOBODY_HOME,
        "markers differ",
        stranger.ldaps_url,
    ]


# --- rebind


def test_rebind_after_an_account_was_made_again_under_the_same_name(office: Office) -> None:
    user, hired, password = office.user(), uuid4(), canary_password()
    office.send(user, canary_password(), 42)
    assert office.send(user, password, 1, guid=hired).reason is Reason.IDENTITY
    plan = office.run("rebind", user, "--guid", str(hired))
    assert (plan["written"], plan["new"]["guid"]) == (False, str(hired))
    office.run("rebind", user, "--guid", str(hired), "--yes")
    assert office.send(user, canary_password(), 43).reason is Reason.IDENTITY
    assert office.send(user, password, 1, guid=hired).verdict is Verdict.APPLIED
    assert office.directory.binds(user, password)


def test_rebind_lets_a_change_pass_that_idm_calls_older(office: Office) -> None:
    user, password, guid = office.user(krbLastPwdChange="20990101000000Z"), canary_password(), uuid4()
    outcome = office.send(user, password, 1, guid=guid)
    assert (outcome.verdict, outcome.reason) == (Verdict.SUPERSEDED, "idm_newer")
    done = office.run("rebind", user, "--guid", str(guid), "--yes")
    assert (done["old"], done["identical"]) == (None, True)
    assert office.send(user, password, 1, guid=guid).verdict is Verdict.APPLIED
    assert office.directory.binds(user, password)


def test_rebind_refuses_admins_machines_and_the_same_account(office: Office) -> None:
    user = office.user()
    office.send(user, canary_password(), 4)
    before = office.marker(user)
    same = office.complaint("rebind", user, "--guid", str(office.guids[user]), "--yes", exit_code=4)
    assert "marker reset" in same
    office.directory.add_to_group(user, "admins")
    for arguments in (("rebind", user, "--guid", str(uuid4())), ("reset", user)):
        assert "admins" in office.complaint(*arguments, "--yes", exit_code=4)
    assert office.marker(user) == before
    office.directory.add_user("krbtgt_7")
    assert "ticket-granting" in office.complaint("rebind", "krbtgt_7", "--guid", str(uuid4()), "--yes", exit_code=4)


# --- several servers


@pytest.fixture(scope="module")
def suppliers(lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority) -> Iterator[Suppliers]:
    """Two servers that replicate to each other, as IdM's do."""
    pair = Suppliers(lab_folder.path / "suppliers", reservations, ca)
    pair.start()
    yield pair
    pair.close()


def test_a_floor_reaches_every_server_or_the_one_that_did_not_get_it_is_named(
    office: Office, suppliers: Suppliers, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = suppliers.a, suppliers.b
    idm: dict[str, Any] = {"servers": [a.ldaps_url, b.ldaps_url], "password_file": a.password_file}
    user = next(_NAMES)
    marker = Marker(0, 7, filetime.now(), uuid4(), new_event_id(), "2026-11-24T12:00:00.000Z")
    a.add_user(user, canary_password(), passrelayMarker=str(marker))
    suppliers.wait_in_sync()
    done = office.run("reset", user, "--yes", **idm)
    assert (done["written"], done["identical"]) == (True, True)
    floor = done["new"]
    assert [entry["marker"] for entry in done["entries"]] == [floor, floor]

    monkeypatch.setattr(markers, "REPLICATION_SECONDS", 0.5)
    suppliers.cut()
    torn = office.run("rebind", user, "--guid", str(uuid4()), "--yes", exit_code=1, **idm)
    assert [entry["marker"] for entry in torn["entries"]] == [torn["new"], floor]
    assert b.ldaps_url in [failure["subject"] for failure in torn["failures"]]
    suppliers.heal()
    suppliers.wait_in_sync()
    shown = office.run("show", user, **idm)
    assert [entry["marker"] for entry in shown["entries"]] == [torn["new"], torn["new"]]


# --- what cannot be done, and why


def test_wrong_users_are_named(office: Office) -> None:
    assert "no such entry" in office.complaint("show", "nobody-there", exit_code=2)
    assert "no such entry" in office.complaint("reset", office.directory.user_dn("nobody-there"), exit_code=2)
    assert "not a DN" in office.complaint("show", "uid=", exit_code=2)
    assert "no account name" in office.complaint("show", "a\nb", exit_code=2)
    assert "no marker" in office.complaint("reset", office.user(), "--yes", exit_code=2)


def test_an_ambiguous_user_is_refused(office: Office) -> None:
    one, two = office.user(), office.user()
    with office.directory.manager() as manager:
        changes: Changes = {"objectClass": [(MODIFY_ADD, ["ntUser"])], "ntUserDomainId": [(MODIFY_ADD, [one])]}
        modify(manager, office.directory.user_dn(two), changes)
    assert "several entries" in office.complaint("reset", one, "--yes", exit_code=2)
    assert office.run("show", office.directory.user_dn(one))["entries"]


def test_a_marker_that_something_else_wrote_is_not_touched(office: Office) -> None:
    user = office.user(passrelayMarker="hands off")
    for arguments in (("show", user), ("reset", user, "--yes"), ("rebind", user, "--guid", str(uuid4()), "--yes")):
        assert "Directory Manager" in office.complaint(*arguments, exit_code=1)
    assert office.directory.read(user)["passrelayMarker"] == ["hands off"]


def test_a_configuration_without_idm_or_domain_is_explained(office: Office, tmp_path: Path) -> None:
    path = tmp_path / "ops.toml"
    path.write_text(toml({"broker": {"url": "amqp://127.0.0.1/"}}))
    result = CliRunner().invoke(app, ["idm", "marker", "show", "alice", "--config", str(path)])
    assert result.exit_code == 2
    assert "[idm] is missing" in result.stderr
    [domain] = office.settings["domain"]
    assert "search_base" in office.complaint("show", "alice", exit_code=2, domain=[])
    other = domain | {"name": "other.example", "sid": "S-1-5-21-9-9-9"}
    assert "--domain" in office.complaint("show", "alice", exit_code=2, domain=[domain, other])
    assert "no such [[domain]]" in office.complaint("show", "alice", "--domain", "x.example", exit_code=2)
    user = office.user()
    assert office.run("show", user, "--domain", DOMAIN.upper(), domain=[domain, other])["domain"] == DOMAIN


def test_a_refused_login_and_a_read_only_server_are_told_apart(office: Office) -> None:
    wrong = office.folder / "wrong.password"
    wrong.touch(mode=0o600)
    wrong.write_text("wrong\n")
    user = office.user()
    office.send(user, canary_password(), 5)
    assert "password_file" in office.complaint("show", user, exit_code=2, password_file=wrong)
    office.directory.read_only(on=True)
    try:
        assert "repair the server" in office.complaint("reset", user, "--yes", exit_code=3)
    finally:
        office.directory.read_only(on=False)
    assert office.marker(user).kvno == 5
