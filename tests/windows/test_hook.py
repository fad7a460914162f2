"""The DLL under wine, called as LSASS calls it: what it captures, skips, refuses, and goes on with."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from passrelay_schemas import filetime
from passrelay_schemas.errors import MalformedError
from passrelay_schemas.keys import KeyDocument, KeyUse, generate
from passrelay_schemas.sealing import Opener
from passrelay_schemas.suites import P256
from tests.lab.folder import canary_password
from tests.lab.process import wait_for
from tests.windows.harness import DOMAIN_SID, PRODUCER, Harness, utf16
from tests.windows.hook_build import Built
from tests.windows.records import HEADER, PART, open_all, records
from tests.windows.wine import Wine, windows_path

StartHarness = Callable[..., Harness]

_KEY = "value RecipientKey must be REG_BINARY, 65 bytes, a point of P-256: enroll the recipient key again"
_KEY_ID = "value RecipientKeyId is not the id of RecipientKey: enroll the recipient key again"
_PRODUCER = "value Producer must be REG_SZ, the name that this controller is enrolled under"
_SID = "value DomainSid must be REG_SZ, as S-1-5-21-1-2-3"
_FOLDER = "value Folder must be REG_SZ, a folder on a local disk with at most 179 characters"
_CREATE = "a file in the folder that value Folder names could not be created"


@pytest.mark.parametrize(
    "password",
    ["x", canary_password(), canary_password(" ä 漢字 😀"), "p" * 256],
    ids=["one letter", "usual", "beyond ASCII", "longest"],
)
def test_a_change_becomes_a_record_that_the_recipient_opens(
    hook: Harness, spool: Path, opener: Opener, password: str
) -> None:
    before = filetime.now()
    hook.change(1105, password)
    (captured,) = open_all(spool, opener)
    assert captured.password == password
    assert captured.rid == 1105
    assert (captured.domain_sid, captured.producer) == (DOMAIN_SID, PRODUCER)
    assert captured.key_id == opener.document.key_id
    assert before - 10_000_000 <= captured.filetime <= filetime.now() + 10_000_000
    assert hook.status("State") == "loaded"


@pytest.mark.parametrize("at", [0, 20, 70, 130, HEADER, HEADER + 70, PART - 1])
def test_no_byte_of_a_record_can_be_changed(hook: Harness, spool: Path, opener: Opener, at: int) -> None:
    """So a record cannot be put under another domain, producer or key either: they are its header."""
    hook.change(1105, canary_password())
    raw = bytearray(records(spool)[0].read_bytes())
    raw[at] ^= 1
    with pytest.raises(MalformedError):
        opener.open(bytes(raw[HEADER:PART]), info=bytes(raw[:HEADER]))


@pytest.mark.parametrize(
    ("rid", "name", "password"),
    [
        (1105, "DC2$", "machine"),
        (1105, "krbtgt", "ticket"),
        (1105, "KRBTGT_4711", "ticket"),
        (500, "Administrator", "administrator-or-dsrm"),
        (501, "Guest", "guest"),
        (502, None, "krbtgt by RID"),
        (1105, "erika", ""),
    ],
)
def test_what_nobody_carries_leaves_no_file_and_no_complaint(
    hook: Harness, spool: Path, rid: int, name: str | None, password: str
) -> None:
    hook.change(rid, password, name)
    assert records(spool) == []
    assert hook.lost == 0


def test_null_strings_are_no_password(hook: Harness, spool: Path) -> None:
    assert hook.ask("change", 1105, utf16("erika"), "-") == "0"
    assert hook.ask("change", 1105, "-", "-") == "0"
    assert records(spool) == []
    assert hook.lost == 0


def test_a_change_without_a_name_is_captured_by_its_rid(hook: Harness, spool: Path, opener: Opener) -> None:
    hook.change(1105, canary_password(), None)
    assert [captured.rid for captured in open_all(spool, opener)] == [1105]


@pytest.mark.parametrize("name", ["erika", "krbtgt", "DC2$"])
def test_the_filter_allows_everything(hook: Harness, name: str) -> None:
    assert hook.ask("filter", utf16(name), utf16(canary_password())) == "1"
    assert hook.ask("filter", "-", "-") == "1"


def test_a_new_recipient_key_is_used_at_once_and_the_old_one_until_it_is_whole(
    hook: Harness, spool: Path, opener: Opener
) -> None:
    document, private = generate(KeyUse.RECIPIENT, algorithm=P256)
    hook.change(1105, "first")
    hook.ask("set", "binary", "RecipientKey", document.public_bytes.hex())
    hook.change(1106, "second")  # the id is still the old key's
    hook.wait_for_event(_KEY_ID, "0x0000000D")
    assert [captured.password for captured in open_all(spool, opener)] == ["first", "second"]
    for path in records(spool):
        path.unlink()
    hook.set_key(document)
    hook.change(1107, "third")
    assert [captured.password for captured in open_all(spool, Opener(document, private))] == ["third"]


def test_the_status_key_says_which_key_is_in_use_and_what_the_next_start_would_refuse(
    hook: Harness, recipient: tuple[KeyDocument, Opener]
) -> None:
    def said() -> tuple[str, str]:
        return hook.status("KeyId"), hook.status("SettingsTrouble")

    old = recipient[0].key_id
    document, _ = generate(KeyUse.RECIPIENT, algorithm=P256)
    assert said() == (old, "")
    hook.ask("set", "binary", "RecipientKey", document.public_bytes.hex())
    hook.change(1105, "half changed")
    assert said() == (old, _KEY_ID)
    hook.ask("unset", "RecipientKey")
    hook.change(1105, "another trouble")
    assert said() == (old, _KEY)
    hook.set_key(document)
    hook.change(1105, "repaired")
    assert said() == (document.key_id, "")
    hook.set_key(recipient[0])
    hook.change(1105, "from a good one to another")
    assert said() == (old, "")
    hook.ask("unset", "RecipientKey")
    assert not hook.initialize()
    assert said() == ("", _KEY)


def test_another_folder_is_used_at_once(hook: Harness, spool: Path, opener: Opener) -> None:
    other = spool / "other"
    other.mkdir()
    hook.set_text("Folder", windows_path(other))
    hook.change(1105, "elsewhere")
    assert records(spool) == []
    assert len(open_all(other, opener)) == 1


def _wrong_settings(good: KeyDocument) -> dict[str, tuple[tuple[str, ...], str]]:
    off_curve = bytearray(good.public_bytes)
    off_curve[64] ^= 1
    return {
        "no key": (("unset", "RecipientKey"), _KEY),
        "key of the wrong type": (("set", "text", "RecipientKey", good.public_bytes.hex()), _KEY),
        "short key": (("set", "binary", "RecipientKey", good.public_bytes[:64].hex()), _KEY),
        "long key": (("set", "binary", "RecipientKey", good.public_bytes.hex() + "00"), _KEY),
        "off the curve": (("set", "binary", "RecipientKey", off_curve.hex()), _KEY),
        "no key id": (("unset", "RecipientKeyId"), _KEY_ID),
        "another key id": (("set", "text", "RecipientKeyId", utf16("A" * 24)), _KEY_ID),
        "no producer": (("unset", "Producer"), _PRODUCER),
        "empty producer": (("set", "text", "Producer"), _PRODUCER),
        "producer with a blank": (("set", "text", "Producer", utf16("d c")), _PRODUCER),
        "producer too long": (("set", "text", "Producer", utf16("d" * 65)), _PRODUCER),
        "producer not ASCII": (("set", "text", "Producer", utf16("dč")), _PRODUCER),
        "no SID": (("unset", "DomainSid"), _SID),
        "SID of an account": (("set", "text", "DomainSid", utf16("S-1-5-21-1-2-3-500")), _SID),
        "no folder": (("unset", "Folder"), _FOLDER),
        "folder on the network": (("set", "text", "Folder", utf16(r"\\server\share")), _FOLDER),
        "relative folder": (("set", "text", "Folder", utf16("spool")), _FOLDER),
        "folder too long": (("set", "text", "Folder", utf16("C:\\" + "x" * 180)), _FOLDER),
        "folder not there": (("set", "text", "Folder", utf16(r"C:\not there")), _CREATE),
    }


@pytest.mark.parametrize("case", _wrong_settings(generate(KeyUse.RECIPIENT, algorithm=P256)[0]))
def test_with_wrong_settings_it_refuses_to_load_and_says_which(
    hook: Harness, spool: Path, recipient: tuple[KeyDocument, Opener], case: str
) -> None:
    command, reason = _wrong_settings(recipient[0])[case]
    hook.ask(*command)
    assert not hook.initialize()
    assert hook.status("State") == "refused"
    assert hook.status("Reason") == reason
    hook.wait_for_event("0.1.0", reason)


def test_without_any_settings_it_refuses_to_load_and_makes_no_key(hook: Harness) -> None:
    hook.ask("clear")
    assert not hook.initialize()
    assert hook.status("State") == ""
    reason = r"the registry key HKEY_LOCAL_MACHINE\\SOFTWARE\\passrelay\\hook cannot be opened: install again"
    hook.wait_for_event("0.1.0", reason)


@pytest.mark.parametrize("command", [("unset", "RecipientKey"), ("unset", "Folder"), ("clear",)])
def test_settings_that_become_wrong_later_lose_nothing(
    hook: Harness, spool: Path, opener: Opener, command: tuple[str, ...]
) -> None:
    hook.ask(*command)
    hook.change(1105, "still")
    assert [captured.password for captured in open_all(spool, opener)] == ["still"]
    assert hook.lost == 0


def test_after_it_refused_a_call_is_named_as_lost(
    start_harness: StartHarness, recipient: tuple[KeyDocument, Opener], spool: Path
) -> None:
    """LSASS does not call a DLL that refused; if it does, nothing is lost in silence."""
    harness = start_harness()
    harness.configure(recipient[0], spool / "missing")
    assert not harness.initialize()
    harness.change(1105, canary_password())
    harness.wait_for_event("1105", "the self-test at the start had failed", "0x00000000", "1")


def test_a_dll_that_refused_stays_in_memory_until_its_message_is_out(
    start_harness: StartHarness, recipient: tuple[KeyDocument, Opener], spool: Path
) -> None:
    harness = start_harness()
    harness.configure(recipient[0], spool / "missing")
    assert not harness.initialize()
    assert harness.ask("unload") == "kept"
    harness.wait_for_event("0.1.0", _CREATE)


def test_an_event_log_that_hangs_holds_one_thread_of_lsass_and_no_call(
    start_harness: StartHarness, recipient: tuple[KeyDocument, Opener], spool: Path, tmp_path: Path
) -> None:
    """Events are printed by wine, so a pipe that nobody reads is an event log service that hangs."""
    pipe = tmp_path / "events"
    os.mkfifo(pipe, 0o600)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        harness = start_harness(("sh", "-c", 'exec "$0" "$@" 2>"$EVENTS"'.replace("$EVENTS", str(pipe))))
        harness.configure(recipient[0], spool)
        with contextlib.suppress(BlockingIOError):
            while os.write(reader, bytes(4096)):
                pass
        assert harness.initialize()
        threads = Path(f"/proc/{harness.process.pid}/task")
        harness.change(1105, "x" * 300)
        before = len(list(threads.iterdir()))
        for _ in range(199):
            harness.change(1105, "x" * 300)
        assert harness.lost == 200
        assert len(list(threads.iterdir())) <= before + 2

        said = b""

        def all_said() -> bool:
            nonlocal said
            with contextlib.suppress(BlockingIOError):
                said += os.read(reader, 65536)
            return b'L"200"' in said

        wait_for(all_said, what="what waited is handed over", alive=harness.process)
    finally:
        os.close(reader)


def test_it_refuses_a_cryptography_that_is_not_rfc_9180s(
    wine: Wine, built: Built, own_ecdh: bool, recipient: tuple[KeyDocument, Opener], spool: Path, tmp_path: Path
) -> None:
    if own_ecdh:
        pytest.skip("this wine's own cryptography is good")
    harness = Harness(wine, built.harness, built.dll, log=tmp_path / "harness.log")
    harness.start()
    try:
        harness.configure(recipient[0], spool)
        assert not harness.initialize()
        assert harness.status("Reason") == "Windows' cryptography does not give what RFC 9180 says"
    finally:
        harness.close()
