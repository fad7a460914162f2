"""What the producer says of itself (passrelay_schemas.news): put together anew each time, and kept nowhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from pydantic import ValidationError

from passrelay_producer.identity import Identity
from passrelay_producer.metrics import ProducerMetrics
from passrelay_producer.sources import Source
from passrelay_producer.spool import Spool
from passrelay_producer.spool_statistics import Statistics
from passrelay_schemas import __version__, limits
from passrelay_schemas import news as documents
from passrelay_schemas.errors import PassrelayError
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.logs import Action, Log
from passrelay_schemas.news import News, SpooledFor
from passrelay_schemas.strict_json import describe


class Newsroom:
    """Writes the news of one process. Trouble with that is a warning, once; capturing and publishing go on."""

    def __init__(
        self,
        source: Source,
        spool: Spool,
        identity: Identity,
        *,
        metrics: ProducerMetrics,
        source_is_up: Callable[[], bool],
        log: Log,
    ) -> None:
        self._source = source
        self._source_is_up = source_is_up
        self._spool = spool
        self._identity = identity
        self._metrics = metrics
        self._log = log
        self._started_at = utc_now()
        self._trouble = ""

    def write(self, *, stopping: bool = False) -> bytes | None:
        """The signed news of this moment; None when they cannot be written now (no signing key, spool held or gone)."""
        try:
            signer = self._identity.signer(self._identity.producer)
            news = self._news(signer.document.key_id, stopping=stopping)
            self._trouble = ""
            return documents.encode(news, signer)
        except ValidationError as error:
            why = f"news: {describe(error)}"
        except PassrelayError as error:
            why = str(error)
        except (OSError, ValueError) as error:  # the spool's folder was moved; a state of a newer version is in it
            why = f"news: {error}"
        if why != self._trouble:
            self._log.warning(Action.NEWS_FAULT, why=why, repair="events are captured and published all the same")
        self._trouble = why
        return None

    def _news(self, signing_key_id: str, *, stopping: bool) -> News:
        about, found, last_capture = self._source.about(), self._spool.statistics(), self._metrics.last_capture
        pending = Counter(found.pending) + Counter(self._source.waiting())  # without zeros
        return News(
            signing_key_id=signing_key_id,
            producer=self._identity.producer,
            source=about.kind,
            domains=tuple(about.domains[: limits.MAX_NEWS_DOMAINS]),
            controller=about.controller,
            openpgp_fingerprints=tuple(about.openpgp_fingerprints[: limits.MAX_NEWS_FINGERPRINTS]),
            version=__version__,
            seals_to=self._identity.seals_to(),
            sent_at=utc_now(),
            started_at=self._started_at,
            stopping=stopping,
            source_up=self._source_is_up(),
            last_capture_at=None if last_capture is None else datetime.fromtimestamp(last_capture, UTC),
            pending={reason.value: count for reason, count in pending.items()},
            spool=tuple(_spooled(found))[: limits.MAX_NEWS_KEYS],
        )


def _spooled(found: Statistics) -> Iterator[SpooledFor]:
    """What is not published comes first: should there ever be too many keys, it is what must be told."""
    oldest_by_key = found.oldest_queued_by_key
    for key_id in sorted({key_id for _, key_id in found.events}, key=lambda key: (key not in oldest_by_key, key)):
        oldest = oldest_by_key.get(key_id)
        yield SpooledFor(
            recipient_key_id=key_id,
            queued=found.events.get(("queued", key_id), 0),
            oldest_at=None if oldest is None else datetime.fromtimestamp(oldest, UTC),
            retained=found.events.get(("published", key_id), 0),
        )
