"""The operator's commands against a real broker: topology, dead letters, status."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from typer.testing import CliRunner, Result

from passrelay_ops import stream, topology
from passrelay_ops.cli import app
from passrelay_ops.topology import State
from passrelay_schemas.envelope import Envelope
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.marker import Marker
from passrelay_schemas.message import REPLAYS, envelope_properties, record_properties
from passrelay_schemas.note import NoteSealer
from passrelay_schemas.record import SCHEMA as RECORD_SCHEMA
from passrelay_schemas.record import Record, envelope_text, note_text
from passrelay_schemas.topology import DEAD, EVENTS, EXCHANGES, JOURNAL, RETRY, queues
from passrelay_schemas.verdict import REPAIRS, Reason, Verdict
from tests.lab.broker import Broker
from tests.lab.certificates import CertificateAuthority
from tests.lab.directory import Directory
from tests.lab.enrolment import DOMAIN, DOMAIN_SID, Enrolment, Sender, change, toml
from tests.lab.folder import CANARY, canary_password
from tests.lab.process import wait_for

pytestmark = pytest.mark.integration

OPERATOR = "operator"
ACT = ("--yes", "--reason-text", "ticket 4711")
START = datetime(2026, 11, 1, 12, tzinfo=UTC)


class Operator:
    """A host with an ops.toml: runs commands, and writes what consumers would write."""

    def __init__(self, folder: Path, broker: Broker, ca: CertificateAuthority) -> None:
        self.folder = folder
        self.broker = broker
        self.enrolment = Enrolment(folder)
        self.sender: Sender = self.enrolment.enrol("dc1")
        certificate = broker.certificate(OPERATOR)
        self.document: dict[str, Any] = {
            "broker": {
                "url": broker.url(),
                "ca_file": ca.ca_file,
                "certificate_file": certificate.certificate,
                "key_file": certificate.key,
            },
            "keys": {"directory": self.enrolment.consumer_keys},
        }

    def run(self, *arguments: str, **sections: dict[str, Any]) -> Result:
        path = self.folder / "ops.toml"
        path.write_text(toml(self.document | sections))
        return CliRunner().invoke(app, [*arguments, "--config", str(path)])

    def document_of(self, *arguments: str, exit_code: int = 0, **sections: Any) -> dict[str, Any]:
        result = self.run(*arguments, "--json", **sections)
        assert result.exit_code == exit_code, result.stderr
        document: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        return document

    def letters(self, *arguments: str) -> list[dict[str, Any]]:
        letters: list[dict[str, Any]] = self.document_of("dead", "list", *arguments)["letters"]
        return letters

    def record(self, event_id: UUID, verdict: Verdict = Verdict.DEAD, **fields: Any) -> Record:
        account, guid = fields.pop("account", None), fields.pop("guid", None)
        note = None
        if account or guid:
            text = note_text(account=account, guid=guid, diagnostic=fields.pop("diagnostic", "why"))
            note = NoteSealer().seal(text, event_id=event_id, ops_key=self.enrolment.ops)
        defaults = {"producer": "dc1", "domain": DOMAIN, "received_at": START, "note": note}
        return Record.model_validate({"event_id": event_id, "verdict": verdict, **defaults, **fields})

    def publish(self, *records: Record, to: str = DEAD) -> None:
        with open_channel(self.broker) as channel:
            for record in records:
                channel.basic_publish(to, "", record.encode(), record_properties(record), mandatory=True)

    def envelope(self, event_id: UUID) -> bytes:
        event = change("alice", canary_password(), guid=uuid4(), kvno=7, changed_at=134_084_736_000_000_000)
        return self.sender.envelope(event, event_id=event_id)


class open_channel:  # noqa: N801 - reads like the function it stands for
    """A confirming channel of the administrator."""

    def __init__(self, broker: Broker) -> None:
        self._connection = BlockingConnection(broker.parameters())

    def __enter__(self) -> BlockingChannel:
        channel = self._connection.channel()
        channel.confirm_delivery()
        return channel

    def __exit__(self, *_: object) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory, shared_broker: Broker, ca: CertificateAuthority) -> Operator:
    shared_broker.add_user(OPERATOR, configure="^passrelay\\.", write="^passrelay\\.", read="^passrelay\\.")
    return Operator(tmp_path_factory.mktemp("ops"), shared_broker, ca)


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker of these tests never crashes, so nobody need wait for its disk."""
    monkeypatch.setattr(topology, "_SETTLE_SECONDS", 0, raising=False)


