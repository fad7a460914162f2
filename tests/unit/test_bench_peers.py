"""The benchmark's own arithmetic and stand-ins: a wrong one would say something about the peers that is not true."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from passrelay_ops.audit.account import read
from passrelay_producer.spool import Spool
from passrelay_schemas.marker import Marker
from passrelay_schemas.source_settings import SpoolSettings
from tests.bench import audited, scale, spooled, syncpasswords
from tests.bench.crowd_host import Given
from tests.bench.proc import cpu_seconds, peak_bytes, resident_bytes
from tests.bench.run import Run
from tests.bench.spread import p50, p99, pace, quantile
from tests.lab.directory import Directory
from tests.lab.enrolment import Enrolment
from tests.lab.process import LabError

DIRECTORY = cast(
    "Directory",
    SimpleNamespace(
        search_base="cn=users,cn=accounts,dc=idm,dc=test",
        listening=SimpleNamespace(ldaps=20636),
        service_dn="uid=passrelay,cn=sysaccounts,cn=etc,dc=idm,dc=test",
        password_file=Path("/lab/service.password"),
        ca_file=Path("/lab/it's a ca.pem"),
        user_dn=lambda uid: f"uid={uid},cn=users,cn=accounts,dc=idm,dc=test",
    ),
)


def test_quantiles_are_values_that_occurred() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert (p50(values), p99(values), quantile(values, 1)) == (50, 99, 100)
    assert p99(values[:20]) == 100  # of few the greatest
    assert p50([7.0]) == 7.0
    with pytest.raises(ValueError, match="no values"):
        p50([])


def test_a_pace_is_that_of_its_part() -> None:
    slowing = [*(number / 10 for number in range(51)), *(5 + number / 5 for number in range(1, 51))]
    assert pace(slowing, 0, 0.5) == pytest.approx(10)
    assert pace(slowing[::-1], 0.5, 1) == pytest.approx(5)
    assert scale._steady(slowing) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="too few"):
        pace([1.0, 2.0], 0.8, 0.9)


def test_a_peak_is_held_against_150_megabytes() -> None:
    run = Run(1, progress=lambda _: None)
    run.add("small", "bytes", 75_000_000)
    run.add("large", "bytes", 150_000_001)
    scale._hold_memory(run, "small")
    scale._hold_memory(run, "large")
    assert [(ratio["value"], ratio["met"]) for ratio in run.ratios] == [(0.5, True), (1.0, False)]


def test_the_kernel_is_asked_about_a_process() -> None:
    assert 1_000_000 < resident_bytes(os.getpid()) <= peak_bytes(os.getpid())
    before = cpu_seconds(os.getpid())
    while cpu_seconds(os.getpid()) == before:
        pass
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie, which holds nothing
    with pytest.raises(LabError, match="has ended"):
        peak_bytes(child.pid)
    child.wait()


# -- the script of syncpasswords ------------------------------------------------------------------------------------


def run_script(tmp_path: Path, ldif: str, code: int = 0) -> tuple[subprocess.CompletedProcess[str], str, str]:
    """What came of it, and ldapmodify's arguments and input."""
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    stand_in = programs / "ldapmodify"
    stand_in.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$LDAPTLS_CACERT" "$@" >{tmp_path}/arguments\ncat >{tmp_path}/input\n'
    )
    with stand_in.open("a") as file:
        file.write(f"echo ldap_modify: {code} >&2\nexit {code}\n")
    stand_in.chmod(0o755)
    script = tmp_path / "to-directory"
    script.write_text(syncpasswords.script(DIRECTORY))
    script.chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    # Samba reads both streams as one, and the word must come first.
    done = subprocess.run(
        [script], input=ldif, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, check=False
    )
    texts = [(tmp_path / name).read_text() if (tmp_path / name).exists() else "" for name in ("arguments", "input")]
    return done, texts[0], texts[1]


