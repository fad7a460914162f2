"""389 PassSync's algorithm against passrelay: a full list, or queue, of changes on the same directory, in turns.

passsync.c follows, line by line, what is published of PassSync 1.1.7 (github.com/389ds: 389-ds-base's history and the
winsync repository, passwordsync/passsync/syncserv.cpp). No line of its source is in it. Re-created:

- "simple bind as `User Name`" over TLS to one host and port: one connection for a whole pass over the list, one thread.
- "subtree search of `Search Base` with `(ntuserdomainid=<sAMAccountName>)`, name not escaped; all attributes fetched":
  one search per entry, its default `User Name Field`; every user here has that attribute, which 389-ds indexes.
- "newer entry for the same user in the list: drop this one": the rest of the list is looked through.
- ">1 hit: dropped"; "no hit or search error: defer".
- "bind as the user with the new password (CanBind): success: nothing to do": over a new TLS connection of its own,
  which is closed afterwards, as syncserv.cpp does it.
- "49 or 48: modify `replace userPassword`", its default `Password Field`, over the first connection; "any other bind
  result: defer"; "modify error: defer".

Left out, in its favour:

- The hook: one thread per change that takes a mutex, reads, decrypts, appends to, encrypts and rewrites the whole of
  passhook.dat, so that a backlog costs its square. Here the list is in memory when the clock starts; passrelay's clock
  starts with a full queue at the broker, so that neither capture is measured.
- The service's own reading, decrypting and emptying of that file, its log, and wiping of memory.
- Retries: nothing fails here. A deferred entry waits 2, 4, 8 ... seconds for the next pass over the whole list.
- Its back-off with one connection per pass: the service's connection is open before the clock starts.
- `passsync.*.kept` is more than it has: CanBind over a second connection that stays open, so that its TLS handshakes
  (NSS may resume sessions, OpenLDAP does not) cost nothing. It is shown, no bar is held against it.

Every user has a password before the first run, as every AD user in IdM has: CanBind then costs the server the check of
a hash, as it does in production. Each run gives both the same users, once each. The rate is that between the first and
the last write, for both. Nothing is bound to a core.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.bench.compiler import compiled
from tests.bench.end_to_end import EndToEnd
from tests.bench.run import Run
from tests.lab.directory import Directory
from tests.lab.directory_tree import add, user
from tests.lab.folder import canary_password
from tests.lab.lab import Lab
from tests.lab.process import LabError, run_tool

SOURCE = Path(__file__).with_name("passsync.c")
_SCHEMES: dict[str, str | None] = {"default": None, "cheap": "SSHA512"}
_CONNECTIONS = 8
_LEAST_RATIO = 5.0
_USERS, _QUICK_USERS = 600, 24
_HOW = {"": "new", ".kept": "kept"}
"""By the end of the id: CanBind's connection."""


def measure(run: Run) -> None:
    """`passsync.<scheme>`, `passsync.<scheme>.kept` and `passsync.relay.<scheme>.8`, with a ratio for each scheme."""
    for scheme, name in _SCHEMES.items():
        if run.quick and name is None:
            continue  # a lab less: the other scheme takes the same way
        with Lab(samba=False, storage_scheme=name) as lab:
            run.servers(lab.versions)
            client = compiled(SOURCE, lab.folder.path)
            names = [f"sync{number}" for number in range(_QUICK_USERS if run.quick else _USERS)]
            add_people(lab.directory, names)
            end_to_end = EndToEnd(lab.relay)
            relay_id = f"passsync.relay.{scheme}.{_CONNECTIONS}"
            for number in range(run.runs):
                for ending, how in _HOW.items():
                    run.add(f"passsync.{scheme}{ending}", "per_second", passsync(client, lab.directory, names, how))
                run.add(relay_id, "per_second", end_to_end.run(names, connections=_CONNECTIONS))
                run.progress(f"PassSync's algorithm, {scheme} scheme, run {number + 1}/{run.runs}")
        ratio = run.median(relay_id) / run.median(f"passsync.{scheme}")
        run.ratio(f"passsync.{scheme}.{_CONNECTIONS}", ratio, _LEAST_RATIO, ratio >= _LEAST_RATIO)


def add_people(directory: Directory, names: Sequence[str]) -> None:
    """Users that PassSync finds by its default field, each with a password."""
    with directory.manager() as manager:
        for number, name in enumerate(names):
            entry = user(name, number, {"ntUserDomainId": [name], "userPassword": [canary_password()]})
            add(manager, directory.user_dn(name), entry)


def passsync(client: Path, directory: Directory, names: Sequence[str], how: str) -> float:
    """Events per second of one pass over a list with one new password for each; LabError unless all were written."""
    lines = "".join(f"{name}\t{canary_password()}\n" for name in names)
    # By address: OpenLDAP takes "localhost" for the machine's own name when it checks the certificate.
    url = f"ldaps://127.0.0.1:{directory.listening.ldaps}"
    arguments: list[str | Path] = [
        url,
        directory.ca_file,
        directory.service_dn,
        directory.password_file,
        directory.search_base,
        how,
    ]
    said = run_tool([client, *arguments], stdin=lines.encode(), timeout_seconds=600).split()
    modified, *others = map(int, said[:4])
    if modified != len(names):
        raise LabError(f"PassSync's algorithm wrote {modified} of {len(names)}; matched, deferred, dropped: {others}")
    return (modified - 1) / float(said[4])
