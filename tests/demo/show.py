"""The demo itself: start the relay, change passwords, break things, wait, judge."""

from __future__ import annotations

import random
import statistics
import sys
from collections import Counter
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from passrelay_ops.report import Report
from passrelay_schemas import filetime
from passrelay_schemas.marker import Marker
from passrelay_schemas.verdict import Verdict
from tests.demo import script
from tests.demo.people import People, Person
from tests.lab.folder import find_canary
from tests.lab.lab import Lab
from tests.lab.process import LabError, wait_for
from tests.lab.relay import Service

_USERS = [f"user{number:02}" for number in range(1, 21)]
_SHORT = {"samba-tool": "tool", "ldaps-reset": "reset", "ldaps-change": "change", "kpasswd": "kpasswd"}
_ARRIVAL_SECONDS = 90


class Show:
    """One run on a started lab with a domain controller."""

    def __init__(self, lab: Lab, report: Report, *, live: bool) -> None:
        if lab.dc is None:
            raise LabError("the demo needs a domain controller")
        self._lab = lab
        self._dc = lab.dc
        self._report = report
        self._console = Console(file=sys.stderr)
        shown = Live(console=self._console, refresh_per_second=4, transient=True, vertical_overflow="visible")
        self._live = shown if live else None
        self._people = People(lab.dc, lab.directory, _USERS)
        self._found: dict[str, Marker] = {}
        self._faults: script.Faults | None = None

    # -- the acts -----------------------------------------------------------------------------------------------

    def start(self) -> list[Service]:
        """Users in both directories, one producer, two consumers."""
        lab = self._lab
        self._report.servers.update(lab.versions)
        self._report.progress("demo: 20 users in AD and IdM, one producer, two consumers")
        self._people.create()
        lab.relay.enrolment.enrol("dc1")
        domain = lab.relay.enrolment.domain(lab.directory.search_base, name=self._dc.dns_domain, sid=self._dc.sid)
        lab.relay.prepare(domains=[domain])
        samba = {"ldapi_path": self._dc.ldapi_path, "gpg_key_file": self._dc.gpg_key_file}
        producer = lab.relay.samba_producer("dc1", samba)
        consumers = [lab.relay.consumer(f"consumer{number}") for number in (1, 2)]
        for service in (producer, *consumers):
            service.start()
        self._faults = script.Faults(lab, consumers)
        return [producer, *consumers]

    def play(self) -> None:
        """All the changes, the faults beside them, and the wait for the last arrival."""
        assert self._faults is not None
        steps = script.plan(self._people, random.Random(7))
        strikes = self._faults.schedule(len(steps))
        self._report.progress(f"demo: {len(steps)} password changes, with three faults in the middle")
        if self._live is not None:
            self._live.start()
        try:
            for number, (person, way) in enumerate(steps):
                if number in strikes:
                    self._faults.strike(strikes[number])
                self._people.change(person, way)
                if self._live is not None and number % 5 == 0:
                    self._look()
            self._faults.wait()
            wait_for(self._look, what="all changes in IdM", timeout_seconds=_ARRIVAL_SECONDS, interval_seconds=0.3)
        except LabError as error:
            self._report.fail("arrival", "", str(error))
        finally:
            if self._live is not None:
                self._live.stop()
                self._console.print(self._table())

    def judge(self, services: list[Service]) -> None:
        """Bind with every password; count what the journal says; keep the metrics pages for the canary's search."""
        assert self._faults is not None
        rows = [self._row(person) for person in self._people.all]
        self._report["users"] = rows
        for row in rows:
            if not row["newest_binds"]:
                self._report.fail("newest_binds", row["user"], "the newest AD password does not bind at the directory")
            if not row["older_refused"]:
                self._report.fail("older_refused", row["user"], "an older AD password still binds at the directory")
        self._latencies([row["latency_ms"] for row in rows if row["latency_ms"] is not None])
        captured = int(services[0].metric("passrelay_events_total", stage="capture", outcome="captured"))
        with suppress(LabError):  # the last records follow the passwords
            wait_for(
                lambda: len(self._lab.relay.outcomes()) >= captured,
                what="an outcome of each event",
                interval_seconds=0.3,
            )
        outcomes = self._lab.relay.outcomes()
        verdicts = Counter(outcome.verdict for outcome in outcomes.values())
        shown = (Verdict.APPLIED, Verdict.DUPLICATE, Verdict.SUPERSEDED, Verdict.DEAD)
        events = {"captured": captured, **{verdict.value: verdicts[verdict] for verdict in shown}}
        if captured != len(outcomes):
            self._report.fail("events", "", f"{captured} captured, {len(outcomes)} have an outcome")
        self._report["events"] = events
        self._report.progress(f"demo: events {events}")
        if verdicts[Verdict.DEAD]:
            self._report.fail("dead", "", f"{verdicts[Verdict.DEAD]} dead letters")
        self._report["faults"] = self._faults.happened
        pages = self._lab.folder.path / "metrics.txt"
        pages.write_text("\n".join(service.metrics() for service in services))

    def search(self) -> None:
        """After everything was stopped: no byte of any password in any file."""
        assert self._faults is not None
        self._faults.close()
        files, size, hits = find_canary([self._lab.folder.path])
        self._report["canary"] = {"files": files, "bytes": size, "hits": hits}
        self._report.progress(f"demo: {len(hits)} clear-text passwords in {files} files, {size // 1_000_000} MB")
        for hit in hits:
            self._report.fail("canary", hit, "a clear-text password lies here")

    # -- what is seen -------------------------------------------------------------------------------------------

    def _look(self) -> bool:
        try:
            found = script.markers(self._lab, self._people)
            self._found.update({person.name: marker for person, marker in found if marker})
        except LabError:
            return False  # the directory is down, as it should be just now
        if self._live is not None:
            self._live.update(self._table())
        return all(self._is_there(person) for person in self._people.all)

    def _is_there(self, person: Person) -> bool:
        marker = self._found.get(person.name)
        return marker is not None and marker.kvno == person.kvno

    def _row(self, person: Person) -> dict[str, Any]:
        marker = self._found.get(person.name)
        there = marker if marker is not None and self._is_there(person) else None
        binds = self._lab.directory.binds
        return {
            "user": person.name,
            "ways": person.ways,
            "changes": person.changes,
            "changed_at": filetime.rfc3339(filetime.to_datetime(person.changed_at)),
            "applied_at": there.applied_at if there else None,
            "latency_ms": script.latency_ms(person, there) if there else None,
            "newest_binds": binds(person.name, person.passwords[-1]),
            "older_refused": not any(binds(person.name, old) for old in person.passwords[:-1]),
        }

    def _latencies(self, latencies: list[float]) -> None:
        if latencies:
            ordered = sorted(latencies)
            shown = {
                "p50": round(statistics.median(ordered), 1),
                "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
                "max": ordered[-1],
            }
            self._report["latency_ms"] = shown
            self._report.progress(f"demo: from the DC's commit to the working password, faults included, ms: {shown}")

    def _table(self) -> Table:
        happened = self._faults.happened if self._faults else []
        faults = ", ".join(f"{fault['kind']} {fault['target']}" for fault in happened) or "none yet"
        table = Table(title="Active Directory -> RabbitMQ -> IdM", caption=f"faults: {faults}")
        for column in ("user", "ways", "changes", "AD kvno", "IdM kvno", "arrived after"):
            table.add_column(column, no_wrap=True)
        for person in self._people.all:
            marker = self._found.get(person.name)
            table.add_row(
                person.name,
                " ".join(_SHORT[way] for way in person.ways),
                str(person.changes),
                str(person.kvno),
                str(marker.kvno) if marker else "-",
                f"{script.latency_ms(person, marker):.0f} ms" if marker and self._is_there(person) else "...",
            )
        return table