@pytest.fixture
def bare(shared_broker: Broker) -> Iterator[BlockingConnection]:
    """A broker without any of our things."""
    connection = BlockingConnection(shared_broker.parameters())
    channel = connection.channel()
    for queue in queues():
        channel.queue_delete(queue.name)
    for exchange in EXCHANGES:
        channel.exchange_delete(exchange.name)
    # A stream is deleted in the background: declared again too soon, it would be the old one, on its way out.
    wait_for(
        lambda: all(finding.state is State.MISSING for finding in topology.check(connection)), what="everything deleted"
    )
    yield connection
    connection.close()


@pytest.fixture
def empty(bare: BlockingConnection) -> BlockingConnection:
    """A broker with the whole topology and nothing in it."""
    assert all(finding.good for finding in topology.apply(bare))
    return bare


def states(document: dict[str, Any]) -> dict[str, str]:
    return {f"{row['kind']} {row['name']}": row["state"] for row in document["topology"]}


# --- topology


@pytest.mark.usefixtures("bare")
def test_apply_declares_everything_and_repeats_harmlessly(operator: Operator) -> None:
    missing = operator.document_of("topology", "check", exit_code=1)
    assert set(states(missing).values()) == {"missing"}
    assert all("topology apply" in failure["detail"] for failure in missing["failures"])

    first = states(operator.document_of("topology", "apply"))
    assert {state for name, state in first.items() if not name.startswith("binding")} == {"created"}
    again = operator.document_of("topology", "apply")
    assert set(states(again).values()) == {"ok"}
    assert again["servers"]["rabbitmq"] == operator.broker.version
    assert set(states(operator.document_of("topology", "check")).values()) == {"ok"}


def test_apply_binds_every_queue(operator: Operator, bare: BlockingConnection) -> None:
    operator.document_of("topology", "apply")
    with open_channel(operator.broker) as channel:
        for queue in queues():
            channel.basic_publish(queue.exchange, queue.routing_key, b"x", pika.BasicProperties(), mandatory=True)
    for queue in queues():
        if queue.arguments["x-queue-type"] == "quorum":
            channel = bare.channel()
            assert channel.queue_purge(queue.name).method.message_count == 1


def test_check_creates_nothing(operator: Operator, bare: BlockingConnection) -> None:
    operator.document_of("topology", "check", exit_code=1)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
        bare.channel().queue_declare(EVENTS, passive=True)


def test_a_queue_with_another_argument_is_named_with_the_repair(operator: Operator, bare: BlockingConnection) -> None:
    [events] = [queue for queue in queues() if queue.name == EVENTS]
    arguments = events.arguments | {"x-delivery-limit": 7}
    bare.channel().queue_declare(EVENTS, durable=True, arguments=arguments)
    bare.channel().exchange_declare(RETRY, "fanout", durable=True)
    for command in ("apply", "check"):
        document = operator.document_of("topology", command, exit_code=1)
        details = {failure["subject"]: failure["detail"] for failure in document["failures"]}
        assert "x-delivery-limit must be '1000'" in details[f"queue {EVENTS}"]
        assert "it is '7'" in details[f"queue {EVENTS}"]
        assert f"rabbitmqctl delete_queue {EVENTS}" in details[f"queue {EVENTS}"]
        assert "type must be 'direct'" in details[f"exchange {RETRY}"]


