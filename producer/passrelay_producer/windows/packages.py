"""LSA's list of notification packages: one name more or less, and nobody else's touched.

PassSync's installer overwrote the list (389-ds ticket 48778), which switches other products' filters off.
"""

from __future__ import annotations

from collections.abc import Sequence

from passrelay_schemas.errors import SafetyError

_MULTI_SZ = 7
"""REG_MULTI_SZ."""
_DEFAULT = ("rassfm", "scecli")
"""What Windows Server lists by itself, for a message."""


def listed(packages: Sequence[str], name: str) -> bool:
    """LSA would load the DLL of this name; it takes names in any case, and without `.dll`."""
    return any(_same(package, name) for package in packages)


def appended(packages: Sequence[str], name: str) -> list[str]:
    """The list with `name` at its end; the very same list when it is there."""
    return list(packages) if listed(packages, name) else [*packages, name]


def removed(packages: Sequence[str], name: str) -> list[str]:
    """The list without `name`, in whatever case it stands; everything else as it was and where it was."""
    return [package for package in packages if not _same(package, name)]


def parse(value: object, kind: int) -> tuple[str, ...]:
    """The registry's value. SafetyError where it is not a list: to write one would lose what somebody meant."""
    if value is None:
        return ()
    if kind != _MULTI_SZ or not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SafetyError(
            f"Notification Packages is not REG_MULTI_SZ but of type {kind}, so LSA does not read it: make it "
            f"REG_MULTI_SZ by hand, with what it should hold (Windows' own: {', '.join(_DEFAULT)})"
        )
    return tuple(value)


def _same(package: str, name: str) -> bool:
    return package.strip().casefold().removesuffix(".dll") == name.casefold()
