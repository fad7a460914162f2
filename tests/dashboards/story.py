"""A deployment under load that has one trouble after the other, and the Prometheus that saw it all."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Self
from uuid import uuid4

from pika.adapters.blocking_connection import BlockingConnection

from passrelay_schemas import filetime, keys, topology
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.verdict import Reason
from tests.dashboards.questions import Span
from tests.integration.test_watch import OK, Site, becomes
from tests.lab.dead_mail import DeadMail
from tests.lab.enrolment import DOMAIN, DOMAIN_SID, Sender, change
from tests.lab.folder import canary_password
from tests.lab.network import Reservations
from tests.lab.process import wait_for
from tests.lab.prometheus import Prometheus
from tests.lab.relay import LineProducer

PREFIX = "unsichtbar"
"""Begins the name of every account of the story, and stands nowhere else."""
SILENT = "dc3"
"""A domain controller that is listed and was never heard."""
_STRANGE = f"{PREFIX}-strange"
_USERS = 8
_SEEN_SECONDS = 120


class Traffic:
    """People who change their passwords at one domain controller, one every `interval_seconds`."""

    def __init__(self, producer: LineProducer, users: list[str], interval_seconds: float) -> None:
        self.changes = 0
        self._producer = producer
        self._accounts = {name: str(uuid4()) for name in (*users, f"{PREFIX}-nobody", f"{PREFIX}-pc$")}
        self._interval_seconds = interval_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"traffic-{producer.name}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def carry(self, changes: int) -> None:
        """Wait for so many more."""
        goal = self.changes + changes
        wait_for(lambda: self.changes >= goal, what=f"{changes} changes", timeout_seconds=_SEEN_SECONDS + changes)

    def _run(self) -> None:
        names = list(self._accounts)
        while not self._over.wait(self._interval_seconds):
            name = names[self.changes % len(names)]
            number = names.index(name)
            account = {"guid": self._accounts[name], "sid": f"{DOMAIN_SID}-{3000 + number}", "sam_account_name": name}
            line = {"domain": DOMAIN, "account": account, "password": canary_password(), "kvno": 100 + self.changes}
            self._producer.send([{**line, "changed_at": filetime.now()}])
            self.changes += 1


class Story:
    """Two producers, a third that is silent, two consumers and a watcher; `told` runs it, and Prometheus with it."""

    def __init__(self, site: Site, reservations: Reservations, *, changes: int, factor: int) -> None:
        self._site = site
        self._changes = changes
        self.senders: dict[str, Sender] = {name: site.enrolment.enrol(name) for name in ("dc1", "dc2")}
        site.enrolment.producers.append(SILENT)
        recipient = site.enrolment.recipient.model_copy(update={"expires_at": utc_now() + timedelta(days=300)})
        keys.write_public(site.enrolment.consumer_keys, recipient)
        site.prepare()
        site.broker.purge_all()
        self.producers = [site.line_producer(name) for name in self.senders]
        self.services = [
            *self.producers,
            *(site.consumer(name, idm={"probe_seconds": 2}) for name in ("consumer1", "consumer2")),
            site.watcher(),
        ]
        self._reservations = reservations
        self._factor = factor
        self._began = 0.0
        self.prometheus: Prometheus

    @property
    def span(self) -> Span:
        """From the beginning until now, in some hundred points."""
        end = time.time()
        return Span(self._began, end, step=max(1, (end - self._began) // 100))

    @contextmanager
    def told(self, *, interval_seconds: float) -> Iterator[None]:
        """Within it all has happened and Prometheus still answers."""
        users = {name: [f"{PREFIX}-{name}-{number}" for number in range(_USERS)] for name in self.senders}
        with ExitStack() as stack:
            for name in (_STRANGE, *itertools.chain(*users.values())):
                self._site.directory.add_user(name)
                stack.callback(self._site.directory.delete_user, name)
            stack.callback(self._site.close)
            for service in self.services:
                service.start()
            self.prometheus = self._watching()
            self.prometheus.start()
            stack.callback(self.prometheus.stop)
            for service in self.services:
                becomes(service, "/readyz", OK)
            self._began = time.time()
            with ExitStack() as traffic:
                several = [
                    traffic.enter_context(Traffic(producer, users[producer.name], interval_seconds))
                    for producer in self.producers
                ]
                self._happen(several[0])
            yield

    def _watching(self) -> Prometheus:
        pages = [service.lines("metrics_listening")[-1]["address"] for service in self.services]
        jobs = {
            "passrelay-producer": pages[:2],
            "passrelay-consumer": pages[2:4],
            "passrelay-watch": pages[4],
            "rabbitmq": f"127.0.0.1:{self._site.broker.ports.metrics}",
        }
        folder = self._site.folder / "prometheus"
        return Prometheus(folder, self._reservations, jobs, factor=self._factor)

    def _happen(self, traffic: Traffic) -> None:
        def carry() -> None:
            traffic.carry(self._changes)

        site = self._site
        carry()
        self._strange_messages()
        self._letters()
        carry()

        site.directory.stop()
        try:
            self._seen('sum(passrelay_consumer_paused{reason="directory"}) == 2')
            self._seen("max(passrelay_work_consumers) == 0")
            carry()
        finally:
            site.directory.start()
        self._seen("sum(passrelay_consumer_paused) == 0")
        self._seen("max(passrelay_work_consumers) == 2")
        carry()

        # A queue that is bound no more: the broker returns what is published.
        connection = BlockingConnection(site.broker.parameters())
        channel = connection.channel()
        channel.queue_unbind(topology.EVENTS, topology.EVENTS, "")
        self._seen('sum(passrelay_events_total{outcome="returned"}) > 0')
        carry()
        channel.queue_bind(topology.EVENTS, topology.EVENTS, "")
        connection.close()
        self._seen("sum(passrelay_spool_oldest_seconds) == 0")

        self._seen('passrelay_retry_messages{tier="15s"} > 0')
        for producer in self.senders:
            self._seen(f'passrelay_producer_up{{producer="{producer}"}} == 1')
        self._seen('sum(rate(passrelay_events_total{outcome="applied"}[10s])) > 0')
        carry()

    def _seen(self, promql: str) -> None:
        wait_for(
            lambda: bool(self.prometheus.query(promql)),
            what=f"Prometheus sees {promql}",
            timeout_seconds=_SEEN_SECONDS,
            interval_seconds=0.2,
        )

    def _strange_messages(self) -> None:
        """A repeated event, an older one, one for a foreign domain, and a message in the news that nobody signed."""
        sender, guid = self.senders["dc1"], uuid4()
        newer, older = (
            sender.envelope(change(_STRANGE, canary_password(), guid=guid, kvno=kvno, changed_at=filetime.now()))
            for kvno in (9, 8)
        )
        foreign = change(
            _STRANGE, canary_password(), guid=guid, kvno=9, changed_at=filetime.now(), domain="other.example"
        )
        self._site.publish([newer])
        self._seen('sum(passrelay_events_total{outcome="applied"}) > 0')
        self._site.publish([newer, newer, older, older, *(sender.envelope(foreign) for _ in range(3))])
        self._site.tell(b"who am I?")

    def _letters(self) -> None:
        mail = DeadMail(self._site.broker, self._site.enrolment, self.senders["dc1"], 3, prefix=PREFIX)
        mail.write(iter([Reason.POLICY] * 6 + [Reason.USER_MISSING] * 4 + [Reason.IDENTITY] * 2))
        mail.write(iter([Reason.REFUSED]), began=utc_now() - timedelta(days=80))
