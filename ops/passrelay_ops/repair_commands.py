"""The commands that a repair names, as they are to be typed: with their domain, and quoted for a POSIX shell."""

from __future__ import annotations

import shlex
from uuid import UUID


def rebind(user: str | None, guid: UUID | None, domain: str | None) -> str:
    """What gives the entry to the AD account `guid`; what is not known stands as a placeholder."""
    return _marker(f"rebind {_user(user)} --guid {guid or 'GUID'}", domain)


def reset(user: str, domain: str) -> str:
    """What lets the marker's own change come once more."""
    return _marker(f"reset {_user(user)}", domain)


def capture(user: str) -> str:
    """What captures AD's password again, on a domain controller."""
    return f"`passrelay producer capture --user {_user(user)}`"


def _marker(what: str, domain: str | None) -> str:
    # Where ops.toml has several [[domain]] these commands must be told which.
    of_domain = f" --domain {shlex.quote(domain)}" if domain else ""
    return f"`passrelay idm marker {what} --yes{of_domain}`"


def _user(name: str | None) -> str:
    return shlex.quote(name) if name else "USER"
