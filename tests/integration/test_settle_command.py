"""`passrelay settle` with a real broker, directory and consumer: after a restore the newest passwords are back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from ldap3 import MODIFY_REPLACE
from pika.adapters.blocking_connection import BlockingConnection
from typer.testing import CliRunner, Result

from passrelay_ops import stream
from passrelay_ops.cli import app
from passrelay_schemas import filetime, topology
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.marker import Marker
from passrelay_schemas.message import record_properties
from passrelay_schemas.record import Record, envelope_text
from passrelay_schemas.verdict import Verdict
from tests.lab.broker import Broker
from tests.lab.directory import Directory
from tests.lab.directory_tree import Changes, modify
from tests.lab.enrolment import Sender, change
from tests.lab.folder import canary_password
from tests.lab.process import wait_for
from tests.lab.relay import Relay, Service

pytestmark = pytest.mark.integration

_NOBODY_HOME = "ldaps://127.0.0.1:9"


class Site:
    """A deployment with one producer's key, and an operator beside it."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.sender: Sender = relay.enrolment.enrol("dc1")
        relay.prepare()
        self._shorten_the_first_tier()
        self.guids: dict[str, UUID] = {}

    def _shorten_the_first_tier(self) -> None:
        """A settle copy of what was behind waits there for its next round."""
        [tier] = [queue for queue in topology.queues({"15s": 300}) if queue.name == topology.TIERS[0].queue]
        with self.connection() as connection:
            channel = connection.channel()
            channel.queue_delete(tier.name)
            channel.queue_declare(tier.name, durable=True, arguments=tier.arguments)
            channel.queue_bind(tier.name, tier.exchange, routing_key=tier.routing_key)

    def connection(self) -> BlockingConnection:
        return BlockingConnection(self.relay.broker.parameters())

    def consumer(self, *servers: str) -> Service:
        idm = {"servers": servers, "timeout_seconds": 3} if servers else None
        service = self.relay.consumer(f"consumer{len(self.relay.services)}", idm=idm)
        service.start()
        return service

    def change(self, name: str, password: str, kvno: int) -> None:
        """One change, published and carried to its end."""
        guid = self.guids.setdefault(name, uuid4())
        event_id = new_event_id()
        event = change(name, password, guid=guid, kvno=kvno, changed_at=filetime.now())
        self.relay.publish([self.sender.envelope(event, event_id=event_id)])
        wait_for(lambda: str(event_id) in self.relay.outcomes(), what=f"the outcome of version {kvno} of {name}")

    def journal(self, *records: Record) -> None:
        """Records as a consumer would write them."""
        with self.connection() as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for record in records:
                channel.basic_publish(topology.JOURNAL, "", record.encode(), record_properties(record), mandatory=True)

    def run(self, *arguments: str, servers: tuple[str, ...] = ()) -> Result:
        environment = {"PASSRELAY_IDM__SERVERS": json.dumps(servers)} if servers else {}
        command = ["settle", "--config", str(self.relay.ops_config()), *arguments]
        return CliRunner().invoke(app, command, env=environment)

    def settle(
        self, *arguments: str, since: str = "1h", exit_code: int = 0, servers: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        result = self.run("--since", since, "--json", *arguments, servers=servers)
        assert result.exit_code == exit_code, result.output
        document: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        assert document["schema"] == "passrelay.settle/1"
        return document


def counts(document: dict[str, Any]) -> dict[str, int]:
    return {name: document[name] for name in ("events", "behind", "superseded", "settled", "waiting")}


@pytest.fixture(scope="module")
def whole_site(
    tmp_path_factory: pytest.TempPathFactory, shared_broker: Broker, shared_directory: Directory
) -> Iterator[Site]:
    place = Site(Relay(tmp_path_factory.mktemp("site") / "relay", shared_broker, shared_directory))
    yield place
    with place.connection() as connection:
        # Gone with its short time to live: the next module makes it as it should be.
        connection.channel().queue_delete(topology.TIERS[0].queue)
    place.relay.passrelay("topology", "apply", "--config", place.relay.ops_config())


@pytest.fixture
def site(whole_site: Site) -> Iterator[Site]:
    """Empty queues and no consumer."""
    whole_site.relay.broker.purge_all()
    yield whole_site
    whole_site.relay.close()
    whole_site.relay.services.clear()


def _user(directory: Directory, password: str) -> str:
    name = f"settle{uuid4().hex[:8]}"
    directory.add_user(name, password)
    return name


def _put_back(directory: Directory, name: str, backup: dict[str, list[str]]) -> None:
    """The entry as it was in a backup, as `db2ldif` and `ldif2db` would bring it back: password, marker and all."""
    now = directory.read(name)
    changed: Changes = {
        attribute: [(MODIFY_REPLACE, backup.get(attribute, []))]
        for attribute in {*now, *backup}
        if attribute.lower().startswith("passrelay") or attribute == "userPassword"
    }
    with directory.manager() as manager:
        modify(manager, directory.user_dn(name), changed)


def test_an_entry_from_a_backup_gets_its_newest_password_back(site: Site, shared_directory: Directory) -> None:
    old, new = canary_password(), canary_password()
    restored, untouched = _user(shared_directory, canary_password()), _user(shared_directory, canary_password())
    site.consumer()
    site.change(restored, old, 1)
    backup = shared_directory.read(restored)
    site.change(restored, new, 2)
    site.change(untouched, new, 1)
    marker = shared_directory.read(untouched)["passrelayMarker"]
    _put_back(shared_directory, restored, {name: backup[name] for name in backup})
    before = Marker.parse(shared_directory.read(restored)["passrelayMarker"][0])
    assert before.kvno == 1
    first = counts(site.settle())
    # The old write's copy may be looked at before the new one is written again: then the entry shows just that write.
    ends = {"superseded": first.pop("superseded"), "settled": first.pop("settled")}
    assert ends in ({"superseded": 1, "settled": 2}, {"superseded": 0, "settled": 3})
    assert first == {"events": 3, "behind": 1, "waiting": 0}
    assert shared_directory.binds(restored, new)
    assert not shared_directory.binds(restored, old)
    assert shared_directory.read(untouched)["passrelayMarker"] == marker
    # Once more: there is nothing to repair any more.
    assert counts(site.settle()) == {"events": 3, "behind": 0, "superseded": 1, "settled": 2, "waiting": 0}


def test_nothing_was_written_so_there_is_nothing_to_settle(site: Site) -> None:
    document = site.settle()
    assert counts(document) == {"events": 0, "behind": 0, "superseded": 0, "settled": 0, "waiting": 0}
    assert document["journal_begins_at"] is None


def test_a_listed_server_that_cannot_be_reached_leaves_events_waiting(site: Site, shared_directory: Directory) -> None:
    user = _user(shared_directory, canary_password())
    servers = (shared_directory.ldaps_url, _NOBODY_HOME)
    site.consumer(*servers)
    site.change(user, canary_password(), 1)
    document = site.settle("--wait", "1", exit_code=1, servers=servers)
    assert counts(document) == {"events": 1, "behind": 0, "superseded": 0, "settled": 0, "waiting": 1}
    assert len(document["waiting_events"]) == 1
    assert [failure["subject"] for failure in document["failures"]] == ["1 of 1 events", _NOBODY_HOME]
    # With the server off every consumer's list the very copies that wait come to their end.
    site.relay.services[-1].stop()
    site.consumer(shared_directory.ldaps_url)
    assert counts(site.settle()) == {"events": 1, "behind": 0, "superseded": 0, "settled": 1, "waiting": 0}


def test_what_waits_is_told_with_the_accounts_name(site: Site, shared_directory: Directory) -> None:
    gone, rebound = _user(shared_directory, canary_password()), _user(shared_directory, canary_password())
    site.consumer()
    for user in (gone, rebound):
        site.change(user, canary_password(), 1)
    shared_directory.delete_user(gone)
    config = str(site.relay.ops_config())
    site.relay.passrelay("idm", "marker", "rebind", rebound, "--guid", str(uuid4()), "--yes", "--config", config)
    document = site.settle("--wait", "8", exit_code=1)
    # What was written for the account before the rebind is not to come back: its copy has ended.
    assert (document["settled"], document["superseded"], document["waiting"]) == (0, 1, 1)
    details = {failure["subject"].partition(" of ")[2]: failure["detail"] for failure in document["failures"]}
    assert "gone for good" in details[gone]
    assert rebound not in details


def test_without_a_consumer_it_says_so(site: Site, shared_directory: Directory) -> None:
    user = _user(shared_directory, canary_password())
    site.consumer()
    site.change(user, canary_password(), 1)
    site.relay.services[-1].stop()
    failure, entry = site.settle("--wait", "0.5", exit_code=1)["failures"]
    assert failure["subject"] == "1 of 1 events"
    assert "a consumer runs" in failure["detail"]
    assert "every server has it" in entry["detail"]


def test_a_record_without_a_readable_envelope_is_named_and_stops_nothing(
    site: Site, shared_directory: Directory
) -> None:
    user, event_id = _user(shared_directory, canary_password()), new_event_id()
    site.journal(
        Record(
            event_id=event_id,
            verdict=Verdict.APPLIED,
            received_at=datetime.now(UTC),
            envelope=envelope_text(b"not an envelope"),
        )
    )
    site.consumer()
    site.change(user, canary_password(), 1)
    document = site.settle(exit_code=1)
    assert (document["events"], document["settled"]) == (1, 1)
    assert [failure["subject"] for failure in document["failures"]] == [f"event {event_id}"]
    assert "producer capture --user" in document["failures"][0]["detail"]


@pytest.fixture
def small_journal(site: Site) -> Iterator[None]:
    """A journal that RabbitMQ begins to drop the oldest segments of after some records."""
    [journal] = [queue for queue in topology.queues() if queue.name == topology.JOURNAL]
    small = {"x-max-length-bytes": 20_000, "x-stream-max-segment-size-bytes": 5_000}

    def make(arguments: dict[str, Any]) -> None:
        with site.connection() as connection:
            channel = connection.channel()
            channel.queue_delete(journal.name)
            wait_for(lambda: _is_gone(connection, journal.name), what="the journal deleted")
            channel.queue_declare(journal.name, durable=True, arguments=arguments)
            channel.queue_bind(journal.name, journal.exchange)

    make(journal.arguments | small)
    yield
    make(journal.arguments)


@pytest.mark.usefixtures("small_journal")
def test_a_time_before_what_the_journal_still_holds_is_refused(site: Site) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    moments = [start + timedelta(days=day) for day in range(200)]
    site.journal(
        *(Record(event_id=new_event_id(), verdict=Verdict.SUPERSEDED, received_at=moment) for moment in moments)
    )
    [failure] = site.settle(since="2026-01-01T00:00:00Z", exit_code=2)["failures"]
    assert "reaches back to 2026-" in failure["detail"]
    assert "producer capture --all" in failure["detail"]
    reach = failure["detail"].partition("reaches back to ")[2].split()[0]
    assert site.settle(since=reach)["events"] == 0


def _is_gone(connection: BlockingConnection, name: str) -> bool:
    channel = connection.channel()
    try:
        channel.queue_declare(name, passive=True)
    except Exception:  # noqa: BLE001 - the broker closes the channel with 404
        return True
    channel.close()
    return False


def test_a_stream_is_followed_behind_an_offset_until_the_time_is_over(site: Site) -> None:
    records = [Record(event_id=new_event_id(), verdict=Verdict.APPLIED, received_at=datetime.now(UTC)) for _ in "1234"]
    site.journal(*records[:3])
    with site.connection() as connection:
        wait_for(lambda: stream.last_offset(connection, topology.JOURNAL) == 2, what="three records in the journal")
        following = stream.follow(connection, topology.JOURNAL, after=1, seconds=30)
        assert next(following).offset == 2
        site.journal(records[3])
        assert next(following).body == records[3].encode()
        following.close()  # type: ignore[attr-defined]
        everything = stream.follow(connection, topology.JOURNAL, after=None, seconds=30)
        assert [next(everything).offset for _ in records] == [0, 1, 2, 3]
        everything.close()  # type: ignore[attr-defined]
        assert list(stream.follow(connection, topology.JOURNAL, after=3, seconds=0.1)) == []


def test_a_missing_topology_names_the_command_that_makes_it(site: Site) -> None:
    with site.connection() as connection:
        connection.channel().exchange_delete(topology.EVENTS)
    try:
        result = site.run("--since", "1h")
    finally:
        site.relay.passrelay("topology", "apply", "--config", site.relay.ops_config(), check=False)
    assert result.exit_code == 3
    assert "passrelay topology apply" in result.stderr
