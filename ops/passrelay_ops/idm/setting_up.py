"""Setting up: whether it can be done at all, and with which steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from passrelay_ops.idm.checks import marker_faults, new_password
from passrelay_ops.idm.plan import Step, to_set_up
from passrelay_ops.idm.site import Site
from passrelay_ops.idm.templates import Wanted
from passrelay_ops.idm.view import View
from passrelay_schemas.distinguished_name import parent
from passrelay_schemas.errors import ConfigurationError


def seen(site: Site, view: View) -> Site:
    """The site with what its directory says of itself."""
    return replace(site, realm=view.realm or site.realm, kerberos=view.kerberos or view.unusable is not None)


def check_possible(site: Site, views: Sequence[View]) -> None:
    """ConfigurationError for what no change of setup's own could repair; the views are of usable servers."""
    for view in views:
        if not view.sees_all:
            raise ConfigurationError(
                f"--bind-dn {view.bound_as}: cannot read cn=config of {view.server}, and so cannot tell what is "
                "missing there: use Directory Manager"
            )
        if faults := marker_faults(site, view):
            raise ConfigurationError(
                f"[idm] marker_attribute, proof_attribute: {view.server}: {'; '.join(faults)}: name others, or leave "
                "both out"
            )
    for key, dn in (
        ("[idm] bind_dn", parent(site.service_dn)),
        ("[idm] probe_dn", parent(site.probe_dn)),
        *(("[[domain]] search_base", base) for base in site.search_bases),
    ):
        if views[0].entry(dn) is None:
            raise ConfigurationError(
                f"{key}: there is no entry {dn} at {views[0].server}: correct it, or create the entry"
            )


def plan(site: Site, wanted: Wanted, views: Sequence[View]) -> list[Step]:
    """The steps; ConfigurationError when the account is there and its password is not."""
    if not needs_password(site, views) and not site.password_file.exists():
        raise ConfigurationError(
            f"[idm] password_file {site.password_file}: missing, but {site.service_dn} exists: "
            f"{new_password(site, views[0].server)}"
        )
    return to_set_up(wanted, views)


def needs_password(site: Site, views: Sequence[View]) -> bool:
    """The service account is still to be made: no server has it."""
    return all(view.entry(site.service_dn) is None for view in views)
