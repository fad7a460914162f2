"""One campaign: load, faults as planned, everything healed, quiet, and then the checks."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from passrelay_schemas import topology
from tests.faults import judge
from tests.faults.acts import Acts
from tests.faults.heal import heal
from tests.faults.judge import Finding
from tests.faults.outcomes import Outcomes
from tests.faults.plan import _WAYS, AT_ONCE, CONSUMERS, Fault, Plan
from tests.faults.site import Site
from tests.faults.traffic import SambaTraffic, Traffic
from tests.faults.wire import Wire
from tests.lab.folder import find_canary
from tests.lab.process import LabError

SAMBA_USERS = 10
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
"""A name without a slash: cores would lie where we search. Else nothing that an aborted process leaves is looked at."""
_NO_PROGRESS_SECONDS = 90
"""Longer than any back-off of passrelay's own, which is a minute at most."""
_LONGEST_QUIET_SECONDS = 240
"""And so long as the load itself lasted: what still moves then is going round in circles."""
_LOOK_SECONDS = 1.0
_HEALS = 4
_STREAMS = {topology.DEAD, topology.JOURNAL, topology.NEWS}
_OURS = frozenset({"user_missing", "unknown_key", "untrusted"})
"""What a fault of ours makes a letter of, and an operator repairs."""
_STRANGERS = frozenset({"bad_signature", "malformed", "foreign_domain", "untrusted", "revoked"})
"""What the strangers' envelopes end as."""


@dataclass
class Done:
    """What was done of a planned fault, in seconds from the beginning of the load."""

    fault: Fault
    began: float
    ended: float = 0.0
    error: str = ""

    def document(self) -> dict[str, Any]:
        """For the document's schedule."""
        times = {"began": round(self.began, 1), "ended": round(self.ended, 1)}
        return {**self.fault.document(), **times, **({"error": self.error} if self.error else {})}


@dataclass
class Result:
    """What a campaign has found, and of how much."""

    done: list[Done] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    explained: list[dict[str, Any]] = field(default_factory=list)
    """Everything that is known of the first finding of each check."""


