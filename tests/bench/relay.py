"""What the directory takes from a bare client, and what passrelay writes to it from a full queue: interleaved."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ldap3 import BASE, MODIFY_REPLACE

from tests.bench.compiler import compiled
from tests.bench.cores import directory_alone
from tests.bench.end_to_end import EndToEnd
from tests.bench.limit import SOURCE, limit
from tests.bench.quiet import AFTER_A_RUN_SECONDS, wait_until_quiet
from tests.bench.run import Run
from tests.lab.directory import Directory
from tests.lab.directory_tree import demand, modify
from tests.lab.lab import Lab

_CONNECTIONS = (1, 4, 8, 16)
_SCHEME = "passwordStorageScheme"
_CHEAP = "SSHA512"


@dataclass(frozen=True)
class Scheme:
    """How the directory hashes; the server's default is PBKDF2."""

    name: str
    writes: int
    """In each run, one for each user: some seconds."""
    bar: float
    """For relay / limit while the directory has a core of its own."""
    unpinned_bar: float | None


_SCHEMES = (Scheme("default", 1000, 0.95, 0.8), Scheme("cheap", 4000, 0.5, None))


def measure(run: Run) -> None:
    """Every combination of placement, scheme and connections once in each run, the limit right before the relay."""
    with tempfile.TemporaryDirectory() as folder:
        client = compiled(SOURCE, Path(folder))
        with Lab(samba=False) as lab:
            run.servers(lab.versions)
            users = [f"bench{number}" for number in range(40 if run.quick else max(each.writes for each in _SCHEMES))]
            lab.directory.add_users(users)
            end_to_end = EndToEnd(lab.relay)
            for number in range(run.runs):
                for pinned in (True, False):
                    with directory_alone(lab) if pinned else contextlib.nullcontext():
                        for scheme in _SCHEMES:
                            with _hashing(lab.directory, scheme):
                                some = users[: scheme.writes]
                                for connections in _connections(run):
                                    quiet = 0 if run.quick else AFTER_A_RUN_SECONDS
                                    wait_until_quiet((*lab.broker.pids, lab.directory.pid), quiet)
                                    alone = limit(client, lab.directory, some, connections=connections)
                                    relayed = end_to_end.run(some, connections=connections)
                                    name = _name(scheme, connections, pinned=pinned)
                                    run.add(f"limit.{name}", "per_second", alone)
                                    run.add(f"relay.{name}", "per_second", relayed)
                                    run.progress(
                                        f"{name}, run {number + 1}: limit {alone:.0f}/s, relay {relayed:.0f}/s"
                                    )
    _judge(run)


def _connections(run: Run) -> tuple[int, ...]:
    return (1, 8) if run.quick else _CONNECTIONS


def _name(scheme: Scheme, connections: int, *, pinned: bool) -> str:
    return f"{scheme.name}.{connections}" if pinned else f"unpinned.{scheme.name}.{connections}"


def _judge(run: Run) -> None:
    for pinned in (True, False):
        for scheme in _SCHEMES:
            bar = scheme.bar if pinned else scheme.unpinned_bar
            for connections in _connections(run):
                name = _name(scheme, connections, pinned=pinned)
                value = run.median(f"relay.{name}") / run.median(f"limit.{name}")
                if bar is not None:
                    run.ratio(f"relay.{name}", value, bar, value >= bar)


@contextlib.contextmanager
def _hashing(directory: Directory, scheme: Scheme) -> Iterator[None]:
    """The directory with this scheme; inside its own default stands until a scheme is named."""
    if scheme.name == "default":
        yield
        return
    with directory.manager() as manager:
        manager.search("cn=config", "(objectClass=*)", BASE, attributes=[_SCHEME])
        demand(manager, "read cn=config")
        before = (manager.response or [])[0]["attributes"][_SCHEME]
        modify(manager, "cn=config", {_SCHEME: [(MODIFY_REPLACE, [_CHEAP])]})
        try:
            yield
        finally:
            modify(manager, "cn=config", {_SCHEME: [(MODIFY_REPLACE, before)]})
