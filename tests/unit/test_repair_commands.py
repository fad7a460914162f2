"""The commands that an audit's row names can be run as they stand."""

from __future__ import annotations

import pytest

from passrelay_ops.audit.account import AdAccount
from passrelay_ops.audit.row import Row
from passrelay_ops.audit.state import Cause, Finding, State
from passrelay_schemas.event import Account
from tests.unit.builders import CHANGED_AT, DOMAIN, GUID

CAPTURE = "`passrelay producer capture --user 'ann lee'`"
REBIND = f"`passrelay idm marker rebind 'ann lee' --guid {GUID} --yes --domain {DOMAIN}`"


@pytest.mark.parametrize(
    ("state", "cause", "commands"),
    [
        (
            State.CHANGED_IN_IDM,
            Cause.NONE,
            [f"`passrelay idm marker reset 'ann lee' --yes --domain {DOMAIN}`", CAPTURE],
        ),
        (State.UNEXPLAINED, Cause.IDENTITY, [REBIND, CAPTURE]),
        (State.NEVER_SYNCED, Cause.IDM_NEWER, [REBIND, CAPTURE]),
        (State.BEHIND, Cause.RENAMED, [CAPTURE]),
        (State.BEHIND, Cause.NONE, [CAPTURE]),
    ],
)
def test_a_name_with_a_blank_and_one_of_several_domains(state: State, cause: Cause, commands: list[str]) -> None:
    user = AdAccount(Account(guid=GUID, sam_account_name="ann lee"), 7, CHANGED_AT, None)
    repair = Row.of(DOMAIN, user, Finding(state, cause=cause), None).repair
    assert [command for command in commands if command not in repair] == []
