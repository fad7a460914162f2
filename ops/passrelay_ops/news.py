"""What the producers say of themselves (passrelay_schemas.news), as the news stream tells it; only signed news count.

All times in news are the producer's. Whoever sends an old one again changes nothing: the newest by its own time counts.
Only where that time lies in the future the next one counts, or a producer whose clock was set right would stay unheard
until then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops.stream import StreamMessage, read
from passrelay_schemas import news as documents
from passrelay_schemas import topology
from passrelay_schemas.errors import EventError
from passrelay_schemas.filetime import rfc3339, utc_now
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.news import News
from passrelay_schemas.verdict import Reason

EVERYTHING = datetime.fromtimestamp(0, UTC)
"""As `since`: the whole stream, a week. Some 7,000 are read in a second; a producer sends 1,440 to 2,880 a day."""
_RECENT = timedelta(minutes=15)
_SILENT = timedelta(minutes=5)
"""A producer speaks once a minute; a broker that restarts or a busy host takes some of these."""
_MOST_UNBELIEVED = 100


@dataclass(frozen=True)
class Unbelieved:
    """One message that is no news of an enrolled producer. Producer and key are what it claims, None if unreadable."""

    offset: int
    reason: Reason
    why: str
    producer: str | None
    signing_key_id: str | None


@dataclass(frozen=True)
class Heard:
    """What the stream holds."""

    news: Mapping[str, News]
    """The newest of each producer."""
    unbelieved: Sequence[Unbelieved]
    """The last hundred messages that were not believed, oldest first."""


class State(StrEnum):
    """What can be said of a producer."""

    ALIVE = "alive"
    SILENT = "silent"
    NEVER = "never_heard"


@dataclass(frozen=True)
class Liveness:
    """A state, and in words why."""

    state: State
    detail: str


def latest(connection: BlockingConnection, keyring: Keyring, *, since: datetime | None = None) -> dict[str, News]:
    """The newest believable news of each producer; see `hear`."""
    return dict(hear(connection, keyring, since=since).news)


def hear(connection: BlockingConnection, keyring: Keyring, *, since: datetime | None = None) -> Heard:
    """Read the stream from `since`, by the broker's clock, and judge each message; None: the last 15 minutes.

    UnavailableError when the broker stops delivering; pika's ChannelClosedByBroker where the stream is missing (404:
    the topology is older than the news) or may not be read (403), which `passrelay_ops.connection.connect` explains.
    """
    since = utc_now() - _RECENT if since is None else since
    return judge(read(connection, topology.NEWS, since=None if since <= EVERYTHING else since), keyring)


def judge(messages: Iterable[StreamMessage], keyring: Keyring, *, now: datetime | None = None) -> Heard:
    """What these messages tell a host with this keyring, at `now` by its clock."""
    now = now or utc_now()
    newest: dict[str, News] = {}
    unbelieved: deque[Unbelieved] = deque(maxlen=_MOST_UNBELIEVED)
    for message in messages:
        try:
            news = documents.decode(message.body, keyring)
        except EventError as error:
            unbelieved.append(_unbelieved(message, error))
            continue
        if succeeds(news, newest.get(news.producer), now):
            newest[news.producer] = news
    return Heard(newest, tuple(unbelieved))


def succeeds(news: News, known: News | None, now: datetime) -> bool:
    """Whether news that come later in the stream take the place of what is known of their producer."""
    return known is None or news.sent_at >= known.sent_at or known.sent_at - now > _SILENT


def _unbelieved(message: StreamMessage, error: EventError) -> Unbelieved:
    try:
        claimed = documents.peek(message.body)
    except EventError:
        return Unbelieved(message.offset, error.reason, str(error), None, None)
    return Unbelieved(message.offset, error.reason, str(error), claimed.producer, claimed.signing_key_id)


def liveness(news: News | None, now: datetime) -> Liveness:
    """Alive: it spoke within five minutes before `now`, by its own clock, and did not say that it ends.

    Only of a producer that is alive do the numbers in its news hold.
    """
    if news is None:
        return Liveness(State.NEVER, "no news from it")
    age, at = now - news.sent_at, rfc3339(news.sent_at)
    if age < -_SILENT:
        ahead = f"its last news comes from {at}, {-age.total_seconds():.0f} s ahead of this host's clock"
        return Liveness(State.SILENT, f"{ahead}: set the clock right, or nobody can say whether it lives")
    if news.stopping:
        return Liveness(State.SILENT, f"it was stopped at {at}")
    if age > _SILENT:
        return Liveness(State.SILENT, f"no news since {at}, {age.total_seconds():.0f} s by its clock")
    return Liveness(State.ALIVE, f"last news at {at}")
