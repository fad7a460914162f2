"""Retry tiers that are shorter, so that a test need not wait the quarter of an hour that a server may be down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pika.adapters.blocking_connection import BlockingConnection

from passrelay_schemas import topology
from tests.lab.broker import Broker

_MILLISECONDS = {"15s": 300, "2m": 500, "10m": 1000, "1h": 1000}


@contextmanager
def short_tiers(broker: Broker, *, factor: int | None = None) -> Iterator[None]:
    """Replace the tiers that `passrelay topology apply` made. At the end they are gone: the next `apply` makes them.

    They are a second long at most, or `factor` times as short as they should be.
    """
    waits = _MILLISECONDS if factor is None else {tier.name: tier.seconds * 1000 // factor for tier in topology.TIERS}
    tiers = [queue for queue in topology.queues(waits) if queue.exchange == topology.RETRY]
    connection = BlockingConnection(broker.parameters())
    try:
        channel = connection.channel()
        for queue in tiers:
            channel.queue_delete(queue.name)
            channel.queue_declare(queue.name, durable=True, arguments=queue.arguments)
            channel.queue_bind(queue.name, queue.exchange, routing_key=queue.routing_key)
    finally:
        connection.close()
    try:
        yield
    finally:
        connection = BlockingConnection(broker.parameters())
        try:
            for queue in tiers:
                connection.channel().queue_delete(queue.name)
        finally:
            connection.close()
