"""What IPA's own plugin says when it refuses a password, told to its user; and its disabled users."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from ldap3 import MODIFY_REPLACE
from ldap3.core.results import RESULT_CONSTRAINT_VIOLATION, RESULT_SUCCESS

from passrelay_consumer.handler import Handler
from passrelay_consumer.outcome import Delivery, Outcome
from passrelay_consumer.policy import in_plain_words
from passrelay_consumer.servers import Servers
from passrelay_schemas import filetime
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.logs import Log
from passrelay_schemas.message import Counters
from passrelay_schemas.settings import ConsumerSettings
from passrelay_schemas.verdict import Verdict
from tests.lab.enrolment import Enrolment, change
from tests.lab.folder import canary_password
from tests.lab.ipa_directory import IpaDirectory
from tests.lab.process import LabError

pytestmark = [pytest.mark.integration, pytest.mark.ipa]

_NAMES = (f"refused{number}" for number in itertools.count())


@pytest.fixture
def directory(shared_ipa_directory: IpaDirectory) -> Iterator[IpaDirectory]:
    """The server, given back as it was."""
    yield shared_ipa_directory
    shared_ipa_directory.set_managers(shared_ipa_directory.service_dn)
    shared_ipa_directory.set_policy(krbPwdHistoryLength=0, krbPwdMinDiffChars=0, krbMinPwdLife=3600)


def _set(connection: Any, dn: str, password: str) -> tuple[int, str]:
    connection.modify(dn, {"userPassword": [(MODIFY_REPLACE, [password])]})
    return connection.result["result"], connection.result["message"]


def test_the_plugins_refusals_are_told_apart(directory: IpaDirectory) -> None:
    # A user's own change meets the whole policy; a reset by somebody who is not listed its history only.
    directory.set_policy(krbPwdHistoryLength=5, krbPwdMinDiffChars=3, krbMinPwdLife=0)
    user, used = next(_NAMES), canary_password("Ab1")
    directory.add_user(user, canary_password())
    dn = directory.user_dn(user)
    with directory.service() as service:
        assert _set(service, dn, used)[0] == RESULT_SUCCESS
    told: dict[str, str] = {}
    with directory.connect(dn, used) as own:
        assert _set(own, dn, canary_password("Ab2"))[0] == RESULT_SUCCESS
        for meaning, password in [
            ("this user had the password before, and IdM's history refuses it", used),
            ("too short for IdM's policy", "Ab1-xyz"),
            ("too long for IdM", "x" * 1001),
            ("too simple for IdM's policy", "aaaaaaaaaaaa"),
        ]:
            code, words = _set(own, dn, password)
            assert code == RESULT_CONSTRAINT_VIOLATION, f"{meaning}: {code} {words}"
            told[meaning] = in_plain_words(words)
    assert all(words.startswith(f"{meaning} (the server says: ") for meaning, words in told.items())


def test_a_disabled_user_of_ipa_keeps_in_step_and_still_cannot_log_in(directory: IpaDirectory, tmp_path: Path) -> None:
    user, new = next(_NAMES), canary_password()
    directory.add_user(user, canary_password(), nsAccountLock="TRUE")
    enrolment = Enrolment(tmp_path)
    sender = enrolment.enrol("dc1")
    settings = ConsumerSettings.model_validate(
        {
            "broker": {"url": "amqp://127.0.0.1/"},
            "keys": {"directory": enrolment.consumer_keys},
            "idm": {
                "servers": [directory.ldaps_url],
                "ca_file": directory.ca_file,
                "bind_dn": directory.service_dn,
                "password_file": directory.password_file,
            },
            "domain": [enrolment.domain(directory.search_base)],
        }
    )
    servers = Servers(settings.idm, log=Log("test"))
    handler = Handler(settings, keyring=Keyring(enrolment.consumer_keys), servers=servers)
    event = change(user, new, guid=uuid4(), kvno=1, changed_at=filetime.now() + filetime.UNITS_PER_SECOND)
    try:
        outcome = handler.handle(Delivery(sender.envelope(event), Counters(), datetime.now(UTC)))
    finally:
        handler.close()
        servers.close()
    assert isinstance(outcome, Outcome)
    assert outcome.verdict is Verdict.APPLIED
    with pytest.raises(LabError):
        directory.binds(user, new)
    with directory.manager() as manager:
        manager.modify(directory.user_dn(user), {"nsAccountLock": [(MODIFY_REPLACE, ["FALSE"])]})
    assert directory.binds(user, new)
