"""Has every writable domain controller a producer that lives? As far as the producers' news tell."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from passrelay_ops.ad.view import Member
from passrelay_ops.check import Result, Row
from passrelay_ops.news import Heard, State, Unbelieved, liveness
from passrelay_schemas.verdict import Reason

_CHECK = "ad.producers"


def row(member: Member, heard: Heard | str, now: datetime) -> Row:
    """The check of one controller; `heard` is the reason when the news could not be read."""
    if member.read_only:
        return Row(_CHECK, member.host, Result.OK, "read-only, needs none: passwords are changed at a writable one")
    if isinstance(heard, str):
        detail = f"the producers' news cannot be read: {heard}"
        return Row(_CHECK, member.host, Result.UNKNOWN, detail, "repair the way to [broker] of ops.toml")
    host = _comparable(member.host)
    here = [news for news in heard.news.values() if news.controller and _comparable(news.controller) == host]
    found = {news.producer: liveness(news, now) for news in here}
    alive = {name: state.detail for name, state in found.items() if state.state is State.ALIVE}
    if alive:
        return Row(_CHECK, member.host, Result.OK, f"producer {_words(alive)}")
    if found:
        silent = _words({name: state.detail for name, state in found.items()})
        repair = f"see to `passrelay producer run` on {member.host}, its log, and its way to the broker"
        return Row(_CHECK, member.host, Result.FAIL, f"silent: producer {silent}", repair)
    return _none(member, heard.unbelieved)


def _none(member: Member, unbelieved: Sequence[Unbelieved]) -> Row:
    detail = "no producer has spoken for this controller: what is changed there comes late, or is lost with it"
    repair = f"start a producer on {member.host}, or set one up (README, step 4); if it is gone, remove it from AD"
    strangers = sorted({one.producer for one in unbelieved if one.producer and one.reason is Reason.UNTRUSTED})
    if strangers:
        detail += f"; news of {', '.join(strangers)} do not count, for their signing keys are not enrolled here"
        repair = "`passrelay keys enroll` their signing documents here, if they are yours; else " + repair
    return Row(_CHECK, member.host, Result.FAIL, detail, repair)


def _words(details: dict[str, str]) -> str:
    return "; ".join(f"{name}: {details[name]}" for name in sorted(details))


def _comparable(host: str) -> str:
    """Host names are compared without regard to case (RFC 4343)."""
    return host.rstrip(".").lower()
