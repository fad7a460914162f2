"""The section [filter]: whose passwords a producer captures."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, model_validator

from passrelay_schemas.setting_values import ad_group, name_pattern, ou_dn
from passrelay_schemas.settings_section import Section

_Groups = tuple[Annotated[str, AfterValidator(ad_group)], ...]
_Ous = tuple[Annotated[str, AfterValidator(ou_dn)], ...]


class FilterSettings(Section):
    """Whose passwords are captured: without an include list everybody's.

    Those of machine, built-in and protected accounts (adminCount=1, administrative groups) never are. While a group or
    OU of the lists does not exist, nothing is captured. When the filter lets an account in later, its password of then
    is captured. Use one filter on every domain controller: what one leaves out, another may capture.
    """

    include_groups: _Groups = ()
    """Groups by name (sAMAccountName), DN or SID: their members, also through nested groups and as primary group. With
    include_ous: whoever is in any of both lists."""
    exclude_groups: _Groups = ()
    """Groups in the same form whose members are not captured. Each exclude list wins over both include lists."""
    include_ous: _Ous = ()
    """DNs of OUs or containers: accounts anywhere below them."""
    exclude_ous: _Ous = ()
    """DNs of OUs or containers below which nobody is captured."""
    exclude_patterns: tuple[Annotated[str, AfterValidator(name_pattern)], ...] = ()
    """Names (sAMAccountName) that are not captured, in any case; `*`, `?` and `[abc]` as in a shell: `svc-*`."""

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        excluded_groups = {name.casefold() for name in self.exclude_groups}
        for name in self.include_groups:
            if name.casefold() in excluded_groups:
                raise ValueError(f"{name!r} stands in include_groups and in exclude_groups: remove one of them")
        for inner in self.include_ous:
            for outer in self.exclude_ous:
                if f",{inner}".casefold().endswith(f",{outer}".casefold()):
                    raise ValueError(f"include_ous {inner!r} is within exclude_ous {outer!r}: remove one of them")
        return self

    @property
    def needs_directory(self) -> bool:
        """It names groups or OUs, which only a directory knows."""
        return bool(self.include_groups or self.exclude_groups or self.include_ous or self.exclude_ous)
