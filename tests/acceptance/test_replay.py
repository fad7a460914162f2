"""Dead letters go back to IdM: whatever dies and whoever else is at work, each is applied once, and it is on record."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops import discard, replay
from passrelay_ops.dead_letters import Letters
from passrelay_ops.operator_act import Act
from passrelay_ops.stream import read
from passrelay_schemas import topology
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.filetime import from_datetime, rfc3339
from passrelay_schemas.marker import Marker
from passrelay_schemas.verdict import Reason, Verdict
from tests.faults import letters as trials
from tests.lab.dead_mail import DeadMail
from tests.lab.enrolment import change
from tests.lab.folder import CANARY, canary_password
from tests.lab.process import wait_for
from tests.lab.relay import PASSRELAY, Relay

pytestmark = pytest.mark.acceptance

_SERIAL = itertools.count(1)


class Desk:
    """A deployment whose operator has letters."""

    def __init__(self, relay: Relay, people: int) -> None:
        self.relay = relay
        self.sender = relay.enrolment.enrol("dc1")
        relay.prepare()
        self.mail = DeadMail(relay.broker, relay.enrolment, self.sender, people, prefix=f"rp{next(_SERIAL)}x")
        self.config = relay.ops_config()

    def dead(self, *arguments: str, exit_code: int | None = 0) -> dict[str, Any]:
        """Run `passrelay dead ... --json`; without an exit code any will do, the document has it."""
        command: list[str | Path] = [PASSRELAY, "dead", *arguments, "--json", "--config", self.config]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert exit_code in (None, done.returncode), done.stderr
        assert CANARY not in done.stdout + done.stderr
        document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return document

    def states(self) -> dict[str, str]:
        """Every letter's state."""
        return {one["event_id"]: one["state"] for one in self.dead("list", "--all")["letters"]}

    def applied(self) -> list[UUID]:
        """The event of every write."""
        return [record.event_id for record in self.relay.records() if record.verdict is Verdict.APPLIED]


class DeadStream:
    """An operator's connection with all letters read, as a command has them after its plan."""

    def __init__(self, relay: Relay) -> None:
        self._connection = BlockingConnection(relay.broker.parameters())

    def __enter__(self) -> tuple[BlockingConnection, Letters]:
        return self._connection, Letters(None, print).read(read(self._connection, topology.DEAD))

    def __exit__(self, *_: object) -> None:
        self._connection.close()


YES = ("--yes", "--reason-text", "repaired")


def test_a_replay_that_is_killed_and_run_again_applies_each_letter_once(relay: Relay) -> None:
    found = trials.trial(relay, count=3000, people=120, rate=60, binds=120, prefix="kill")
    assert found.faults == []


