"""The entries that carry markers. As long as there are any, the schema must stay.

A server lets a definition go that is in use, and then refuses every change of the entries that use it (65, measured).
"""

from __future__ import annotations

from collections.abc import Iterator

from passrelay_consumer.directory import MARKER_CLASS
from passrelay_ops.idm.ldif import Change, Record
from passrelay_ops.idm.server import Attributes, Server
from passrelay_ops.idm.site import Site
from passrelay_schemas.errors import MarkerError
from passrelay_schemas.marker import Marker
from passrelay_schemas.setting_values import OWN_MARKER, OWN_PROOF


def carriers(server: Server, site: Site) -> Iterator[Record]:
    """What takes our marker off every entry below the suffix that carries one, deleted and staged users too."""
    terms = [f"({name}=*)" for name in site.markers]
    if site.own_schema:
        terms.append(f"(objectClass={MARKER_CLASS})")
    found = server.below(site.suffix, f"(|{''.join(terms)})", "objectClass", *site.markers)
    for dn, attributes in found:
        if changes := tuple(_removals(attributes, site)):
            yield Record(dn, "modify", changes)


def _removals(attributes: Attributes, site: Site) -> Iterator[Change]:
    for name in site.markers:
        values = attributes.get(name.lower(), ())
        # An attribute of the site's own may hold what somebody else wrote.
        ours = values if name in (OWN_MARKER, OWN_PROOF) else tuple(value for value in values if _is_marker(value))
        if ours:
            yield Change("delete", name, ours)
    for value in attributes.get("objectclass", ()):
        if site.own_schema and value.casefold() == MARKER_CLASS.casefold():
            yield Change("delete", "objectClass", (value,))


def _is_marker(value: str) -> bool:
    try:
        Marker.parse(value)
    except MarkerError:
        return False
    return True