LDIF = """dn: CN=pace1,CN=Users,DC=lab,DC=example
objectClass: user
sAMAccountName: pace1
virtualClearTextUTF8{}

"""


@pytest.mark.parametrize("value", [": Kanarie7-$(x)'\"\\", ":: S2FuYXJpZTcgw6Q=", ":: S2FuYX\n JpZTcg\n w6Q="])
def test_the_script_makes_one_modify_of_what_samba_says(tmp_path: Path, value: str) -> None:
    done, arguments, given = run_script(tmp_path, LDIF.format(value))
    assert (done.returncode, done.stdout) == (0, "DONE-EXIT: \n")
    assert given.splitlines() == [
        "dn: uid=pace1,cn=users,cn=accounts,dc=idm,dc=test",
        "changetype: modify",
        "replace: userPassword",
        f"userPassword{value}".replace("\n ", ""),
    ]
    assert "Kanarie7" not in arguments
    assert arguments.splitlines()[0] == str(DIRECTORY.ca_file)
    assert "ldaps://127.0.0.1:20636" in arguments.splitlines()


def test_the_script_writes_nothing_without_a_password(tmp_path: Path) -> None:
    done, arguments, _ = run_script(tmp_path, "dn: CN=x\nsAMAccountName: pace1\n\n")
    assert (done.returncode, done.stdout, arguments) == (0, "DONE-EXIT: \n", "")


@pytest.mark.parametrize(("code", "says"), [(50, "DONE-EXIT: \n"), (1, "ldap_modify: 1\n")])
def test_the_script_passes_over_strangers_and_nothing_else(tmp_path: Path, code: int, says: str) -> None:
    done, _, _ = run_script(tmp_path, LDIF.format(": Kanarie7"), code)
    assert (done.returncode == 0, done.stdout) == (code == 50, says)


# -- scale ----------------------------------------------------------------------------------------------------------


def test_a_backlog_goes_through_the_spool_with_ids_of_its_own(tmp_path: Path) -> None:
    sender = Enrolment(tmp_path / "keys").enrol("spooled")
    path = tmp_path / "spool" / "spool.sqlite"
    for count in (40, 25):  # the second one replaces the first
        spooled.fill(path, spooled.unopened(sender, count))
    assert spooled.spool_bytes(path) > 25 * 3000
    with Spool(SpoolSettings(path=path)) as spool:
        found = spool.queued(0, 100)
    headers = [queued.event.header for queued in found]
    assert len({header.event_id for header in headers}) == 25
    assert {header.producer for header in headers} == {"spooled"}
    assert {len(queued.event.sealed[0]) for queued in found} == {len(found[0].event.sealed[0])}


def test_a_producer_of_the_crowd_waits_for_the_word() -> None:
    go, stop, taken = threading.Event(), threading.Event(), [0]

    def follow() -> None:
        for page in Given(25, go).pages(cast("Any", None), stop):
            taken[0] += len(page.events)
            if taken[0] == 25:
                stop.set()

    thread = threading.Thread(target=follow)
    thread.start()
    thread.join(0.3)
    assert taken == [0]
    go.set()
    thread.join(60)
    assert taken == [25]


def test_both_sides_of_the_large_audit_show_the_same_version() -> None:
    (ad,) = islice(audited._ad_entries(1), 1)
    (idm,) = islice(audited._idm_entries(DIRECTORY, 1), 1)
    shown = read({name: (value,) for name, value in parsed(ad).items()})
    marker = Marker.parse(parsed(idm)["passrelaymarker"].decode())
    assert shown is not None
    assert (shown.name, shown.guid, shown.kvno) == ("user1", marker.guid, marker.kvno)
    key = shown.key(0)
    assert key is not None
    assert key.changed_at == marker.changed_at


def parsed(ldif: str) -> dict[str, bytes]:
    lines = [line for line in ldif.splitlines()[1:] if line]
    return {line.partition("::")[0].lower(): base64.b64decode(line.partition(":: ")[2]) for line in lines}
