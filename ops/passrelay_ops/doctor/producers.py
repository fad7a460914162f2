"""The producers as their news show them: alive, believed, and with one OpenPGP key in each domain."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops import news
from passrelay_ops.check import Result, Row
from passrelay_ops.news import Heard, State, Unbelieved
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyDocument, KeyStatus, KeyUse
from passrelay_schemas.settings import OpsSettings
from passrelay_schemas.verdict import Reason

_OF_THE_KEY = frozenset({Reason.REVOKED, Reason.UNTRUSTED})


def hear(connection: BlockingConnection, keyring: Keyring, expected: Collection[str]) -> Heard:
    """The newest news of each producer; of one that is silent, the last of the week."""
    heard = news.hear(connection, keyring)
    if set(expected) <= heard.news.keys():
        return heard
    older = news.hear(connection, keyring, since=news.EVERYTHING)
    return Heard({**older.news, **heard.news}, heard.unbelieved)


def expected(settings: OpsSettings, documents: Sequence[KeyDocument]) -> list[str]:
    """Who should be heard: as [[domain]] producers says, else whoever has an active signing key here."""
    listed = {name for domain in settings.domain for name in domain.producers}
    signing = (key for key in documents if key.use is KeyUse.SIGNING and key.status is KeyStatus.ACTIVE)
    return sorted(listed or {key.producer for key in signing if key.producer is not None})


def misused(heard: Heard, now: datetime) -> dict[str, Unbelieved]:
    """By producer, the last news that its key made unbelievable; not of those that are believed and alive."""
    return {
        one.producer: one
        for one in heard.unbelieved
        if one.producer is not None
        and one.reason in _OF_THE_KEY
        and news.liveness(heard.news.get(one.producer), now).state is not State.ALIVE
    }


def signing(row: Row, found: Unbelieved | None) -> Row:
    """The row of a producer's signing key, with what its news say about the key that it really uses."""
    if found is None or row.result is not Result.OK:
        return row
    producer = found.producer
    what = "was revoked here" if found.reason is Reason.REVOKED else "is not enrolled here"
    detail = f"{producer} signs with {found.signing_key_id}, which {what}: nothing from it is believed"
    repair = (
        f"if that is {producer}: `passrelay keys init producer {producer}` there and `passrelay keys enroll` its "
        ".pub.json here; else find out who speaks in its name"
    )
    return Row(row.id, row.subject, Result.FAIL, detail, repair)


def alive(producers: Sequence[str], heard: Heard | str, explained: Mapping[str, str], now: datetime) -> list[Row]:
    """One row for each producer. `heard` may be why nothing can be heard; `explained` which check already says why."""
    found = []
    for producer in producers:
        if isinstance(heard, str):
            found.append(Row("producer.alive", producer, Result.UNKNOWN, heard))
            continue
        state = news.liveness(heard.news.get(producer), now)
        if state.state is State.ALIVE:
            found.append(Row("producer.alive", producer, Result.OK, state.detail))
        elif producer in explained:
            detail = f"{explained[producer]} failed; {state.detail}"
            found.append(Row("producer.alive", producer, Result.UNKNOWN, detail))
        else:
            repair = "start it (`passrelay producer run`) on its host, or look at its log and its way to the broker"
            found.append(Row("producer.alive", producer, Result.FAIL, state.detail, repair))
    return found


def one_key(settings: OpsSettings, heard: Heard | str) -> list[Row]:
    """One row for each domain: its Samba producers can all open what any of its controllers stores."""
    found = []
    for domain in settings.domain:
        if isinstance(heard, str):
            found.append(Row("producer.one_key", domain.name, Result.UNKNOWN, heard))
            continue
        keys = {
            name: frozenset(said.openpgp_fingerprints)
            for name, said in sorted(heard.news.items())
            if said.source == "samba" and domain.name in said.domains
        }
        if not keys or frozenset.intersection(*keys.values()):
            detail = f"the same at {', '.join(keys)}" if keys else "no producer on Samba has spoken"
            found.append(Row("producer.one_key", domain.name, Result.OK, detail))
            continue
        detail = "; ".join(f"{name}: {', '.join(sorted(some)) or 'no key'}" for name, some in keys.items())
        repair = "put one key into smb.conf and gpg_key_file of every controller of the domain"
        found.append(Row("producer.one_key", domain.name, Result.FAIL, f"different OpenPGP keys: {detail}", repair))
    return found


def at_controller(row: Row, heard: Heard | str, not_alive: Collection[str]) -> Row:
    """The row of a controller without a live producer rests on that producer's own, where there is one."""
    if row.id != "ad.producers" or row.result is not Result.FAIL or isinstance(heard, str):
        return row
    host = row.subject.rstrip(".").casefold()
    silent = [name for name in not_alive if name not in heard.news or heard.news[name].controller in {None, host}]
    if not silent:
        return row
    return Row(row.id, row.subject, Result.UNKNOWN, f"producer.alive of {', '.join(silent)}; {row.detail}")