@pytest.mark.usefixtures("empty")
def test_a_user_without_permission_is_told(operator: Operator) -> None:
    operator.broker.add_user(OPERATOR, configure="^$", write="^passrelay\\.", read="^passrelay\\.")
    try:
        document = operator.document_of("topology", "check", exit_code=2)
        assert set(states(document).values()) == {"refused"}
        assert "set_permissions" in document["failures"][0]["detail"]
    finally:
        operator.broker.add_user(OPERATOR, configure="^passrelay\\.", write="^passrelay\\.", read="^passrelay\\.")


def test_a_broker_with_a_certificate_of_another_ca(operator: Operator, tmp_path: Path) -> None:
    other = CertificateAuthority(tmp_path / "other")
    result = operator.run("topology", "check", broker=operator.document["broker"] | {"ca_file": other.ca_file})
    assert result.exit_code == 2
    assert "ca_file must be the CA that signed it" in result.stderr


def test_a_client_that_the_broker_does_not_know(operator: Operator) -> None:
    stranger = operator.broker.certificate("stranger")
    files = {"certificate_file": stranger.certificate, "key_file": stranger.key}
    result = operator.run("topology", "check", broker=operator.document["broker"] | files)
    assert result.exit_code == 2
    assert "login refused" in result.stderr


# --- the stream


def test_an_empty_stream_ends_at_once(empty: BlockingConnection) -> None:
    assert stream.last_offset(empty, DEAD) is None
    assert list(stream.read(empty, DEAD)) == []
    assert list(stream.read(empty, DEAD, since=datetime.now(UTC))) == []


def test_a_stream_is_read_whole_in_order_and_again(empty: BlockingConnection, operator: Operator) -> None:
    bodies = [b"%d" % number for number in range(1700)]
    with open_channel(operator.broker) as channel:
        for body in bodies:
            channel.basic_publish(DEAD, "", body, pika.BasicProperties(delivery_mode=2), mandatory=True)
    assert stream.last_offset(empty, DEAD) == len(bodies) - 1
    for _ in range(2):
        assert [message.body for message in stream.read(empty, DEAD)] == bodies


def test_what_arrives_while_reading_is_not_read(empty: BlockingConnection, operator: Operator) -> None:
    operator.publish(*(operator.record(new_event_id()) for _ in range(3)))
    reading = stream.read(empty, DEAD)
    first = next(reading)
    operator.publish(operator.record(new_event_id()))
    assert [first.offset, *(message.offset for message in reading)] == [0, 1, 2]


def test_a_reader_may_leave_early(empty: BlockingConnection, operator: Operator) -> None:
    operator.publish(*(operator.record(new_event_id()) for _ in range(3)))
    reading = stream.read(empty, DEAD)
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    assert len(list(stream.read(empty, DEAD))) == 3


def test_reading_since_a_moment(empty: BlockingConnection, operator: Operator) -> None:
    operator.publish(operator.record(new_event_id()))
    assert list(stream.read(empty, DEAD, since=datetime.now(UTC) + timedelta(hours=1))) == []
    assert len(list(stream.read(empty, DEAD, since=datetime.now(UTC) - timedelta(hours=1)))) == 1


# --- dead letters


@pytest.mark.usefixtures("empty")
def test_no_letters(operator: Operator) -> None:
    document = operator.document_of("dead", "list")
    assert (document["schema"], document["letters"]) == ("passrelay.dead/1", [])


@pytest.mark.usefixtures("empty")
def test_letters_are_listed_by_their_first_failure_as_often_as_one_likes(operator: Operator) -> None:
    late, early = new_event_id(), new_event_id()
    operator.publish(
        operator.record(late, reason=Reason.POLICY, received_at=START + timedelta(hours=2), account="zoe", attempts=1),
        operator.record(early, reason=Reason.USER_MISSING, received_at=START, account="alice", guid=uuid4()),
    )
    for _ in range(3):
        assert [letter["event_id"] for letter in operator.letters()] == [str(early), str(late)]
    [first, second] = operator.letters()
    assert (first["account"], first["reason"], first["state"]) == ("alice", "user_missing", "live")
    assert first["first_failed_at"] == "2026-11-01T12:00:00.000Z"
    assert second["repair"] == REPAIRS[Reason.POLICY]
    table = operator.run("dead", "list").stdout
    assert table.index("alice") < table.index("zoe")


