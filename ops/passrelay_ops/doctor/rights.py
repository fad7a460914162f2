"""What a login may do on the broker, found without doing any of it.

AMQP has no question for a permission. RabbitMQ checks it before anything else, so what cannot succeed still tells: a
publish in a transaction that is rolled back (write), a consume with an argument of a wrong type (read), a declare of
an exchange that is there, as it is (configure).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.exceptions import ChannelClosedByBroker

from passrelay_ops.connection import ACCESS_REFUSED, NOT_FOUND
from passrelay_schemas.topology import DEAD, EVENTS, EXCHANGES, JOURNAL


class Act(StrEnum):
    """RabbitMQ's three permissions."""

    CONFIGURE = "configure"
    WRITE = "write"
    READ = "read"


@dataclass(frozen=True)
class Right:
    """One act on one name: exchanges and queues share their permissions by name."""

    act: Act
    name: str


class Answer(StrEnum):
    """What the broker said to a try."""

    PERMITTED = "permitted"
    REFUSED = "refused"
    MISSING = "missing"  # permitted, but there is no such thing


PERMISSIONS: Mapping[str, Mapping[Act, str]] = {
    "producer": {Act.CONFIGURE: "^$", Act.WRITE: r"^passrelay\.(events|news)$", Act.READ: "^$"},
    "consumer": {
        Act.CONFIGURE: "^$",
        Act.WRITE: r"^passrelay\.(retry|dead|journal)$",
        Act.READ: r"^passrelay\.events$",
    },
    "ops": dict.fromkeys(Act, r"^passrelay\..*"),
}
"""What each role needs, as `rabbitmqctl set_permissions` takes it."""

_ASKED = (
    *(Right(Act.WRITE, exchange.name) for exchange in EXCHANGES),
    *(Right(Act.READ, name) for name in (EVENTS, DEAD, JOURNAL)),
    Right(Act.CONFIGURE, EVENTS),
)


def needed(role: str, right: Right) -> bool:
    """This role needs it."""
    return re.search(PERMISSIONS[role][right.act], right.name) is not None


def command(role: str, user: str, vhost: str) -> str:
    """What gives the role's user its permissions, and no more."""
    wanted = PERMISSIONS[role]
    patterns = " ".join(f"'{wanted[act]}'" for act in Act)
    return f"`rabbitmqctl set_permissions -p {vhost} {user} {patterns}`"


def look(connection: BlockingConnection) -> dict[Right, Answer]:
    """Try every right; a configure that cannot be tried without making something is left out."""
    return dict(_looked(connection))


def _looked(connection: BlockingConnection) -> Iterator[tuple[Right, Answer]]:
    for right in _ASKED:
        if right.act is Act.WRITE:
            yield right, _try(connection, partial(_publish, exchange=right.name))
        elif right.act is Act.READ:
            yield right, _try(connection, partial(_consume, queue=right.name))
        elif _try(connection, lambda channel: channel.exchange_declare(EVENTS, passive=True)) is Answer.PERMITTED:
            yield right, _try(connection, _declare_events)


def _publish(channel: BlockingChannel, exchange: str) -> None:
    channel.tx_select()
    channel.basic_publish(exchange, "", b"")
    channel.tx_rollback()


def _consume(channel: BlockingChannel, queue: str) -> None:
    # RabbitMQ looks at the arguments after the permission and the queue, and refuses this one (406). One that took it
    # would hand out a single message and get it back with the channel.
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue, lambda *_: None, arguments={"x-priority": "none"})


def _declare_events(channel: BlockingChannel) -> None:
    kind = next(exchange.type for exchange in EXCHANGES if exchange.name == EVENTS)
    channel.exchange_declare(EVENTS, exchange_type=kind, durable=True)


def _try(connection: BlockingConnection, act: Callable[[BlockingChannel], object]) -> Answer:
    # Each on a channel of its own: the broker closes a channel with every refusal.
    channel = connection.channel()
    try:
        act(channel)
    except ChannelClosedByBroker as error:
        refusals = {ACCESS_REFUSED: Answer.REFUSED, NOT_FOUND: Answer.MISSING}
        return refusals.get(error.reply_code, Answer.PERMITTED)
    channel.close()
    return Answer.PERMITTED
