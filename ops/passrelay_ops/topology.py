"""Declaring and checking what passrelay needs on the broker (names and arguments: passrelay_schemas.topology)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.exceptions import ChannelClosedByBroker

from passrelay_ops.connection import ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED
from passrelay_schemas.topology import EXCHANGES, Exchange, Queue, queues

_DIFFERENT = re.compile(r"inequivalent arg '([^']+)'.*?received (.+) but current is (.+)$")

_SETTLE_SECONDS = 3
"""RabbitMQ 3.10 puts a new queue's Raft name on its disk a second after the declare; a crash in between loses what was
published meanwhile, though it was confirmed (measured). No question in AMQP tells when it is done."""


class State(StrEnum):
    """What was found of one exchange, queue or binding."""

    OK = "ok"
    CREATED = "created"
    MISSING = "missing"
    DIFFERENT = "different"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """One thing and its state; `detail` holds the difference and the repair."""

    kind: str
    name: str
    state: State
    detail: str = ""

    @property
    def good(self) -> bool:
        """Nothing to repair."""
        return self.state in {State.OK, State.CREATED}


def apply(connection: BlockingConnection) -> list[Finding]:
    """Declare everything; idempotent. What exists in another shape stays as it is and is reported.

    Takes a few seconds longer when it made a queue, see `_SETTLE_SECONDS`.
    """
    findings = [_declare_exchange(connection, exchange) for exchange in EXCHANGES]
    for queue in queues():
        finding = _declare_queue(connection, queue)
        findings.append(finding)
        if finding.good:
            findings.append(_bind(connection, queue))
    if any(finding.kind == "queue" and finding.state is State.CREATED for finding in findings):
        connection.sleep(_SETTLE_SECONDS)
    return findings


def check(connection: BlockingConnection) -> list[Finding]:
    """Compare without creating: a thing that is not there is only reported.

    AMQP 0-9-1 has no question for a binding: only `apply` restores one, and until then publishers get their messages
    back (mandatory), so none is lost.
    """
    findings = []
    for exchange in EXCHANGES:
        missing = _passive(connection, "exchange", exchange.name)
        findings.append(missing or _declare_exchange(connection, exchange, existing=True))
    for queue in queues():
        missing = _passive(connection, "queue", queue.name)
        findings.append(missing or _declare_queue(connection, queue, existing=True))
    return findings


def _passive(connection: BlockingConnection, kind: str, name: str) -> Finding | None:
    """A finding if the thing is missing or may not be asked for, else None."""

    def ask(channel: BlockingChannel) -> None:
        if kind == "queue":
            channel.queue_declare(name, passive=True)
        else:
            channel.exchange_declare(name, passive=True)

    finding = _try(connection, kind, name, ask)
    # A user without any permission on the thing cannot even ask; whether it exists is then told by the declare.
    return None if finding.state in {State.OK, State.REFUSED} else finding


def _declare_exchange(connection: BlockingConnection, exchange: Exchange, *, existing: bool = False) -> Finding:
    there = existing or _exists(connection, lambda channel: channel.exchange_declare(exchange.name, passive=True))
    finding = _try(
        connection,
        "exchange",
        exchange.name,
        lambda channel: channel.exchange_declare(exchange.name, exchange_type=exchange.type, durable=True),
    )
    return _created(finding, there=there)


def _declare_queue(connection: BlockingConnection, queue: Queue, *, existing: bool = False) -> Finding:
    there = existing or _exists(connection, lambda channel: channel.queue_declare(queue.name, passive=True))
    # Declaring a queue again with the arguments it has is how AMQP compares them.
    finding = _try(
        connection,
        "queue",
        queue.name,
        lambda channel: channel.queue_declare(queue.name, durable=True, arguments=queue.arguments),
    )
    return _created(finding, there=there)


def _created(finding: Finding, *, there: bool) -> Finding:
    if finding.state is State.OK and not there:
        return Finding(finding.kind, finding.name, State.CREATED)
    return finding


def _bind(connection: BlockingConnection, queue: Queue) -> Finding:
    name = f"{queue.exchange} -> {queue.name}" + (f" ({queue.routing_key})" if queue.routing_key else "")
    return _try(
        connection,
        "binding",
        name,
        lambda channel: channel.queue_bind(queue.name, queue.exchange, routing_key=queue.routing_key),
    )


def _exists(connection: BlockingConnection, ask: Callable[[BlockingChannel], object]) -> bool:
    return _try(connection, "", "", ask).state is State.OK


def _try(connection: BlockingConnection, kind: str, name: str, act: Callable[[BlockingChannel], object]) -> Finding:
    # Each on a channel of its own: the broker closes a channel with every refusal.
    channel = connection.channel()
    try:
        act(channel)
    except ChannelClosedByBroker as error:
        return refusal(kind, name, error.reply_code, error.reply_text)
    channel.close()
    return Finding(kind, name, State.OK)


def refusal(kind: str, name: str, code: int, text: str) -> Finding:
    """What a refused declare means, with the repair."""
    if code == NOT_FOUND:
        return Finding(kind, name, State.MISSING, "missing: run `passrelay topology apply`")
    if code == ACCESS_REFUSED:
        return Finding(
            kind,
            name,
            State.REFUSED,
            f"the broker refused ({text}): this command needs a user with configure, write and read permission on "
            "passrelay\\..* (rabbitmqctl set_permissions)",
        )
    if code == PRECONDITION_FAILED:
        found = _DIFFERENT.search(text)
        what = f"{found[1]} must be {found[2]}, it is {found[3]}" if found else text
        remove = f"`rabbitmqctl delete_queue {name}`" if kind == "queue" else "delete it in the management page"
        return Finding(
            kind,
            name,
            State.DIFFERENT,
            f"{what}: stop producers and consumers, see that it is empty (deleting loses what is in it), {remove}, "
            "then `passrelay topology apply`",
        )
    return Finding(kind, name, State.UNKNOWN, f"{code} {text}")