class Trial:
    """Runs once at a site that was started and has no load yet."""

    def __init__(
        self, site: Site, plan: Plan, *, per_second: float, seconds: float, binds: int, say: Callable[[str], None]
    ) -> None:
        self._site = site
        self._plan = plan
        self._seconds = seconds
        self._binds = binds
        self._say = say
        dice = random.Random(f"passrelay load {plan.seed}")
        self._traffic = Traffic(list(site.sources.values()), dice, per_second=per_second, seconds=seconds)
        self._samba = SambaTraffic(site.dc, random.Random(dice.getrandbits(32)), SAMBA_USERS)
        self._acts = Acts(site, self._traffic)
        self._outcomes = Outcomes(site)
        self._wire = Wire(site)
        self._busy: set[str] = set()
        self._active = 0
        self._changed = threading.Condition()
        self._began = 0.0
        self._restless = self._unquiet = ""
        self.result = Result()

    def run(self, *, at_once: int = AT_ONCE, all_faults: bool = False) -> Result:
        """Everything. With `all_faults` the load lasts until the last fault is undone, however long that takes."""
        self._prepare()
        self._began = time.monotonic()
        self._traffic.start()
        self._samba.start()
        self._do_all(at_once, all_faults=all_faults)
        self._traffic.stop()
        self._samba.stop()
        self.result.numbers["load_seconds"] = round(self._now)
        self.result.findings += [
            Finding("ended", each.name, f"ended by itself with {each.process.child and each.process.child.returncode}")
            for each in self._site.ended_by_itself()
        ]
        self.result.findings += [Finding("ended", name, "ended by itself") for name in self._site.ended_early]
        self._pages()
        heal(self._site)
        self._say(f"{self._now:6.1f} s  all healed")
        for _ in range(_HEALS):
            self._wait_until_quiet()
            if self._restless or not self._repair_letters():
                break
        self._judge()
        return self.result

    @property
    def _now(self) -> float:
        return time.monotonic() - self._began

    def _prepare(self) -> None:
        began = time.monotonic()
        self._samba.prepare()
        self._site.suppliers.a.add_users([*self._traffic.names, *self._samba.names])
        self._site.suppliers.wait_in_sync(timeout_seconds=600)
        for service in self._site.services:
            self._site.on_site(service.start)
        self._wire.start()
        self._say(f"{len(self._traffic.names)} users made, all started in {time.monotonic() - began:.0f} s")

    # -- faults -----------------------------------------------------------------------------------------------------

    def _do_all(self, at_once: int, *, all_faults: bool) -> None:
        futures = []
        for fault in self._plan.faults:
            holds = set(_WAYS[fault.kind].holds.format(target=fault.target).split())
            if not self._wait_for_turn(fault, holds, at_once, all_faults=all_faults):
                break
            futures.append(self._site.threads.submit(self._do, fault, holds))
        time.sleep(max(0.0, self._seconds - self._now))
        for future in futures:
            future.result()

    def _wait_for_turn(self, fault: Fault, holds: set[str], at_once: int, *, all_faults: bool) -> bool:
        """On a busy machine faults take longer than planned; then the next ones come later. False when time is up."""
        time.sleep(max(0.0, fault.at - self._now))
        with self._changed:
            self._changed.wait_for(lambda: self._active < at_once and not holds & self._busy, timeout=300)
            if not all_faults and self._now > self._seconds:
                return False
            self._active += 1
            self._busy |= holds
        return True

    def _do(self, fault: Fault, holds: set[str]) -> None:
        done = Done(fault, self._now)
        self.result.done.append(done)
        self._say(f"{done.began:6.1f} s  {fault.number:3} {fault.kind} {fault.target}, {fault.seconds} s")
        try:
            with self._acts.act(fault):
                time.sleep(max(0.0, fault.seconds - (self._now - done.began)))
        except Exception as error:  # noqa: BLE001 - a fault that could not be done is told, and healed at the end
            done.error = f"{type(error).__name__}: {str(error)[:400]}"
            self._say(f"{self._now:6.1f} s  {fault.number:3} {fault.kind} {fault.target}: {done.error}")
        done.ended = self._now
        with self._changed:
            self._active -= 1
            self._busy -= holds
            self._changed.notify_all()

    # -- the end ----------------------------------------------------------------------------------------------------

    def _wait_until_quiet(self) -> None:
        self._unquiet = ""
        seen: tuple[object, ...] = ()
        since, began = time.monotonic(), self._now
        longest = _LONGEST_QUIET_SECONDS + float(self.result.numbers["load_seconds"])
        while time.monotonic() - since < _NO_PROGRESS_SECONDS:
            state = self._state()
            if state and not any(state):
                return
            if state != seen:
                seen, since = state, time.monotonic()
            if self._now - began > longest:
                self._restless = f"{state} after {longest:.0f} s without a fault or a change"
                break
            self._release_brakes()
            time.sleep(_LOOK_SECONDS)
        self._unquiet = f"{seen} left where nothing moves any more"
        self._say(f"{self._now:6.1f} s  not quiet: {seen}")

    def _state(self) -> tuple[object, ...]:
        """What is still on its way, cheap things first; all zero when nothing is. Empty when nobody can say now."""
        site = self._site
        try:
            lines = sum(source.waiting for source in site.sources.values())
            spooled = sum(
                site.service(name).metric("passrelay_spool_events", state="queued")
                + site.service(name).metric("passrelay_capture_pending")
                for name in (*site.sources, "ad1")
            )
            depths = site.broker.queue_depths()
            queued = sum(depth for name, depth in depths.items() if name not in _STREAMS)
            if lines or spooled or queued:
                return lines, spooled, queued, depths[topology.JOURNAL]
            self._outcomes.update()
            return len(self._outcomes.undecided(self._captured())), len(self._outcomes.unsettled())
        except (OSError, LabError):
            return ()

    def _captured(self) -> list[str]:
        return [event_id for source in self._site.sources.values() for event_id in list(source.captured)]

    def _release_brakes(self) -> None:
        """docs/runbooks/PassrelayConsumerBrake.md: after a look at the letters, start it again."""
        for name in CONSUMERS:
            service = self._site.service(name)
            with suppress(OSError):
                if service.metric("passrelay_consumer_paused", reason="brake"):
                    self._say(f"{self._now:6.1f} s  {name}: the brake is released")
                    service.stop()
                    self._site.on_site(service.start)

    def _repair_letters(self) -> bool:
        """What an operator does about the letters; False when there is nothing more to be done.

        A settle copy whose signing key was revoked meanwhile is dead too, though its event was applied; its letter has
        an id of its own, as all have whose signature does not count. The runbook has everything republished.
        """
        unsettled, known, letters = set(self._outcomes.unsettled()), self._known, self._letters()
        revoked = {row["producer"] for row in letters if row["reason"] == "revoked"} if unsettled else set()
        for producer in revoked:
            self._say(f"{self._now:6.1f} s  {len(unsettled)} writes are not settled: {producer} republishes")
            self._site.republish(producer, "72h")
        mine = [
            row
            for row in letters
            if row["reason"] in _OURS
            and row["event_id"] in known
            and (row["event_id"] in unsettled or self._outcomes.only_dead(row["event_id"]))
        ]
        if mine:
            said = self._site.operate("dead", "replay", "--yes", "--reason-text", "healed")
            reasons = dict(Counter(row["reason"] for row in mine))
            self._say(f"{self._now:6.1f} s  dead letters of ours: {reasons}; {said.get('replayed')} replayed")
        return bool(mine or revoked)

    def _letters(self) -> list[dict[str, Any]]:
        document = self._site.operate("dead", "list")
        return [row for row in document.get("letters", []) if row["state"] == "live"]

    @property
    def _known(self) -> set[str]:
        return set(self._captured())

    def _pages(self) -> None:
        """The metrics of all that run, kept for the search."""
        for service in self._site.services:
            with suppress(OSError, LabError, IndexError):
                (self._site.folder / f"{service.name}.metrics").write_text(service.metrics())

    # -- the checks -------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        site, found = self._site, self.result.findings
        if self._restless or self._unquiet:
            found.append(Finding("restless", "", self._restless or self._unquiet))
        self._pages()
        self._outcomes.update()
        self._wire.stop()
        for service in site.services:
            code = service.stop()
            if code:
                found.append(Finding("ended", service.name, f"did not end cleanly when asked to: {code}"))
        site.suppliers.wait_in_sync()
        captured = self._captured()
        everybody = judge.truths(self._traffic, self._samba, site)
        found += [Finding("undecided", event_id, "no outcome") for event_id in self._outcomes.undecided(captured)]
        found += [Finding("undecided", event_id, "never settled") for event_id in self._outcomes.unsettled()]
        found += [Finding("refused", name, each) for name, source in site.sources.items() for each in source.refused]
        found += [
            Finding("contradiction", event_id, "given up for a reason of its own, and yet it has another outcome")
            for event_id in captured
            if self._outcomes.contradicts_itself(event_id, repaired=_OURS)
        ]
        found += judge.directories(site, everybody, binds=self._binds, dice=random.Random(self._plan.seed))
        found += judge.audit(site, len(self._samba.names))
        found += [Finding("unwatched", "loopback", self._wire.fault)] if self._wire.fault else []
        letters = self._letters()
        known = self._known
        found += [
            Finding("dead", row["event_id"], f"{row['reason']} of {row['producer']}")
            for row in letters
            if row["reason"] not in (_OURS if row["event_id"] in known else _STRANGERS)
        ]
        found += judge.complaints(service.log for service in site.services)
        files, size, hits = find_canary([site.lab_folder.path])
        found += [Finding("readable", hit, "a password in clear") for hit in (*hits, *self._wire.hits[:5])]
        self.result.numbers |= {
            "events": len(captured),
            "samba_changes": self._samba.made,
            "users": len(everybody),
            "outcomes": self._outcomes.counts(),
            "letters": dict(Counter(row["reason"] for row in letters)),
            "searched": {
                "files": files,
                "bytes": size,
                "captured_bytes": self._wire.bytes,
                "dropped_packets": self._wire.dropped,
                "core_pattern": CORE_PATTERN.read_text().strip(),
            },
            "quiet_after_seconds": round(self._now),
        }
        first = {finding.check: finding for finding in reversed(found)}
        self.result.explained = [self._explain(finding) for finding in first.values()]

    def _explain(self, finding: Finding) -> dict[str, Any]:
        """The history of the newest event of the user, or of the event, that the first finding is of."""
        found: dict[str, Any] = {"check": finding.check, "subject": finding.subject, "detail": finding.detail}
        ids = [finding.subject] if finding.subject in self._known else []
        ids += [
            event_id
            for source in self._site.sources.values()
            for event_id, made in source.captured.items()
            if made.sam == finding.subject
        ]
        for event_id in ids:
            made = next((s.captured[event_id] for s in self._site.sources.values() if event_id in s.captured), None)
            found.setdefault("events", []).append(
                {
                    "event_id": event_id,
                    "producer": next(name for name, s in self._site.sources.items() if event_id in s.captured),
                    "version": made.kvno if made else None,
                    "journal": self._outcomes.history(event_id),
                    "log": self._log_lines(event_id),
                }
            )
        found.get("events", []).sort(key=lambda event: event["version"] or 0)
        return found

    def _log_lines(self, text: str) -> list[str]:
        return [
            f"{service.name}: {line}"
            for service in self._site.services
            for line in service.log.read_text(errors="replace").splitlines()
            if text in line
        ]
