"""The domain's match filter with an account's names in it: as text, and as the bytes of a search request."""

from __future__ import annotations

import re
from functools import lru_cache

from ldap3.operation.search import compile_filter, parse_filter
from ldap3.utils.asn1 import encode  # type: ignore[attr-defined]  # types-ldap3 lacks it
from ldap3.utils.conv import escape_filter_chars

from passrelay_consumer.ldap_messages import elements, sized
from passrelay_schemas.event import Account

_PLACEHOLDER = re.compile(r"\{(?:sam|upn|guid|sid)\}")
_IN_BYTES = re.compile(_PLACEHOLDER.pattern.encode())
_BLANKS = re.compile(r"^\s+|\s+$")
_CONSTRUCTED = 0x20
"""The bit of a tag whose content is elements (X.690 8.1.2.5)."""
_AND = 0xA0
"""A filter that holds when all its filters do, in whatever order (RFC 4511 4.5.1.7)."""


def _names(account: Account) -> dict[str, str]:
    return {
        "{sam}": account.sam_account_name,
        "{upn}": account.user_principal_name or "",
        "{guid}": str(account.guid),
        "{sid}": account.sid or "",
    }


def _escaped(name: str) -> str:
    # ldap3 takes blanks away from the ends of an assertion: another name's entry would be found.
    text = escape_filter_chars(name)
    return _BLANKS.sub(lambda found: "".join(f"\\{byte:02x}" for byte in found[0].encode()), text)


def match_filter(template: str, account: Account) -> str:
    """The template with the account's names put in, escaped (RFC 4515 3)."""
    names = _names(account)
    # One pass: a name that itself contains "{upn}" must not be filled in again.
    return _PLACEHOLDER.sub(lambda found: _escaped(names[found[0]]), template)


def encoded(text: str) -> bytes:
    """A filter's text (RFC 4515) as a Filter (RFC 4511 4.5.1.7). Raises LDAPException for what is none."""
    tree = parse_filter(text, None, auto_escape=True, auto_encode=False, validator=None, check_names=False)
    return bytes(encode(compile_filter(tree.elements[0])))


class FilterTemplate:
    """A match filter, parsed once: what is put in for an account is a value and can be nothing else."""

    def __init__(self, template: str) -> None:
        """Raises LDAPException for what is no filter."""
        ((tag, content),) = elements(encoded(template))
        self._template, self._placeholders = template, frozenset(_PLACEHOLDER.findall(template))
        self._tag, self._content = tag, _parts(tag, content)

    def fill(self, account: Account) -> bytes:
        """The filter for this account."""
        names = _names(account)
        if not all(names[placeholder] for placeholder in self._placeholders):
            return encoded(match_filter(self._template, account))  # an empty part of a substring filter falls away
        return _filled(self._tag, self._content, {name.encode(): value.encode() for name, value in names.items()})


_Parts = bytes | list["tuple[int, _Parts] | bytes"]
"""Content with placeholders, or elements, of which those without any are whole."""


def _parts(tag: int, content: bytes) -> _Parts:
    if not tag & _CONSTRUCTED:
        return content
    found = list(elements(content))
    if tag == _AND:
        # First what only the account has: 389-ds then does not read the long list of all that is (objectClass=person).
        found.sort(key=lambda element: not _IN_BYTES.search(element[1]))
    return [
        (inner, _parts(inner, inside)) if _IN_BYTES.search(inside) else sized(inner, inside) for inner, inside in found
    ]


def _filled(tag: int, parts: _Parts, names: dict[bytes, bytes]) -> bytes:
    if isinstance(parts, bytes):
        return sized(tag, _IN_BYTES.sub(lambda found: names[found[0]], parts))
    return sized(tag, b"".join([part if isinstance(part, bytes) else _filled(*part, names) for part in parts]))


@lru_cache(maxsize=64)
def filter_template(template: str) -> FilterTemplate:
    """The template, parsed when it is asked for first."""
    return FilterTemplate(template)
