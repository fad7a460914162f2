"""The broker as one role sees it: looked at once with that role's own certificate, then decided."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import unquote, urlsplit

from cryptography import x509
from cryptography.x509.oid import NameOID
from pika.adapters.blocking_connection import BlockingConnection
from pika.exceptions import ChannelClosedByBroker

from passrelay_ops import topology
from passrelay_ops.check import Result, Row
from passrelay_ops.connection import connect, server_version
from passrelay_ops.doctor import rights
from passrelay_ops.doctor.greeting import Greeting, greet
from passrelay_ops.doctor.rights import Answer, Right
from passrelay_ops.topology import Finding, State
from passrelay_schemas.broker_settings import BrokerSettings
from passrelay_schemas.errors import PassrelayError
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.topology import EVENTS

OLDEST = (3, 10)
"""Streams, and quorum queues with at-least-once dead letters."""
RENEW = timedelta(days=14)
"""As PassrelayCertificateExpires."""
CERTIFICATE = "broker.certificate"
_IDS = (
    "broker.connect",
    CERTIFICATE,
    "broker.client",
    "broker.login",
    "broker.version",
    "broker.permissions",
    "broker.topology",
)
_LIMITS = "broker.limits"
CONSUMERS = "broker.consumers"


@dataclass(frozen=True)
class BrokerView:
    """What one role was shown."""

    greeting: Greeting
    user: str = ""
    vhost: str = ""
    login_fault: str = ""
    version: str = ""
    rights: Mapping[Right, Answer] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    """Of every exchange and queue; only an operator may compare them."""
    consumers: int | None = None
    """Who reads the work queue; None: nobody asked, or it is not there."""
    waiting: int = 0
    looked_at: datetime = field(default_factory=utc_now)


def ids(role: str) -> tuple[str, ...]:
    """The checks of a role, in the order in which one rests on another."""
    return (*_IDS, _LIMITS, CONSUMERS) if role == "ops" else _IDS


def look(settings: BrokerSettings, role: str) -> BrokerView:
    """Look once; nothing is published, taken or made. What cannot be done is part of the view."""
    greeting = greet(settings)
    user, vhost = _user(settings), unquote(urlsplit(settings.url.reveal()).path.lstrip("/")) or "/"
    if greeting.unreachable or greeting.certificate_fault or greeting.client_fault:
        return BrokerView(greeting, user, vhost)
    try:
        with connect(settings) as connection:
            found = rights.look(connection)
            findings = topology.check(connection) if role == "ops" else ()
            consumers, waiting = _work(connection) if role == "ops" else (None, 0)
            return BrokerView(
                greeting,
                user,
                vhost,
                version=server_version(connection),
                rights=found,
                findings=findings,
                consumers=consumers,
                waiting=waiting,
            )
    except PassrelayError as error:
        return BrokerView(greeting, user, vhost, login_fault=str(error))


def _work(connection: BlockingConnection) -> tuple[int | None, int]:
    """How many read the work queue, and how many messages nobody has been given."""
    channel = connection.channel()
    try:
        queue = channel.queue_declare(EVENTS, passive=True).method
    except ChannelClosedByBroker:
        return None, 0
    channel.close()
    return queue.consumer_count, queue.message_count


def _user(settings: BrokerSettings) -> str:
    """Whom the broker takes us for; never a password."""
    name = urlsplit(settings.url.reveal()).username
    if name is None and settings.certificate_file is not None:
        subject = x509.load_pem_x509_certificates(settings.certificate_file.read_bytes())[0].subject
        names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        name = str(names[0].value) if names else None
    return name or "USER"


def rows(subject: str, role: str, view: BrokerView) -> list[Row]:
    """Every check of the broker; what rests on one that failed is unknown."""
    found = list(_until_a_fault(subject, role, view))
    rest = ids(role)[len(found) :]
    return [*found, *(Row(check, subject, Result.UNKNOWN, f"{found[-1].id} failed") for check in rest)]


def _until_a_fault(subject: str, role: str, view: BrokerView) -> Iterator[Row]:
    greeting = view.greeting
    if greeting.unreachable:
        yield Row(
            "broker.connect", subject, Result.FAIL, greeting.unreachable, "start the broker or correct the way to it"
        )
        return
    yield Row("broker.connect", subject, Result.OK, "it answers")
    if greeting.certificate_fault:
        yield Row(CERTIFICATE, subject, Result.FAIL, greeting.certificate_fault, greeting.certificate_repair)
        return
    yield _certificate(subject, greeting, view.looked_at)
    if greeting.client_fault:
        repair = f"give {view.user} a certificate of a CA that the broker trusts (its ssl_options.cacertfile)"
        yield Row("broker.client", subject, Result.FAIL, f"it refuses our certificate: {greeting.client_fault}", repair)
        return
    yield Row("broker.client", subject, Result.OK, "accepted" if greeting.secure else "none: clear text on loopback")
    if view.login_fault:
        what, _, repair = view.login_fault.rpartition(": ")
        yield Row("broker.login", subject, Result.FAIL, what, repair)
        return
    yield Row("broker.login", subject, Result.OK, f"as {view.user}")
    yield _version(subject, view.version)
    yield _permissions(subject, role, view)
    yield _topology(subject, role, view)
    if role == "ops":
        yield _limits(subject, view.findings)
        yield _consumers(subject, view)


def _certificate(subject: str, greeting: Greeting, now: datetime) -> Row:
    """One that is good today; nothing rests on how long it still is."""
    if not greeting.secure:
        return Row(CERTIFICATE, subject, Result.OK, "none: clear text on loopback")
    if greeting.expires_at is None:
        return Row(CERTIFICATE, subject, Result.OK, "good")
    detail = f"good until {greeting.expires_at:%Y-%m-%d}"
    if greeting.expires_at - now >= RENEW:
        return Row(CERTIFICATE, subject, Result.OK, detail)
    detail = f"{detail}: less than {RENEW.days} days are left"
    return Row(CERTIFICATE, subject, Result.FAIL, detail, "renew the broker's certificate")


def _version(subject: str, version: str) -> Row:
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers >= OLDEST:
        return Row("broker.version", subject, Result.OK, f"RabbitMQ {version}")
    oldest = ".".join(map(str, OLDEST))
    return Row("broker.version", subject, Result.FAIL, f"RabbitMQ {version}", f"install RabbitMQ {oldest} or later")


def _permissions(subject: str, role: str, view: BrokerView) -> Row:
    lacking, excess = [], []
    for right, answer in view.rights.items():
        needed, permitted = rights.needed(role, right), answer is not Answer.REFUSED
        if needed and not permitted:
            lacking.append(f"{right.act} {right.name}")
        if permitted and not needed:
            excess.append(f"{right.act} {right.name}")
    if not lacking and not excess:
        return Row("broker.permissions", subject, Result.OK, f"what the role {role} needs, and no more")
    parts = [f"may not {', '.join(lacking)}"] if lacking else []
    parts += [f"may {', '.join(excess)}, which the role {role} does not need"] if excess else []
    detail = f"{view.user} {' and '.join(parts)}"
    return Row("broker.permissions", subject, Result.FAIL, detail, rights.command(role, view.user, view.vhost))


def _topology(subject: str, role: str, view: BrokerView) -> Row:
    if role == "ops":
        missing = [f"{finding.kind} {finding.name}" for finding in view.findings if finding.state is State.MISSING]
        unseen = [finding.name for finding in view.findings if finding.state in {State.REFUSED, State.UNKNOWN}]
    else:
        asked = {right: answer for right, answer in view.rights.items() if rights.needed(role, right)}
        missing = [right.name for right, answer in asked.items() if answer is Answer.MISSING]
        unseen = [right.name for right, answer in asked.items() if answer is Answer.REFUSED]
    if missing:
        detail = f"missing: {', '.join(dict.fromkeys(missing))}"
        return Row("broker.topology", subject, Result.FAIL, detail, "`passrelay topology apply`")
    if unseen:
        detail = f"this login may not ask for {', '.join(dict.fromkeys(unseen))}"
        return Row("broker.topology", subject, Result.UNKNOWN, detail)
    return Row("broker.topology", subject, Result.OK, "all that this role uses is there")


def _limits(subject: str, findings: Sequence[Finding]) -> Row:
    different = [finding for finding in findings if finding.state is State.DIFFERENT]
    if different:
        # A finding says "what: repair".
        parts = [finding.detail.partition(": ") for finding in different]
        detail = "; ".join(f"{finding.name}: {what}" for finding, (what, _, _) in zip(different, parts, strict=True))
        return Row(_LIMITS, subject, Result.FAIL, detail, "; ".join(repair for _, _, repair in parts))
    unseen = [finding.name for finding in findings if not finding.good]
    if unseen:
        return Row(_LIMITS, subject, Result.UNKNOWN, f"cannot be compared: {', '.join(dict.fromkeys(unseen))}")
    return Row(_LIMITS, subject, Result.OK, "delivery limits, dead-lettering, sizes and ages are as they should be")


def _consumers(subject: str, view: BrokerView) -> Row:
    if view.consumers is None:
        return Row(CONSUMERS, subject, Result.UNKNOWN, f"{EVENTS} cannot be asked")
    if view.consumers:
        return Row(CONSUMERS, subject, Result.OK, f"{view.consumers} read {EVENTS}")
    detail = f"nobody reads {EVENTS}, where {view.waiting} messages wait"
    repair = "start `passrelay consumer run`; one that runs unsubscribes while no IdM server is fit, its log says why"
    return Row(CONSUMERS, subject, Result.FAIL, detail, repair)
