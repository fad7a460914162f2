"""`samba-tool user syncpasswords` against passrelay: the same controller, the same directory, at the controller's pace.

Its default configuration is samba's own: the LDAP server's prefork children tell each other of a change every five
seconds. In the fair one (`prefork children:ldap = 1`) the notice comes in a millisecond or two. In both it decrypts
with its own `--decrypt-samba-gpg` and runs a script for each object, as its manual page describes it: a shell script
that turns the LDIF it is given into one modify and pipes it into OpenLDAP's ldapmodify over LDAPS, with the service
account that passrelay uses. Passwords are on no command line. passrelay runs with every setting at its default. While
one of the two is measured the other one is stopped; what was changed meanwhile it carries before its own clock starts.

At the controller's own pace means one change after the other without a rest, over one connection. In the fair
configuration one process answers every LDAP request of the controller, so that both wait behind the next changes: its
times are those of queues. `.calm` is a change at a time, each waited for before the next one.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.crossing import Crossing, Passage
from tests.bench.run import Run
from tests.bench.spread import p50
from tests.lab.directory import Directory
from tests.lab.lab import Lab
from tests.lab.process import LabError, Process, run_tool
from tests.lab.samba import DomainController

_USERS, _QUICK_USERS = 100, 5
_CALM, _QUICK_CALM = 10, 2
"""So many changes, one at a time."""
_FAIR = "    prefork children:ldap = 1\n"
_BARS = {"default": 0.1, "fair": 1.0}
"""What passrelay's time may be of its own, at most."""
_SILENCE_SECONDS = {"default": 7.0, "fair": 1.5}
"""After which nothing more of what was changed before is to come: by default a notice takes up to five seconds."""
_SCRIPT = """\
# Samba's LDIF in; one modify to the directory; the word that samba-tool waits for out.
change=$(awk -v base="$base" '
    function take(line) {
        if (line ~ /^sAMAccountName: /) name = substr(line, 17)
        if (sub(/^virtualClearTextUTF8:/, "userPassword:", line)) password = line
    }
    /^ / { line = line substr($0, 2); next }
    { take(line); line = $0 }
    END {
        take(line)
        if (name == "" || password == "") exit
        print "dn: uid=" name "," base
        print "changetype: modify"
        print "replace: userPassword"
        print password
    }')
if [ -n "$change" ]; then
    said=$(printf '%s\\n' "$change" | ldapmodify -x -H "$url" -D "$dn" -y "$file" 2>&1) ||
        [ $? = 50 ] || { echo "$said"; exit 1; }
fi
echo 'DONE-EXIT: '
"""
"""Users of the domain who are not in the directory are passed over: the service account is answered 50 for them."""


def measure(run: Run) -> None:
    """`syncpasswords.<configuration>.{p50,p99,rate,calm}`, the same of passrelay under `.relay.`; four ratios."""
    with Lab() as lab:
        run.servers(lab.versions)
        names = [f"pace{number}" for number in range(_QUICK_USERS if run.quick else _USERS)]
        with Crossing(lab, names) as crossing:
            peer = SyncPasswords(crossing.dc, lab.directory, lab.folder.path / "syncpasswords")
            for configuration, bar in _BARS.items():
                _restart(crossing, fair=configuration == "fair")
                for number in range(run.runs):
                    with peer.running():
                        _add(run, f"syncpasswords.{configuration}", crossing, _SILENCE_SECONDS[configuration])
                    with _passrelay(crossing):
                        _add(run, f"syncpasswords.relay.{configuration}", crossing, _SILENCE_SECONDS["fair"])
                    run.progress(f"syncpasswords, {configuration} configuration, run {number + 1}/{run.runs}")
                for share in ("p50", "p99"):
                    theirs = run.median(f"syncpasswords.{configuration}.{share}")
                    ratio = run.median(f"syncpasswords.relay.{configuration}.{share}") / max(theirs, 0.001)
                    run.ratio(f"syncpasswords.{configuration}.{share}", ratio, bar, ratio <= bar)


def _add(run: Run, name: str, crossing: Crossing, silence: float) -> None:
    crossing.catch_up(silence)
    passage: Passage = crossing.pass_all()
    run.add(f"{name}.p50", "ms", passage.p50)
    run.add(f"{name}.p99", "ms", passage.p99)
    run.add(f"{name}.rate", "per_second", passage.per_second)
    calm = crossing.users[: _QUICK_CALM if run.quick else _CALM]
    run.add(f"{name}.calm", "ms", p50([crossing.cross(user) for user in calm]))


def _restart(crossing: Crossing, *, fair: bool) -> None:
    """The controller, in one configuration or the other."""
    dc = crossing.dc
    dc.stop()
    text = dc.smb_conf.read_text().replace(_FAIR, "")
    dc.smb_conf.write_text(text.replace("[sysvol]", f"{_FAIR}[sysvol]") if fair else text)
    dc.start()
    crossing.reconnect()


@contextmanager
def _passrelay(crossing: Crossing) -> Iterator[None]:
    crossing.producer.start()
    crossing.consumer.start()
    try:
        yield
    finally:
        crossing.producer.stop()
        crossing.consumer.stop()


def script(directory: Directory) -> str:
    """The script, with the lab's addresses."""
    values = {
        "base": directory.search_base,
        # By address: OpenLDAP takes "localhost" for the machine's own name when it checks the certificate.
        "url": f"ldaps://127.0.0.1:{directory.listening.ldaps}",
        "dn": directory.service_dn,
        "file": str(directory.password_file),
    }
    given = [f"{name}={shlex.quote(value)}" for name, value in values.items()]
    trust = [f"export LDAPTLS_CACERT={shlex.quote(str(directory.ca_file))} LDAPTLS_REQCERT=demand"]
    return "\n".join(["#!/bin/sh", "set -e", *given, *trust, _SCRIPT])


class SyncPasswords:
    """The command with its cache, made at the first use; it remembers how far it has come."""

    def __init__(self, dc: DomainController, directory: Directory, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self._dc = dc
        self._cache = folder / "cache.ldb"
        self._script = folder / "to-directory"
        self._script.write_text(script(directory))
        self._script.chmod(0o700)
        self._process = Process(
            "syncpasswords", self._command(), log=folder / "syncpasswords.log", env=dc.env, cwd=folder
        )

    def _command(self, *more: str) -> list[str]:
        common = ["samba-tool", "user", "syncpasswords", f"--cache-ldb={self._cache}", "-s", str(self._dc.smb_conf)]
        return [*common, *more]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside, it runs."""
        if not self._cache.exists():
            attributes = "--attributes=sAMAccountName,virtualClearTextUTF8"
            options = ("--cache-ldb-initialize", "--decrypt-samba-gpg", attributes, f"--script={self._script}")
            run_tool(self._command(*options), env=self._dc.env)
        self._process.start()
        try:
            yield
        except LabError as error:
            raise LabError(f"samba-tool user syncpasswords: {error}:\n{self._process.tail()}") from error
        finally:
            self._process.stop()
