"""What single values of a configuration must look like; ValueError names value and repair, and never a secret."""

from __future__ import annotations

import ipaddress
import re
from datetime import datetime
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field

OWN_MARKER, OWN_PROOF = "passrelayMarker", "passrelayProof"
"""The attributes of our own schema (ops/idm/schema.ldif)."""
_PLACEHOLDERS = ("{sam}", "{upn}", "{guid}", "{sid}")
_OU = re.compile(r"\s*(ou|cn)\s*=.+,\s*dc\s*=.+", re.IGNORECASE)
"""Loose, because the directory itself is asked; what this refuses is no OU, above all the whole domain."""


def is_loopback(host: str) -> bool:
    """True for localhost and loopback addresses: the only place where clear text may go."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def with_zone(moment: datetime | None) -> datetime | None:
    """A time that says its zone."""
    if moment is not None and moment.tzinfo is None:
        raise ValueError("must have a time zone, like 2026-11-24T22:42:33Z")
    return moment


def match_filter(template: str) -> str:
    """An LDAP filter with a placeholder (RFC 4515)."""
    rest = template
    for placeholder in _PLACEHOLDERS:
        rest = rest.replace(placeholder, "")
    if "{" in rest or "}" in rest or rest == template:
        raise ValueError(f"must use one of {', '.join(_PLACEHOLDERS)} and no other braces")
    depth = [template[:end].count("(") - template[:end].count(")") for end in range(1, len(template) + 1)]
    if not all(level > 0 for level in depth[:-1]) or depth[-1] != 0:
        raise ValueError("must be one LDAP filter in parentheses (RFC 4515)")
    return template


def split_url(url: str) -> SplitResult | None:
    """The parts of a URL; None for what is none."""
    # urllib's own errors quote host, port and password.
    try:
        parts = urlsplit(url)
        usable = parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if usable else None


def ldap_url(url: str) -> str:
    """The address of an LDAP server."""
    parts = split_url(url)
    if parts is None or parts.scheme not in {"ldaps", "ldap"} or "@" in url or parts.path.strip("/"):
        shown = "an address with a user or password" if "@" in url else repr(url)
        raise ValueError(f"{shown}: must look like ldaps://idm1.example:636 (or ldap:// for StartTLS)")
    return url


def ad_group(name: str) -> str:
    """The name of a group in AD."""
    if not name.strip():
        raise ValueError("an empty text names no group: remove it")
    return name


def idm_group(name: str) -> str:
    """The cn of a group in IdM."""
    if not name.strip() or set(name) & set(',+"\\<>;=#'):
        raise ValueError(f"{name!r} must be the group's name (cn) alone, like admins")
    return name


def with_admins(groups: tuple[str, ...]) -> tuple[str, ...]:
    """Groups with admins among them."""
    if "admins" not in {name.casefold() for name in groups}:
        raise ValueError('"admins" must stay in the list: AD must never gain power over IdM\'s administrators')
    return groups


def ou_dn(dn: str) -> str:
    """The DN of an OU or container."""
    if not _OU.fullmatch(dn):
        raise ValueError(f"{dn!r} must be the DN of an OU or container, like OU=People,DC=ad,DC=example")
    return dn


def name_pattern(pattern: str) -> str:
    """A pattern for some names."""
    if not pattern.strip("*?"):
        raise ValueError(f"{pattern!r} names nobody or everybody: write a part of the names, like svc-*")
    return pattern


def listen_address(address: str) -> str:
    """ADDRESS:PORT."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} must be ADDRESS:PORT, for example 127.0.0.1:9464")
    return address


def own_spelling(name: str) -> str:
    """An attribute as our schema spells it."""
    # LDAP does not tell letters' cases apart (RFC 4512 2.5); what is compared here must.
    return next((own for own in (OWN_MARKER, OWN_PROOF) if own.lower() == name.lower()), name)


AttributeName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]*$"), AfterValidator(own_spelling)]
