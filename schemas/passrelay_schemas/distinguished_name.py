"""Distinguished names (RFC 4514) in one spelling: without blanks around their separators.

To a directory a blank after a comma means nothing. IPA's password plugin compares its list of managers as text with the
directory's own spelling, which has none (measured), so a DN that is copied with blanks gives no right there.
"""

from __future__ import annotations


def components(dn: str) -> list[str]:
    """The relative names, the entry's own first, each without blanks; ValueError when it is not a DN."""
    # ldap3 takes a while to load, and of those who read settings only the consumer and the operator name entries.
    from ldap3.core.exceptions import LDAPInvalidDnError
    from ldap3.utils.dn import parse_dn

    try:
        parsed = parse_dn(dn, strip=True)
    except (LDAPInvalidDnError, IndexError):
        raise ValueError(f"{dn!r:.200}: not a DN (RFC 4514): write it like uid=NAME,cn=users,dc=example") from None
    found: list[str] = []
    joined = ""
    for attribute, value, separator in parsed:
        joined += f"{attribute}={value}"
        if separator == "+":
            joined += separator
        else:
            found.append(joined)
            joined = ""
    return found


def canonical(dn: str) -> str:
    """The DN as directories spell it, apart from upper and lower case; ValueError when it is not a DN."""
    return ",".join(components(dn))


def parent(dn: str) -> str:
    """The DN of the entry above; empty above the first one."""
    return ",".join(components(dn)[1:])


def folded(dn: str) -> str:
    """What two DNs of one entry have in common, to compare them by; of what is not a DN, its text in lower case."""
    try:
        return canonical(dn).casefold()
    except ValueError:
        return dn.casefold()


def common_suffix(dns: list[str]) -> str:
    """The longest DN that all of these are, or lie below; empty when there is none."""
    reversed_names = [list(reversed(components(dn))) for dn in dns]
    shared: list[str] = []
    for names in zip(*reversed_names, strict=False):
        if len({name.casefold() for name in names}) > 1:
            break
        shared.insert(0, names[0])
    return ",".join(shared)