@pytest.mark.usefixtures("empty")
def test_a_letter_is_live_until_a_later_record_says_otherwise(operator: Operator) -> None:
    replayed, discarded, again = new_event_id(), new_event_id(), new_event_id()
    operator.publish(
        *(operator.record(event_id, reason=Reason.POLICY) for event_id in (replayed, discarded, again)),
        operator.record(replayed, Verdict.REPLAYED, by="eva", why="policy repaired"),
        operator.record(discarded, Verdict.DISCARDED, by="eva", why="left the company"),
        operator.record(again, Verdict.REPLAYED, by="eva", why="policy repaired"),
        operator.record(again, reason=Reason.IDENTITY, replays=1, received_at=START + timedelta(hours=1)),
    )
    [live] = operator.letters()
    assert (live["event_id"], live["reason"], live["replays"], live["failures"]) == (str(again), "identity", 1, 2)
    assert (live["first_failed_at"], live["last_failed_at"]) == (
        "2026-11-01T12:00:00.000Z",
        "2026-11-01T13:00:00.000Z",
    )
    every = {letter["event_id"]: letter["state"] for letter in operator.letters("--all")}
    assert every == {str(replayed): "replayed", str(discarded): "discarded", str(again): "live"}


@pytest.mark.usefixtures("empty")
def test_filters(operator: Operator) -> None:
    now = datetime.now(UTC)
    alice, bob = new_event_id(), new_event_id()
    guid = uuid4()
    operator.publish(
        operator.record(alice, reason=Reason.POLICY, account="Alice", guid=guid, received_at=now - timedelta(days=3)),
        operator.record(bob, reason=Reason.IDENTITY, account="bob", producer="dc2", domain="other.example"),
    )
    for arguments, expected in [
        (("--reason", "policy"), [alice]),
        (("--producer", "dc2"), [bob]),
        (("--domain", "LAB.EXAMPLE"), [alice]),
        (("--user", "alice"), [alice]),
        (("--user", str(guid)), [alice]),
        (("--user", "nobody"), []),
        (("--older-than", "2d", "--user", "alice"), [alice]),
        (("--younger-than", "2d"), []),
        (("--younger-than", "4d", "--reason", "policy"), [alice]),
        (("--reason", "policy", "--user", "bob"), []),
    ]:
        assert [letter["event_id"] for letter in operator.letters(*arguments)] == [str(each) for each in expected]


@pytest.mark.usefixtures("empty")
def test_without_the_ops_key_accounts_stay_sealed(operator: Operator, tmp_path: Path) -> None:
    event_id = new_event_id()
    operator.publish(operator.record(event_id, reason=Reason.POLICY, account="alice"))
    tmp_path.chmod(0o700)
    keys = {"directory": tmp_path}
    [letter] = operator.document_of("dead", "list", keys=keys)["letters"]
    assert letter["account"] is None
    refused = operator.run("dead", "list", "--user", "alice", keys=keys)
    assert refused.exit_code == 2
    assert "ops key" in refused.stderr
    shown = operator.document_of("dead", "show", str(event_id), keys=keys)["letters"][0]["records"][0]
    assert "not in the keyring" in shown["note_closed"]


