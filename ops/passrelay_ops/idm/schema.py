"""Schema definitions (RFC 4512 4.1) as a directory shows them: found by name, compared by what they say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ldap3.core.exceptions import LDAPException
from ldap3.protocol.rfc4512 import AttributeTypeInfo, ObjectClassInfo

_NAMES = re.compile(r"\bNAME\s+(?:'([^']+)'|\(([^)]*)\))")
_OF_A_CLASS = re.compile(r"\b(?:STRUCTURAL|AUXILIARY|ABSTRACT|MUST|MAY)\b")
_OID = re.compile(r"\(\s*(\S+)")
_TEXT_SYNTAXES = {
    "1.3.6.1.4.1.1466.115.121.1.15": "Directory String",
    "1.3.6.1.4.1.1466.115.121.1.26": "IA5 String",
}


def oid(definition: str) -> str:
    """The object identifier that a definition begins with."""
    found = _OID.match(definition.strip())
    return found[1] if found else definition


def find(definitions: Iterable[str], name: str) -> str | None:
    """The definition with this name, in upper or lower case."""
    wanted = name.casefold()
    for definition in definitions:
        found = _NAMES.search(definition)
        if found and wanted in [one.casefold() for one in (found[1] or found[2]).replace("'", " ").split()]:
            return definition
    return None


def alike(one: str, other: str) -> bool:
    """Both definitions mean the same; DESC and X-ORIGIN do not count, servers add to the latter.

    One that cannot be read is like none.
    """
    try:
        return _meaning(one) == _meaning(other)
    except ValueError:
        return False


def _meaning(definition: str) -> object:
    if _OF_A_CLASS.search(definition):
        found = _parsed(ObjectClassInfo, definition)
        return (found.kind, _folded(found.superior), _folded(found.must_contain), _folded(found.may_contain))
    attribute = _parsed(AttributeTypeInfo, definition)
    return (_folded(attribute.equality), attribute.syntax, attribute.single_value, attribute.no_user_modification)


def _parsed(kind: Any, definition: str) -> Any:
    """ValueError for what is no definition."""
    try:
        # ldap3's type stubs leave this method untyped.
        return next(iter(kind.from_definition([definition.encode()]).values()))
    except (LDAPException, LookupError, StopIteration) as error:
        raise ValueError(f"no definition (RFC 4512 4.1): {type(error).__name__}") from None


def _folded(names: Iterable[str] | None) -> set[str]:
    return {name.casefold() for name in names or ()}


def unfit_for_markers(definitions: Iterable[str], name: str) -> str | None:
    """Why this attribute cannot hold markers; None when it can.

    A marker is replaced by deleting the very value that was read, so there must be one value that can be compared.
    """
    definition = find(definitions, name)
    if definition is None:
        return "is not in the schema"
    try:
        attribute = _parsed(AttributeTypeInfo, definition)
    except ValueError:
        return "has a definition in the schema that cannot be read"
    if not attribute.single_value:
        return "is not SINGLE-VALUE: two markers could stand side by side"
    if attribute.no_user_modification:
        return "is written by the server alone (NO-USER-MODIFICATION)"
    if str(attribute.syntax) not in _TEXT_SYNTAXES:
        return f"has syntax {attribute.syntax}: it must be {' or '.join(_TEXT_SYNTAXES.values())}"
    if not attribute.equality:
        return "has no EQUALITY rule, by which a value that was read is deleted"
    return None
