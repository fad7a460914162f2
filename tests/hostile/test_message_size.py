"""The shipped broker takes no message that would fill a consumer's memory: a consumer holds hundreds at a time."""

from __future__ import annotations

import pika
import pytest

from passrelay_schemas import limits
from passrelay_schemas.topology import EVENTS, NEWS
from tests.integration.test_broker_setup import PRODUCER, attempt
from tests.lab.shipped_broker import ShippedNode

pytestmark = pytest.mark.integration

_MOST = 131_072
_PRECONDITION_FAILED = 406


@pytest.mark.parametrize("exchange", [EVENTS, NEWS])
@pytest.mark.parametrize(
    ("size", "refusal"), [(limits.MAX_RECORD_BYTES, None), (_MOST + 1, _PRECONDITION_FAILED), (8_000_000, 406)]
)
def test_a_producer_cannot_publish_what_is_larger_than_anything_of_ours(
    node: ShippedNode, exchange: str, size: int, refusal: int | None
) -> None:
    properties = pika.BasicProperties(delivery_mode=2)
    assert (
        attempt(node, PRODUCER, lambda channel: channel.basic_publish(exchange, "", b"x" * size, properties)) == refusal
    )