@pytest.mark.usefixtures("empty")
def test_show_tells_all_but_the_password(operator: Operator) -> None:
    event_id = new_event_id()
    text = envelope_text(operator.envelope(event_id))
    operator.publish(
        operator.record(new_event_id(), reason=Reason.POLICY, account="zoe"),
        operator.record(
            event_id, reason=Reason.REFUSED, account="alice", diagnostic="53 Unwilling", envelope=text, attempts=9
        ),
        operator.record(event_id, Verdict.REPLAYED, by="eva", why="repaired"),
    )
    [letter] = operator.document_of("dead", "show", str(event_id))["letters"]
    [failed, act] = letter["records"]
    assert (failed["account"], failed["diagnostic"], failed["attempts"]) == ("alice", "53 Unwilling", 9)
    assert failed["repair"] == REPAIRS[Reason.REFUSED]
    assert failed["envelope_bytes"] > 3000
    assert failed["recipient_key_id"] == operator.sender.recipient.key_id
    assert act["recipient_key_id"] is None
    assert (act["verdict"], act["by"], act["why"]) == ("replayed", "eva", "repaired")
    page = operator.run("dead", "show", str(event_id))
    assert "53 Unwilling" in page.stdout
    assert text not in page.stdout
    assert CANARY not in page.output
    assert "zoe" not in page.output


@pytest.mark.usefixtures("empty")
def test_show_of_an_unknown_event(operator: Operator) -> None:
    result = operator.run("dead", "show", str(new_event_id()))
    assert result.exit_code == 2
    assert "no dead letter" in result.stderr


