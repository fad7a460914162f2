"""Our LDAP messages against ldap3's: the same bytes out, the same meaning in."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import ldap3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ldap3.operation.modify import modify_operation
from ldap3.operation.search import compile_filter, parse_filter, search_operation
from ldap3.protocol.rfc4511 import LDAPMessage, MessageID, ProtocolOp
from ldap3.utils.asn1 import decode_message_fast, encode  # type: ignore[attr-defined]

from passrelay_consumer import ldap_messages
from passrelay_consumer.ldap_messages import (
    EVERY_ENTRY,
    Kind,
    Scope,
    UndecodableError,
    decode,
    elements,
    message,
    sized,
)
from passrelay_consumer.search_filter import FilterTemplate, encoded, match_filter
from passrelay_schemas.domain_settings import DEFAULT_MATCH
from passrelay_schemas.event import Account
from tests.unit.builders import GUID
from tests.unit.ldap_script import done, found

TEXTS = st.text(st.characters(codec="utf-8"), max_size=200)
BYTES = st.binary(max_size=300)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True)
KINDS = st.sampled_from([ldap3.MODIFY_ADD, ldap3.MODIFY_DELETE, ldap3.MODIFY_REPLACE])
CHANGES = st.dictionaries(NAMES, st.lists(st.tuples(KINDS, st.lists(BYTES, max_size=3)), min_size=1, max_size=2))
TEMPLATES = (
    DEFAULT_MATCH,
    "(uid={sam})",
    "( & (uid = {sam}) (!(nsAccountLock=TRUE)) (|(mail={upn})(mail={sam}@*)(cn=*{sam}*x*{upn})) )",
    "(&(ipaNTSecurityIdentifier={sid})(x>={guid})(y<={guid})(z~={sam})(present=*))",
    "(cn:caseExactMatch:={sam})",
    "(cn:dn:2.4.6.8.10:={sam}\\2a\\28)",
    "(|(&(objectClass=person)(!(&(x=1)(y={sam})))(uid={sam}))(mail={upn}))",
    "(mail=\\c3\\a9{sam}é)",
)

AND, OR, NOT = 0xA0, 0xA1, 0xA2
HOW = {"auto_escape": True, "auto_encode": False}
"""As a Connection of ldap3 takes filters."""


def by_ldap3(number: int, name: str, operation: Any) -> bytes:
    made = LDAPMessage()
    made["messageID"] = MessageID(number)
    made["protocolOp"] = ProtocolOp().setComponentByName(name, operation)
    return bytes(encode(made))


def account(sam: str, upn: str | None = None, sid: str | None = None) -> Account:
    return Account(guid=GUID, sam_account_name=sam, user_principal_name=upn, sid=sid)


@given(st.integers(1, ldap_messages.MOST_ID), TEXTS, CHANGES)
def test_a_modify_is_the_bytes_that_ldap3_sends(number: int, dn: str, changes: Any) -> None:
    theirs = by_ldap3(number, "modifyRequest", modify_operation(dn, changes, auto_encode=False))
    assert message(number, ldap_messages.modify(dn, changes)) == theirs


@given(TEXTS, st.sampled_from(list(Scope)), st.lists(NAMES, max_size=9), st.integers(0, 5000))
def test_a_search_is_the_bytes_that_ldap3_sends(base: str, scope: Scope, names: list[str], most: int) -> None:
    how = {"types_only": False, "auto_escape": False, "auto_encode": False}
    operation = search_operation(base, "(objectClass=*)", scope.name, ldap3.DEREF_NEVER, names, most, 0, **how)
    ours = ldap_messages.search(base, scope, EVERY_ENTRY, tuple(names), most=most)
    assert message(5, ours) == by_ldap3(5, "searchRequest", operation)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_filled_template_is_the_filter_that_the_text_is(template: str) -> None:
    filled = FilterTemplate(template)
    for who in (
        account("alice", "alice@lab.example", "S-1-5-21-1-2-3-1105"),
        account("*)(uid=*", "(\\2a)"),
        account("{upn}", "{sam}{guid}"),
        account("zoë\U0001f600 x" * 20),
        account("\u00a0alice ", "\u2028"),
    ):
        tree = parse_filter(match_filter(template, who), None, **HOW, validator=None, check_names=False)
        theirs = bytes(encode(compile_filter(tree.elements[0])))
        assert theirs == encoded(match_filter(template, who))
        assert in_one_order(filled.fill(who)) == in_one_order(theirs)


def test_what_only_the_account_has_is_asked_for_first() -> None:
    ((_, content),) = elements(FilterTemplate("(&(objectClass=person)(!(uid=x*))(uid={sam}))").fill(account("alice")))
    assert [b"alice" in inner for _, inner in elements(content)] == [True, False, False]


def in_one_order(search_filter: bytes) -> bytes:
    """The filter with what each AND joins sorted: which comes first means nothing."""
    ((tag, content),) = elements(search_filter)
    if tag not in {AND, OR, NOT}:
        return sized(tag, content)
    parts = [in_one_order(sized(*element)) for element in elements(content)]
    return sized(tag, b"".join(sorted(parts) if tag == AND else parts))


@given(st.integers(1, ldap_messages.MOST_ID), TEXTS, st.dictionaries(NAMES, BYTES, max_size=6))
def test_an_entry_means_what_ldap3_reads_in_it(number: int, dn: str, values: dict[str, bytes]) -> None:
    raw = message(number, found(dn, **values))
    theirs = decode_message_fast(raw)
    answer = decode(raw)
    assert (answer.number, answer.kind) == (theirs["messageID"], Kind.ENTRY)
    ours = ldap_messages.entry(answer)
    assert ours[0] == theirs["payload"][0][3].decode() == dn
    assert ours[1] == {
        pair[3][0][3].decode(): [value[3] for value in pair[3][1][3]] for pair in theirs["payload"][1][3]
    }


def test_a_result_without_words_is_named() -> None:
    assert ldap_messages.result(decode(message(1, done(code=53)))).words == "unwillingToPerform"
    assert ldap_messages.result(decode(message(1, done(code=53, words="no")))).words == "no"
    assert ldap_messages.result(decode(message(1, done(code=99)))).words == ""


@pytest.mark.parametrize("broken", [lambda raw: raw[:-1], lambda raw: raw + b"\0", lambda raw: raw[1:]])
def test_a_message_that_is_not_whole_is_refused(broken: Any) -> None:
    with pytest.raises(UndecodableError):
        decode(broken(message(1, done())))


@given(st.binary(max_size=200))
def test_whatever_the_bytes_are_they_are_read_or_refused(raw: bytes) -> None:
    for read in (
        lambda: ldap_messages.size_of_first(raw),
        lambda: decode(raw),
        lambda: ldap_messages.entry(decode(message(1, sized(Kind.ENTRY, raw)))),
        lambda: ldap_messages.result(decode(message(1, sized(Kind.DONE, raw)))),
        lambda: list(ldap_messages.elements(raw)),
    ):
        with suppress(UndecodableError):
            read()
