"""A password that waits for its user: whoever asks is told that it waits, and for what."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops.audit import broker
from passrelay_ops.audit.account import AdAccount
from passrelay_ops.audit.whereabouts import IN_FLIGHT
from passrelay_ops.notes import Notes
from passrelay_schemas import filetime
from passrelay_schemas.event import Account
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.verdict import Reason, Verdict
from tests.lab.enrolment import change
from tests.lab.folder import canary_password, find_canary
from tests.lab.process import run_tool, wait_for
from tests.lab.relay import PASSRELAY, Relay

pytestmark = pytest.mark.acceptance


def _status(relay: Relay, user: str) -> dict[str, Any]:
    """Whatever its exit code: somebody who has no entry in IdM is a fault."""
    line = run_tool([PASSRELAY, "status", user, "--json", "--config", relay.ops_config()], check=False)
    document: dict[str, Any] = json.loads(line.splitlines()[-1])
    return document


def test_status_and_audit_see_what_a_consumer_tries_again(relay: Relay) -> None:
    sender = relay.enrolment.enrol("dc1")
    relay.prepare()
    user, password, guid = "not-there-yet", canary_password(), uuid4()
    changed_at = filetime.now()
    relay.publish([sender.envelope(change(user, password, guid=guid, kvno=1, changed_at=changed_at))])
    relay.consumer("consumer").start()
    wait_for(lambda: any(found.verdict is Verdict.RETRY for found in relay.records()), what="a try on record")

    [waits] = _status(relay, user)["outcomes"]
    assert (waits["verdict"], waits["reason"]) == ("retry", "user_missing")
    assert "tried again by itself" in waits["diagnostic"]
    assert waits["repair"] == "create the user in IdM"

    ad = AdAccount(Account(guid=guid, sam_account_name=user), kvno=1, changed_at=changed_at, origin=None)
    connection = BlockingConnection(relay.broker.parameters())
    try:
        found = broker.look(connection, {guid: None}, Notes(Keyring(relay.enrolment.consumer_keys)))
    finally:
        connection.close()
    trace = found.trace(ad, datetime.now(UTC))
    assert (trace.where, trace.reason) == (IN_FLIGHT, Reason.USER_MISSING)
    assert "user_missing" in trace.detail

    assert all(record.envelope is None for record in relay.records()), "the envelope is in the tier"
    assert find_canary([*relay.data_paths, *relay.broker.data_paths])[2] == []
    relay.directory.add_user(user)
    wait_for(lambda: bool(relay.outcomes()), what="the outcome", timeout_seconds=90)
    [applied] = _status(relay, user)["outcomes"]
    assert (applied["verdict"], applied["attempts"]) == ("applied", 2)
    assert relay.directory.binds(user, password)
    relay.directory.delete_user(user)
