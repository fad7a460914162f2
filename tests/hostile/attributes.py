"""An LDAP entry as lines `name=value`, percent-encoded: so that it can be mutated, and lie in the corpus as a file."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from ldap3.utils.ciDict import CaseInsensitiveDict


def entry_line(name: str, value: bytes) -> bytes:
    """One value."""
    return f"{name}={quote_from_bytes(value, safe='/:, =')}".encode()


def parse_entry(raw: bytes) -> dict[str, Any]:
    """The entry as ldap3 gives it: `dn`, `raw_dn` and `raw_attributes`."""
    attributes: CaseInsensitiveDict[str, list[bytes]] = CaseInsensitiveDict()
    dn = b""
    for line in raw.split(b"\n"):
        name, _, value = line.partition(b"=")
        if name == b"dn":
            dn = unquote_to_bytes(value)
        elif name:
            values = attributes.setdefault(name.decode("utf-8", "replace"), [])
            if value != b"-":  # an attribute without values
                values.append(unquote_to_bytes(value))
    return {
        "type": "searchResEntry",
        "dn": dn.decode("utf-8", "replace"),
        "raw_dn": dn,
        "raw_attributes": attributes,
    }