def test_a_letter_that_the_broker_itself_gave_up(
    operator: Operator, bare: BlockingConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("passrelay_schemas.topology.DELIVERY_LIMIT", 2)
    assert all(finding.good for finding in topology.apply(bare))
    event_id = new_event_id()
    raw = operator.envelope(event_id)
    before = datetime.now(UTC) - timedelta(seconds=5)
    with open_channel(operator.broker) as channel:
        header = Envelope.parse(raw).header
        channel.basic_publish(EVENTS, "", raw, envelope_properties(header, attempt=3), mandatory=True)
        channel.basic_publish(EVENTS, "", b"no envelope", pika.BasicProperties(), mandatory=True)
        for _, _, _ in channel.consume(EVENTS, inactivity_timeout=0.5):
            if stream.last_offset(bare, DEAD) == 1:
                break
            channel.basic_nack(0, multiple=True, requeue=True)
    letters = {letter["event_id"]: letter for letter in operator.letters()}
    assert len(letters) == 2
    letter = letters.pop(str(event_id))
    assert (letter["reason"], letter["producer"], letter["domain"]) == ("delivery_limit", "dc1", DOMAIN)
    assert letter["attempts"] == 3
    assert datetime.fromisoformat(letter["first_failed_at"]) >= before
    [[unreadable_id, unreadable]] = letters.items()
    assert (unreadable["producer"], unreadable["reason"]) == (None, "delivery_limit")
    [shown] = operator.document_of("dead", "show", unreadable_id)["letters"]
    assert (shown["event_id"], shown["records"][0]["recipient_key_id"]) == (unreadable_id, None)

    # Whose these are is sealed, so nobody can say whether he has a newer password in IdM.
    assert operator.document_of("dead", "replay", *ACT)["replayed"] == 0
    assert len(operator.letters()) == 2
    assert operator.document_of("dead", "replay", "--overwrite-idm", *ACT)["replayed"] == 2
    with open_channel(operator.broker) as channel:
        bodies = {}
        for _ in range(2):
            method, properties, body = channel.basic_get(EVENTS, auto_ack=True)
            assert method is not None
            bodies[body] = properties.headers.keys() - {"x-delivery-count"}  # the queue's own, made anew
    # Without the broker's own record of its death, which would make it drop the event as a cycle.
    assert bodies == {raw: {REPLAYS}, b"no envelope": {REPLAYS}}
    assert operator.letters() == []


@pytest.mark.usefixtures("empty")
def test_without_yes_nothing_is_done_and_yes_needs_a_reason(operator: Operator) -> None:
    event_id = new_event_id()
    operator.publish(
        operator.record(event_id, reason=Reason.POLICY, envelope=envelope_text(operator.envelope(event_id)))
    )
    assert operator.document_of("dead", "replay", "--overwrite-idm")["plan"]["reasons"] == {"policy": 1}
    assert operator.document_of("dead", "discard", "--reason", "policy")["plan"]["letters"] == 1
    for arguments in (("replay",), ("discard", "--reason", "policy")):
        refused = operator.run("dead", *arguments, "--yes")
        assert (refused.exit_code, "--reason-text: missing" in refused.stderr) == (2, True)
    assert operator.run("dead", "discard", *ACT).exit_code == 2  # everything is no selection
    assert [letter["state"] for letter in operator.letters()] == ["live"]


def test_what_the_broker_does_not_take_stays_a_letter(operator: Operator, empty: BlockingConnection) -> None:
    event_id = new_event_id()
    operator.publish(
        operator.record(event_id, reason=Reason.POLICY, envelope=envelope_text(operator.envelope(event_id)))
    )
    empty.channel().queue_unbind(EVENTS, EVENTS, "")
    document = operator.document_of("dead", "replay", "--overwrite-idm", *ACT, exit_code=3)
    assert document["replayed"] == 0
    assert "did not take 1 letters" in document["failures"][0]["detail"]
    assert [letter["state"] for letter in operator.letters()] == ["live"]


@pytest.mark.usefixtures("empty")
def test_a_letter_without_its_sealed_event_cannot_be_replayed(operator: Operator) -> None:
    operator.publish(operator.record(new_event_id(), reason=Reason.POLICY))
    document = operator.document_of("dead", "replay", "--overwrite-idm", *ACT, exit_code=1)
    assert "producer capture" in document["failures"][0]["detail"]


@pytest.mark.usefixtures("empty")
def test_discarded_letters_are_gone_from_the_list_and_the_stream_says_who_and_why(operator: Operator) -> None:
    one, other = new_event_id(), new_event_id()
    operator.publish(operator.record(one, reason=Reason.POLICY), operator.record(other, reason=Reason.POLICY))
    assert operator.document_of("dead", "discard", "--id", str(one), *ACT)["discarded"] == 1
    assert [letter["event_id"] for letter in operator.letters()] == [str(other)]
    [letter] = operator.document_of("dead", "show", str(one))["letters"]
    assert letter["records"][1]["why"] == "ticket 4711"
    assert "given up by" in letter["story"][2]


@pytest.mark.usefixtures("empty")
def test_what_is_no_letter_is_left_out_with_a_word(operator: Operator) -> None:
    with open_channel(operator.broker) as channel:
        channel.basic_publish(DEAD, "", b"rubbish", pika.BasicProperties(type=RECORD_SCHEMA), mandatory=True)
    operator.publish(operator.record(new_event_id(), reason=Reason.POLICY))
    result = operator.run("dead", "list", "--json")
    assert result.exit_code == 0
    assert "offset 0" in result.stderr
    assert len(json.loads(result.stdout.splitlines()[-1])["letters"]) == 1


@pytest.mark.usefixtures("bare")
def test_a_missing_stream_names_the_command_that_makes_it(operator: Operator) -> None:
    result = operator.run("dead", "list")
    assert result.exit_code == 2
    assert "passrelay topology apply" in result.stderr


# --- status


@pytest.fixture
def status(operator: Operator, shared_directory: Directory) -> Callable[..., dict[str, Any]]:
    idm = {
        "servers": [shared_directory.ldaps_url],
        "ca_file": shared_directory.ca_file,
        "bind_dn": shared_directory.service_dn,
        "password_file": shared_directory.password_file,
    }
    domain = {"name": DOMAIN, "sid": DOMAIN_SID, "search_base": shared_directory.search_base}

    def run(user: str, *more: str, exit_code: int = 0) -> dict[str, Any]:
        return operator.document_of("status", user, *more, exit_code=exit_code, idm=idm, domain=[domain])

    return run


@pytest.mark.usefixtures("empty")
def test_status_shows_the_marker_and_the_last_outcomes(
    operator: Operator, shared_directory: Directory, status: Callable[..., dict[str, Any]]
) -> None:
    name, guid = f"u{uuid4().hex[:8]}", uuid4()
    applied, other = new_event_id(), new_event_id()
    marker = Marker(0, 7, 134_084_736_000_000_000, guid, applied, "2026-11-24T22:42:33.120Z", frozenset({"x"}))
    shared_directory.add_user(name, passrelayMarker=str(marker))
    now = datetime.now(UTC)
    operator.publish(
        operator.record(applied, Verdict.APPLIED, received_at=now, applied_at=now),
        operator.record(other, Verdict.DUPLICATE, received_at=now + timedelta(seconds=1), account=name.upper()),
        operator.record(new_event_id(), Verdict.APPLIED, received_at=now, account="somebody"),
        operator.record(new_event_id(), Verdict.DUPLICATE, received_at=now - timedelta(days=30), account=name),
        to=JOURNAL,
    )
    document = status(name)
    [entry] = document["entries"]
    assert entry["dn"] == shared_directory.user_dn(name)
    assert (entry["marker"]["kvno"], entry["marker"]["applied_at"]) == (7, "2026-11-24T22:42:33.120Z")
    assert "must be changed at the next login" in entry["marker"]["text"]
    assert [(outcome["event_id"], outcome["verdict"]) for outcome in document["outcomes"]] == [
        (str(applied), "applied"),
        (str(other), "duplicate"),
    ]
    assert document["schema"] == "passrelay.status/1"


@pytest.mark.usefixtures("empty")
def test_status_names_a_live_dead_letter_and_its_repair(
    operator: Operator, shared_directory: Directory, status: Callable[..., dict[str, Any]]
) -> None:
    name = f"u{uuid4().hex[:8]}"
    shared_directory.add_user(name)
    event_id = new_event_id()
    letter = operator.record(event_id, reason=Reason.POLICY, account=name, diagnostic="19 too short")
    operator.publish(letter)
    operator.publish(letter, to=JOURNAL)
    document = status(name, exit_code=1)
    [outcome] = document["outcomes"]
    assert (outcome["verdict"], outcome["where"], outcome["diagnostic"]) == ("dead", "dead", "19 too short")
    assert REPAIRS[Reason.POLICY] in document["failures"][0]["detail"]
    assert document["entries"][0]["marker"] is None

    operator.publish(operator.record(event_id, Verdict.DISCARDED, by="eva", why="gone"))
    assert [outcome["verdict"] for outcome in status(name)["outcomes"]] == ["dead", "discarded"]


@pytest.mark.usefixtures("empty")
def test_status_of_somebody_who_is_not_in_idm(status: Callable[..., dict[str, Any]]) -> None:
    for name in ("nobody", "*a*", "a)(uid=*"):  # other tests leave accounts behind, one of them named "*"
        document = status(name, exit_code=1)
        assert document["entries"] == []
        assert "no IdM entry" in document["failures"][0]["detail"]


@pytest.mark.usefixtures("empty")
def test_status_without_idm_still_tells_the_outcomes(operator: Operator) -> None:
    now = datetime.now(UTC)
    operator.publish(operator.record(new_event_id(), Verdict.APPLIED, received_at=now, account="alice"), to=JOURNAL)
    document = operator.document_of("status", "alice")
    assert [outcome["verdict"] for outcome in document["outcomes"]] == ["applied"]
    assert document["entries"] == []


@pytest.mark.usefixtures("empty")
def test_status_with_idm_down_still_tells_the_outcomes(operator: Operator, ca: CertificateAuthority) -> None:
    now = datetime.now(UTC)
    operator.publish(operator.record(new_event_id(), Verdict.APPLIED, received_at=now, account="alice"), to=JOURNAL)
    password = operator.folder / "idm.password"
    password.touch(mode=0o600)
    password.write_text("x\n")
    idm = {
        "servers": ["ldaps://127.0.0.1:9"],
        "ca_file": ca.ca_file,
        "bind_dn": "uid=passrelay,cn=x",
        "password_file": password,
    }
    domain = {"name": DOMAIN, "sid": DOMAIN_SID, "search_base": "dc=test"}
    document = operator.document_of("status", "alice", exit_code=3, idm=idm, domain=[domain])
    assert len(document["outcomes"]) == 1
    assert "ldaps://127.0.0.1:9" in document["failures"][0]["detail"]
