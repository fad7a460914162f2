"""`passrelay keys retire`: on an operator's host, who hears the producers and sees the queues."""

from __future__ import annotations

from typing import Annotated

import typer
from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops import key_evidence, key_files, key_retirement
from passrelay_ops.connection import connect, server_version
from passrelay_ops.key_retirement import Objection
from passrelay_ops.options import AsJson, OpsConfig, Yes, default_path
from passrelay_ops.report import Report
from passrelay_ops.stream import read
from passrelay_schemas.errors import SafetyError
from passrelay_schemas.filetime import rfc3339, utc_now
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyDocument, KeyStatus, KeyUse, write_public
from passrelay_schemas.settings import OpsSettings
from passrelay_schemas.settings_file import load
from passrelay_schemas.topology import DEAD

_CONFIG = default_path("ops")
_HORIZON_HOURS = 24
"""[idm] horizon_hours where ops.toml has no [idm]: the default."""


def retire(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="As `keys list` shows it.")],
    despite: Annotated[
        list[str] | None,
        typer.Option(metavar="PRODUCER", help="This producer is gone for good: its spool does not count."),
    ] = None,
    config: OpsConfig = _CONFIG,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Retire a key that nothing new uses, with --yes. Refused (4) while something may still be on its way to it."""
    with Report("keys", as_json=as_json) as report:
        settings = load(OpsSettings, config)
        keyring = Keyring.of(settings.keys, private=False)
        key = key_files.known(keyring, key_id)
        key_retirement.check_status(key)
        written = False
        if key.status is KeyStatus.ACTIVE:
            with connect(settings.broker) as connection:
                report.servers["rabbitmq"] = server_version(connection)
                found = objections(connection, settings, keyring, key, frozenset(despite or ()))
                letters = key_evidence.letters(read(connection, DEAD), key.key_id)
            report["objections"] = [{"subject": item.subject, "detail": item.detail} for item in found]
            report["letters"] = letters
            if letters:
                report.say(
                    f"{letters} live letters are sealed to the key. Retired, it still opens them; one that is replayed "
                    "and dies again begins anew: look at `passrelay dead list` before you delete the private file"
                )
            for item in found:
                report.fail("keys", item.subject, item.detail, exit_code=SafetyError.exit_code)
            if found:
                report.say(f"{key.use} key {key.key_id} is not retired: something may still need it as it is")
            else:
                key = key.with_status(KeyStatus.RETIRED)
                written = yes
                if yes:
                    write_public(settings.keys.directory, key)
                report.say(f"{key.use} key {key.key_id} {'is' if yes else 'can be'} retired: {_step(key)}")
                if not yes:
                    report.say("nothing was written: add --yes")
        else:
            report.say(f"{key.use} key {key.key_id} is retired already: {_step(key)}")
        report["written"] = written
        report["keys"] = [key_files.describe(settings.keys.directory, key) | {"next": _step(key)}]


def objections(
    connection: BlockingConnection, settings: OpsSettings, keyring: Keyring, key: KeyDocument, despite: frozenset[str]
) -> list[Objection]:
    """Everything that speaks against retiring the key now."""
    found = list(key_retirement.successor(key, keyring))
    if key.use is KeyUse.OPS:
        last = key_evidence.last_note(connection, key.key_id, window=key_retirement.NOTE_WINDOW)
        return [*found, *key_retirement.ops(last)]
    longest = key_retirement.window(settings.idm.horizon_hours if settings.idm else _HORIZON_HOURS)
    heard = key_evidence.hear(connection, keyring, key.key_id, window=longest)
    if key.use is KeyUse.SIGNING:
        return found if key.producer in despite else [*found, *key_retirement.signing(key, heard=heard, now=utc_now())]
    listed = {name for domain in settings.domain for name in domain.producers}
    if key.use is KeyUse.HOOK:
        hooks = key_retirement.expected(keyring, listed, heard) - despite
        return [*found, *key_retirement.hook(key, producers=hooks, heard=heard)]
    return [
        *found,
        *key_retirement.recipient(
            key,
            producers=key_retirement.expected(keyring, listed, heard) - despite,
            revoked=key_retirement.revoked(keyring),
            heard=heard,
            depths=key_evidence.depths(connection),
            now=utc_now(),
            longest=longest,
        ),
    ]


def _step(key: KeyDocument) -> str:
    public = f"{key.key_id}.pub.json"
    step = f"carry {public} to every host that knows the key and run there: passrelay keys enroll {public} --yes"
    if key.status_since is None:
        return step
    until = rfc3339(key.status_since + key_files.KEPT)
    if key.use is KeyUse.SIGNING:
        return f"{step}; letters that it signed can be replayed as long as its document is enrolled: until {until}"
    return f"{step}; letters and outcomes are sealed to it: its private file stays where it is until {until}"