def test_published_but_not_recorded_is_published_once_more_and_found_a_duplicate(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst moment to die: between the two confirms."""
    desk = Desk(relay, 4)
    relay.directory.add_users(person.name for person in desk.mail.people)
    made = desk.mail.write(itertools.repeat(Reason.REFUSED, 4))
    relay.consumer("consumer").start()

    class PowerCutError(Exception):
        pass

    def cut(*_: Any, **__: Any) -> None:
        raise PowerCutError

    with DeadStream(relay) as (connection, letters), monkeypatch.context() as patch:
        patch.setattr(replay, "record_properties", cut)  # the letters are confirmed, their records not yet published
        chosen, act = letters.by_first_failure(), Act("eva@office", "repaired")
        with pytest.raises(PowerCutError):
            replay.run(connection, letters, chosen, act, done=replay.Done(), rate=1000)
    wait_for(lambda: len(desk.applied()) == 4, what="all four applied")
    assert set(desk.states().values()) == {"live"}
    assert desk.dead("replay", *YES)["replayed"] == 4
    wait_for(lambda: relay.journal_depth() == 8, what="all four a second time")
    assert sorted(desk.applied()) == sorted(dead.event_id for dead in made)
    assert [record.verdict for record in relay.records()[4:]] == [Verdict.DUPLICATE] * 4
    assert set(desk.states().values()) == {"replayed"}


def test_a_letter_that_fails_again_at_once_is_live_again(relay: Relay) -> None:
    """Its new failure may come into the stream before the record of the replay: it must not vanish behind it.

    Nor do so many failures pull the brake: a fresh change is applied by the same consumer.
    """
    desk = Desk(relay, 30)
    for person in desk.mail.people:  # somebody else's entries: refused at once, each time
        theirs = Marker(0, 1, 134_084_736_000_000_000, uuid4(), new_event_id(), "2026-11-24T22:42:33.120Z")
        relay.directory.add_user(person.name, passrelayMarker=str(theirs))
    made = desk.mail.write(itertools.repeat(Reason.IDENTITY, 30))
    relay.consumer("consumer").start()
    for round_ in (1, 2):
        plan = desk.dead("replay", *YES, "--rate", "1000")["plan"]
        assert plan["fails_again"] == 30
        depth = 30 + round_ * 60
        wait_for(lambda: relay.broker.queue_depths()[topology.DEAD] == depth, what="all dead again")  # noqa: B023
        listed = desk.dead("list")["letters"]
        assert {(one["event_id"], one["replays"]) for one in listed} == {(str(d.event_id), round_) for d in made}
    name, password = f"fresh{desk.mail.people[0].name}", canary_password()
    relay.directory.add_user(name)
    fresh = change(name, password, guid=uuid4(), kvno=1, changed_at=from_datetime(datetime.now(UTC)))
    relay.publish([desk.sender.envelope(fresh)])
    wait_for(lambda: relay.directory.binds(name, password), what="the fresh change applied")


def test_two_operators_replay_and_a_third_discards_the_same_letters(relay: Relay) -> None:
    desk = Desk(relay, 40)
    relay.directory.add_users(person.name for person in desk.mail.people)
    made = desk.mail.write(itertools.repeat(Reason.REFUSED, 200))
    relay.consumer("consumer").start()

    line: list[str | Path] = [PASSRELAY, "dead", "replay", *YES, "--rate", "40", "--config", desk.config]
    with DeadStream(relay) as (connection, letters), ThreadPoolExecutor(2) as pool:
        replays = [pool.submit(subprocess.run, line, capture_output=True, check=False) for _ in range(2)]
        wait_for(lambda: relay.broker.queue_depths()[topology.DEAD] > 220, what="some replayed", interval_seconds=0.02)
        done = discard.Done()
        chosen = letters.by_first_failure()
        discard.run(connection, letters, chosen, Act("eva@office", "left the company"), done=done)
        assert [each.result().returncode for each in replays] == [0, 0]
    assert len(done.discarded) + len(done.changed) == 200
    assert done.discarded
    assert done.changed  # what was replayed meanwhile is told, not given up
    states = desk.states()
    replayed = {event_id for event_id, state in states.items() if state == "replayed"}
    assert {event_id for event_id, state in states.items() if state == "discarded"} == {
        str(letter.event_id) for letter in done.discarded
    }
    assert set(states) == {str(dead.event_id) for dead in made}
    assert set(states.values()) == {"replayed", "discarded"}
    finished = {str(record.event_id) for record in relay.records()}
    wait_for(
        lambda: replayed <= {str(record.event_id) for record in relay.records()}, what="every replayed one decided"
    )
    assert finished <= replayed  # what was discarded was never sent
    assert len(desk.applied()) == len(set(desk.applied()))


def test_what_a_discard_says_of_a_slow_replay_is_what_the_stream_says(relay: Relay) -> None:
    """A letter that is published and not on record yet would be given up in words only."""
    desk = Desk(relay, 40)
    relay.directory.add_users(person.name for person in desk.mail.people)
    desk.mail.write(itertools.repeat(Reason.REFUSED, 40))
    line: list[str | Path] = [PASSRELAY, "dead", "replay", *YES, "--rate", "4", "--config", desk.config]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        wait_for(lambda: relay.broker.queue_depths()[topology.DEAD] > 42, what="some replayed", interval_seconds=0.02)
        said = desk.dead("discard", "--reason", "refused", *YES, exit_code=None)
        assert child.wait() == 0
    # The replay may have sent one between the discard's plan and its records: named, and exit code 1.
    assert {each["detail"] for each in said["failures"]} <= {"was replayed meanwhile: not discarded"}
    assert said["discarded"] == said["plan"]["letters"] - len(said["failures"])
    assert said["discarded"] == list(desk.states().values()).count("discarded")
    assert said["discarded"] == 40 - relay.broker.queue_depths()[topology.EVENTS]


def test_a_discard_that_loses_the_broker_after_its_records_says_what_is_on_record(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(relay, 3)
    desk.mail.write(itertools.repeat(Reason.REFUSED, 3))

    class PowerCutError(Exception):
        pass

    def cut(*_: Any, **__: Any) -> None:
        raise PowerCutError

    done = discard.Done()
    with DeadStream(relay) as (connection, letters):
        monkeypatch.setattr(discard, "read", cut)
        with pytest.raises(PowerCutError):
            discard.run(connection, letters, letters.by_first_failure(), Act("eva@office", "gone"), done=done)
    assert len(done.discarded) == list(desk.states().values()).count("discarded") == 3


def test_ctrl_c_ends_a_replay_with_what_was_done_on_record(relay: Relay) -> None:
    desk = Desk(relay, 10)
    desk.mail.write(itertools.repeat(Reason.REFUSED, 200))
    line: list[str | Path] = [PASSRELAY, "dead", "replay", *YES, "--rate", "20", "--json", "--config", desk.config]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        wait_for(lambda: relay.broker.queue_depths()[topology.DEAD] > 210, what="some replayed")
        child.send_signal(signal.SIGINT)
        stdout, stderr = child.communicate(timeout=120)
    assert child.returncode == 130, stderr
    done = json.loads(stdout.splitlines()[-1])["replayed"]
    assert 0 < done < 200
    assert list(desk.states().values()).count("replayed") == done
    assert relay.broker.queue_depths()[topology.EVENTS] == done


def test_what_the_user_chose_in_idm_since_is_left_alone_unless_asked_for(relay: Relay) -> None:
    desk = Desk(relay, 4)
    never, later, newer, plain = desk.mail.people
    ago = datetime.now(UTC) - timedelta(days=2)
    by_event = {dead.person: dead for dead in desk.mail.write(itertools.repeat(Reason.POLICY, 4))}

    def marker(kvno: int, person: Any, changed: datetime) -> str:
        return str(Marker(0, kvno, from_datetime(changed), person.guid, new_event_id(), rfc3339(changed)))

    hour = datetime.now(UTC) + timedelta(hours=1)
    in_idm = {"krbLastPwdChange": hour.strftime("%Y%m%d%H%M%SZ")}
    relay.directory.add_user(never.name, **in_idm)
    relay.directory.add_user(later.name, passrelayMarker=marker(0 + 1, later, ago), **in_idm)
    relay.directory.add_user(newer.name, passrelayMarker=marker(9, newer, hour))
    relay.directory.add_user(plain.name)
    # The letters are of version 1, like the marker of `later`: one more makes them newer.
    by_event = {dead.person: dead for dead in desk.mail.write(itertools.repeat(Reason.POLICY, 4))}

    plan = desk.dead("replay")["plan"]
    assert (plan["letters"], plan["superseded"], plan["due"]) == (4, 2, 2)
    assert {
        (one["account"], one["repair"].split("`")[1] if "`" in one["repair"] else "") for one in plan["left_out"]
    } == {
        (never.name, f"passrelay idm marker rebind {never.name} --guid {never.guid} --yes --domain lab.example"),
        (later.name, ""),
    }
    assert set(desk.states().values()) == {"live"}

    relay.consumer("consumer").start()
    assert desk.dead("replay", *YES)["replayed"] == 4
    wait_for(lambda: relay.journal_depth() == 4, what="four outcomes")
    assert relay.directory.binds(plain.name, by_event[plain].password)
    assert Marker.parse(relay.directory.read(newer.name)["passrelayMarker"][0]).kvno == 9

    # The entry without a marker needs its owner first: consumers would keep IdM's password, and the letter be gone.
    assert desk.dead("replay", *YES, "--overwrite-idm")["replayed"] == 2
    wait_for(lambda: relay.directory.binds(later.name, by_event[later].password), what="AD's password in IdM")
    assert {one["account"] for one in desk.dead("list")["letters"]} == {never.name}
    relay.passrelay("idm", "marker", "rebind", never.name, "--guid", str(never.guid), "--yes", "--config", desk.config)
    assert desk.dead("replay", *YES)["replayed"] == 0
    assert desk.dead("replay", *YES, "--overwrite-idm")["replayed"] == 2
    wait_for(lambda: relay.directory.binds(never.name, by_event[never].password), what="AD's password in IdM")


def test_export_is_for_spreadsheets_that_take_nothing_for_a_formula(relay: Relay) -> None:
    desk = Desk(relay, 2)
    made = desk.mail.write(itertools.repeat(Reason.POLICY, 4))
    text = relay.passrelay("dead", "export", "--format", "csv", "--config", desk.config)
    assert desk.mail.people[0].name in text
    lines = relay.passrelay("dead", "export", "--sealed", "--config", desk.config).splitlines()
    sealed = [json.loads(line) for line in lines if line.startswith("{")]
    assert [one["event_id"] for one in sealed] == [str(dead.event_id) for dead in made]
    assert all(len(one["envelope"]) > 4000 for one in sealed)
    assert {one["recipient_key_id"] for one in sealed} == {relay.enrolment.recipient.key_id}
    assert CANARY not in text + "".join(lines)
