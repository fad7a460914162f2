"""Sealing: only the right key under the untouched header opens."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passrelay_schemas import limits
from passrelay_schemas.errors import MalformedError, TooLargeError
from passrelay_schemas.event import encode
from passrelay_schemas.keys import KeyUse, generate
from passrelay_schemas.sealing import Opener, seal, seal_event
from passrelay_schemas.suites import MLKEM768_X25519, P256, SUITES
from tests.lab.folder import CANARY
from tests.unit.builders import PRODUCER, Party, event, flipped

PARTIES = {algorithm: Party(algorithm) for algorithm in SUITES}
SEALED = {algorithm: party.seal() for algorithm, party in PARTIES.items()}
OPS, OPS_PRIVATE = generate(KeyUse.OPS)
OPS_OPENER = Opener(OPS, OPS_PRIVATE)
OTHER_ID = UUID("01940000-0000-7000-8000-00000000007b")


@pytest.fixture(params=list(SUITES))
def algorithm(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_the_suites_are_the_documented_ones() -> None:
    assert set(SUITES) == {MLKEM768_X25519, P256}
    assert OPS.algorithm == MLKEM768_X25519


def test_the_right_key_opens_what_was_sealed(algorithm: str) -> None:
    sealed, party = SEALED[algorithm], PARTIES[algorithm]
    assert sealed.header.suite == algorithm
    assert sealed.header.recipient_key_id == party.recipient.key_id
    assert sealed.header.domain == "lab.example"
    assert party.opener.open(sealed.sealed[0], info=sealed.protected) == encode(event())


def test_sealed_bytes_are_fresh_each_time_and_hold_no_clear_text(algorithm: str) -> None:
    first, second = (PARTIES[algorithm].seal().sealed[0] for _ in range(2))
    assert first != second
    assert len(first) == len(second) < limits.MAX_SEALED_PART_BYTES
    for needle in (CANARY.encode(), b"alice", CANARY.encode("utf-16-le")):
        assert needle not in first


def test_the_largest_event_fits_the_limit_of_a_part(algorithm: str) -> None:
    sealed = seal(b"x" * limits.EVENT_BYTES[-1], info=b"", recipient=PARTIES[algorithm].recipient)
    assert len(sealed) <= limits.MAX_SEALED_PART_BYTES


def test_every_event_gets_its_own_id_unless_it_is_given() -> None:
    sealed = [
        seal_event(event(), producer=PRODUCER, recipient=PARTIES[P256].recipient).header.event_id for _ in range(3)
    ]
    assert len(set(sealed)) == 3


def test_an_event_beyond_the_limits_is_not_sealed() -> None:
    change = event("\x01" * 256, user_principal_name="\U0001f511" * limits.MAX_UPN)
    with pytest.raises(TooLargeError):
        seal_event(change, producer=PRODUCER, recipient=PARTIES[P256].recipient)


def test_another_recipient_cannot_open(algorithm: str) -> None:
    stranger = Party(algorithm)
    with pytest.raises(MalformedError):
        stranger.opener.open(SEALED[algorithm].sealed[0], info=SEALED[algorithm].protected)


def test_a_key_of_the_other_suite_cannot_open() -> None:
    for sealed, opener in ((SEALED[P256], PARTIES[MLKEM768_X25519]), (SEALED[MLKEM768_X25519], PARTIES[P256])):
        with pytest.raises(MalformedError):
            opener.opener.open(sealed.sealed[0], info=sealed.protected)


def test_a_part_opens_only_under_its_own_header(algorithm: str) -> None:
    party, first = PARTIES[algorithm], SEALED[algorithm]
    second = party.seal(event_id=OTHER_ID)
    for info in (second.protected, first.protected + b" ", first.protected[:-1], b"", flipped(first.protected, 5)):
        with pytest.raises(MalformedError):
            party.opener.open(first.sealed[0], info=info)


@pytest.mark.parametrize("algorithm_name", list(SUITES))
@given(data=st.data())
def test_no_changed_or_cut_part_opens(algorithm_name: str, data: st.DataObject) -> None:
    sealed, opener = SEALED[algorithm_name], PARTIES[algorithm_name].opener
    raw = sealed.sealed[0]
    position = data.draw(st.integers(0, len(raw) - 1))
    broken = data.draw(
        st.sampled_from(
            [
                flipped(raw, position, data.draw(st.integers(1, 255))),
                raw[:position],
                raw[position + 1 :],
                raw + b"\0",
                b"\0" * len(raw),
                b"\xff" * len(raw),
            ]
        )
    )
    with pytest.raises(MalformedError) as caught:
        opener.open(broken, info=sealed.protected)
    assert CANARY not in str(caught.value)


def test_an_opener_shows_only_its_id(algorithm: str) -> None:
    opener = PARTIES[algorithm].opener
    assert repr(opener) == f"Opener({opener.document.key_id})"
