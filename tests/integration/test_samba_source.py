"""The Samba source on real domain controllers: every password arrives with its own kvno, whatever happens to either."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from passrelay_producer.sources import PendingReason, samba
from passrelay_producer.sources.samba_cursor import WITNESSES
from passrelay_producer.sources.samba_directory import SambaDirectory
from passrelay_schemas import filetime
from passrelay_schemas.errors import ConfigurationError, UnavailableError
from passrelay_schemas.event import Kind, PasswordChanged
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.filetime import UNITS_PER_SECOND
from passrelay_schemas.order import OrderKey
from tests.lab.certificates import CertificateAuthority
from tests.lab.folder import LabFolder, canary_password
from tests.lab.network import Reservations
from tests.lab.notebook import Capture, password_of
from tests.lab.process import wait_for
from tests.lab.samba import DomainController
from tests.lab.snapshot import Snapshot, highest_usn, overtake

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    lab = LabFolder()
    yield lab.path
    lab.remove()


@pytest.fixture(scope="module")
def addresses() -> Iterator[Reservations]:
    held = Reservations()
    yield held
    held.release()


@pytest.fixture(scope="module")
def authority(folder: Path) -> CertificateAuthority:
    return CertificateAuthority(folder / "ca")


@pytest.fixture(scope="module")
def controller(folder: Path, addresses: Reservations, authority: CertificateAuthority) -> Iterator[DomainController]:
    dc = DomainController(folder, addresses, authority)
    try:
        dc.start()
        yield dc
    finally:
        dc.stop()


def test_every_way_of_changing_arrives_with_its_kvno_and_time(controller: DomainController) -> None:
    capture = Capture(controller).initialise()
    passwords = [canary_password(ending) for ending in ("", "\u00e9", "\u5bc6", "\U0001f511", "x")]
    controller.add_user("anna", passwords[0])
    seen: list[PasswordChanged] = []
    changes: list[Callable[[], None]] = [
        lambda: None,
        lambda: controller.samba_tool_set("anna", passwords[1]),
        lambda: controller.ldaps_reset("anna", passwords[2]),
        lambda: controller.ldaps_change("anna", passwords[2], passwords[3]),
        lambda: controller.kpasswd("anna", passwords[3], passwords[4]),
    ]
    for change in changes:
        change()
        (event,) = capture.until("anna")
        account = controller.account("anna")
        assert event.kvno == account["kvno"]
        # Where the commit fell into the next second, AD's originating time is that second.
        assert 0 <= event.changed_at - account["pwdLastSet"] < UNITS_PER_SECOND
        assert (str(event.account.guid), event.account.sid) == (account["guid"], account["sid"])
        seen.append(event)
    assert [password_of(event) for event in seen] == passwords
    assert [event.kvno for event in seen] == [1, 2, 3, 4, 5]
    assert {event.domain for event in seen} == {"lab.example"}
    assert seen[0].account.user_principal_name == "anna@lab.example"


def test_must_change_in_the_same_commit_or_in_the_next(controller: DomainController) -> None:
    controller.add_user("bert", canary_password())
    capture = Capture(controller).initialise()
    password = canary_password()
    controller.ldaps_reset("bert", password, must_change=True)
    (event,) = capture.until("bert")
    assert (password_of(event), event.kvno, event.must_change) == (password, 2, True)
    assert event.changed_at % UNITS_PER_SECOND == 0

    controller.ldaps_reset("bert", canary_password())
    (event,) = capture.until("bert")
    assert (event.kvno, event.must_change) == (3, False)
    controller.modify_user("bert", pwdLastSet="0")
    (tick,) = capture.until("bert")
    assert (tick.kind, tick.password, tick.kvno, tick.must_change) == (Kind.EXPIRE, None, 3, True)
    assert tick.changed_at >= event.changed_at - event.changed_at % UNITS_PER_SECOND

    # Lifting it is no event; the next real password is.
    controller.modify_user("bert", pwdLastSet="-1")
    controller.ldaps_reset("bert", canary_password())
    (event,) = capture.until("bert")
    assert (event.kvno, event.must_change, event.kind) == (4, False, Kind.UNKNOWN)


def test_init_all_is_the_initial_load_and_denied_accounts_are_not_in_it(controller: DomainController) -> None:
    password = canary_password()
    controller.add_user("carl", password)
    controller.add_user("cora", canary_password())
    controller.delete_user("cora")
    capture = Capture(controller).initialise(everything=True)
    (event,) = capture.until("carl")
    assert (password_of(event), event.kind) == (password, Kind.CREATE)
    controller.ldaps_reset("carl", canary_password())
    capture.until("carl")
    names = {event.account.sam_account_name for event in capture.notebook.events}
    assert not names & {"Administrator", "krbtgt", "Guest", "DC1$", "cora"}
    assert capture.notebook.pending() == []


def test_a_page_that_was_not_committed_comes_again(controller: DomainController) -> None:
    capture = Capture(controller).initialise()
    password = canary_password()
    controller.add_user("dora", password)
    for _ in range(2):
        pages = capture.source.pages(capture.notebook, threading.Event())
        page = next(pages)
        pages.close()  # type: ignore[attr-defined]
        assert [password_of(event) for event in page.events] == [password]
    (event,) = capture.until("dora")
    assert password_of(event) == password
    about = capture.source.about()
    assert (about.controller or "").lower() == f"{controller.name}.lab.example"
    assert about.domains == ("lab.example",)
    assert about.openpgp_fingerprints == (controller.gpg_fingerprint,)


def test_without_the_key_changes_wait_and_arrive_when_it_is_there(controller: DomainController, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    capture = Capture(controller, key_file).initialise()
    password = canary_password()
    controller.add_user("emil", password)
    capture.drive(lambda: bool(capture.notebook.waiting), what="the change waits")
    assert [item.reason for item in capture.notebook.pending()] == [PendingReason.KEY_MISSING]
    assert capture.notebook.events == []
    assert capture.source.about().openpgp_fingerprints == ()
    shutil.copy(controller.gpg_key_file, key_file)
    (event,) = capture.until("emil")
    assert password_of(event) == password
    assert capture.notebook.pending() == []


def test_recapture_of_one_or_all(controller: DomainController) -> None:
    password = canary_password()
    controller.add_user("fine", password)
    capture = Capture(controller).initialise()
    before = capture.notebook.cursor()
    capture.recapture("fine")
    assert [password_of(event) for event in capture.notebook.events] == [password]
    assert capture.notebook.cursor() == before
    capture.recapture(None)
    assert len(capture.notebook.events) > 2
    for name, why in [
        ("nobody", "no such user in lab.example"),
        ("krbtgt", "denied: Kerberos"),
        ("f*", "no such user"),
    ]:
        with pytest.raises(ConfigurationError, match=f"nothing to capture for .*: {why}"):
            capture.recapture(name)


def test_a_commit_is_read_at_once_however_seldom_the_database_is_asked(controller: DomainController) -> None:
    controller.add_user("flip", canary_password())
    capture = Capture(controller, poll_ms=60_000).initialise().stay_connected()
    try:
        for _ in range(3):
            password = canary_password()
            controller.ldaps_reset("flip", password)
            (event,) = capture.until("flip")
            assert password_of(event) == password
    finally:
        capture.close()


def test_a_commit_during_the_rest_is_read_when_that_ends(
    controller: DomainController, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.add_user("fred", canary_password())
    capture = Capture(controller, poll_ms=60_000).initialise().stay_connected()
    # After each DirSync, where there are milliseconds else; however long one takes, it ends well before the next poll.
    monkeypatch.setattr(samba._Watch, "rest", lambda watch, _: setattr(watch, "_rest_until", time.monotonic() + 3))
    try:
        controller.ldaps_reset("fred", canary_password())
        capture.until("fred")
        password = canary_password()
        controller.ldaps_reset("fred", password)
        (event,) = capture.until("fred")
        assert password_of(event) == password
    finally:
        capture.close()


def test_a_crowded_connection_is_replaced_and_nothing_is_missed(
    controller: DomainController, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.add_user("fynn", canary_password())
    capture = Capture(controller).initialise().stay_connected()
    # Every answer counts as slow: both connections are replaced each time.
    for module in ("samba_directory", "samba_pulse"):
        monkeypatch.setattr(f"passrelay_producer.sources.{module}.CROWDED_SECONDS", -1)
    monkeypatch.setattr("passrelay_producer.sources.samba.MOVE_SECONDS", 0)
    moves: list[object] = []
    move = SambaDirectory.move

    def counted(directory: SambaDirectory) -> None:
        moves.append(directory)
        move(directory)

    monkeypatch.setattr(SambaDirectory, "move", counted)
    passwords = [canary_password() for _ in range(5)]
    try:
        for password in passwords:
            controller.ldaps_reset("fynn", password)
            capture.until("fynn")
    finally:
        capture.close()
    assert [password_of(event) for event in capture.of("fynn")] == passwords
    assert len(moves) >= len(passwords)


def test_a_dead_controller_is_unavailable_and_nothing_is_lost(controller: DomainController) -> None:
    capture = Capture(controller).initialise()
    password = canary_password()
    controller.add_user("gabi", password)
    controller.kill()
    with pytest.raises(UnavailableError, match="is samba running"):
        capture.until("gabi")
    controller.start()
    (event,) = capture.until("gabi")
    assert password_of(event) == password


def known_usn(capture: Capture) -> int:
    return int(capture.notebook.cursor()["usn"])


def test_a_restored_database_is_captured_again(controller: DomainController, tmp_path: Path) -> None:
    controller.add_user("hans", canary_password())
    snapshot = Snapshot(controller, tmp_path)
    capture = Capture(controller).initialise()
    for _ in range(4):
        controller.ldaps_reset("hans", canary_password())
    capture.until("hans")

    snapshot.restore()
    password = canary_password()
    controller.ldaps_reset("hans", password)
    assert highest_usn(controller) < known_usn(capture)
    found = capture.until("hans")
    assert (password_of(found[-1]), found[-1].kvno) == (password, 2)


def test_a_restore_is_noticed_when_the_passwords_that_were_read_are_gone(
    controller: DomainController, tmp_path: Path
) -> None:
    controller.add_user("jens", canary_password())
    snapshot = Snapshot(controller, tmp_path)
    capture = Capture(controller).initialise()
    people = [f"gone{number}" for number in range(WITNESSES + 4)]
    for name in people:
        controller.add_user(name, canary_password())
    capture.until(people[-1])

    snapshot.restore()
    # The cookie hides this change, and it is older than every witness.
    password = canary_password()
    controller.ldaps_reset("jens", password)
    overtake(controller, known_usn(capture))
    (event,) = capture.until("jens")
    assert (password_of(event), event.kvno) == (password, 2)


def test_a_restore_is_noticed_when_no_password_was_read_after_the_snapshot(
    controller: DomainController, tmp_path: Path
) -> None:
    controller.add_user("karl", canary_password())
    snapshot = Snapshot(controller, tmp_path)
    for number in range(8):
        controller.modify_user("Guest", description=str(number))
    capture = Capture(controller).initialise()

    snapshot.restore()
    password = canary_password()
    controller.ldaps_reset("karl", password)
    overtake(controller, known_usn(capture))
    controller.modify_user("karl", description="changed again, in something else")
    (event,) = capture.until("karl")
    assert (password_of(event), event.kvno) == (password, 2)


def test_restarts_deletions_and_changes_of_any_kind_are_no_restore(controller: DomainController) -> None:
    capture = Capture(controller).initialise()
    for name in ("lars", "lena", "lisa"):
        controller.add_user(name, canary_password())
        capture.until(name)
    seen = len(capture.notebook.events)
    controller.delete_user("lena")
    controller.modify_user("lars", description="x", pwdLastSet="0")
    controller.ldaps_reset("lisa", canary_password())
    capture.until("lisa")
    controller.stop()
    controller.start()
    controller.ldaps_reset("lars", canary_password())
    capture.until("lars")
    new = capture.notebook.events[seen:]
    assert {event.account.sam_account_name for event in new} == {"lars", "lisa"}
    assert len(new) == 3  # the password, the tick, the password


def test_two_controllers_give_one_change_one_key(
    controller: DomainController, folder: Path, addresses: Reservations, authority: CertificateAuthority
) -> None:
    controller.add_user("inge", canary_password())
    second = DomainController.join(controller, folder, addresses, authority)
    try:
        second.start()
        first_capture, second_capture = Capture(controller).initialise(), Capture(second).initialise()
        password = canary_password()
        controller.ldaps_reset("inge", password)
        (here,) = first_capture.until("inge")
        second.replicate()
        (there,) = second_capture.until("inge")
        assert here == there

        # The same version on both: AD lets the later second win, and so does the event's key, on both controllers.
        controller.ldaps_reset("inge", canary_password())
        (loser,) = first_capture.until("inge")
        later = canary_password()
        next_second = loser.changed_at - loser.changed_at % UNITS_PER_SECOND + UNITS_PER_SECOND
        wait_for(lambda: filetime.now() >= next_second, what="the loser's second is over")
        second.ldaps_reset("inge", later)
        (winner,) = second_capture.until("inge")
        assert winner.kvno == loser.kvno
        controller.replicate(second)
        (arrived,) = first_capture.until("inge")
        assert arrived == winner
        assert password_of(arrived) == later
        second.replicate()

        # The same version and the same second on both: AD lets the greater invocation id win, and so does the key.
        pair = _in_one_second(controller, first_capture, second, second_capture)
        controller.replicate(second)
        second.replicate()
        kept = password_of(max(pair, key=_key))
        assert controller.binds("inge", kept)
        assert second.binds("inge", kept)
        loser_capture = second_capture if pair.index(max(pair, key=_key)) == 0 else first_capture
        (corrected,) = loser_capture.until("inge")
        assert corrected == max(pair, key=_key)
    finally:
        second.stop()


def _key(event: PasswordChanged) -> OrderKey:
    return OrderKey.of(
        epoch=0, kvno=event.kvno, changed_at=event.changed_at, event_id=new_event_id(), origin=event.origin
    )


def _in_one_second(
    first: DomainController, first_capture: Capture, second: DomainController, second_capture: Capture
) -> list[PasswordChanged]:
    """One change on each controller before they replicate; again until both fall into one second."""
    while True:
        into_the_second = filetime.now() % UNITS_PER_SECOND
        wait_for(lambda before=into_the_second: filetime.now() % UNITS_PER_SECOND < before, what="a new second")  # type: ignore[misc]
        first.ldaps_reset("inge", canary_password())
        second.ldaps_reset("inge", canary_password())
        pair = [*first_capture.until("inge"), *second_capture.until("inge")]
        assert pair[0].kvno == pair[1].kvno
        if pair[0].changed_at // UNITS_PER_SECOND == pair[1].changed_at // UNITS_PER_SECOND:
            return pair
        first.replicate(second)
        second.replicate()
        for capture in (first_capture, second_capture):
            capture.notebook.commit(capture.source.initialise(capture.notebook, everything=False))
