"""Everything as it should be, whatever a fault has left undone."""

from __future__ import annotations

import signal
from datetime import timedelta

from tests.faults.acts import FILLER
from tests.faults.site import Site


def heal(site: Site) -> None:
    """Returns when every server and process runs; harmless where they do."""
    _network_clocks_and_disks(site)
    for node in site.cluster.nodes:
        node.process.signal(signal.SIGCONT)
        site.on_site(node.start)
    site.cluster.join()
    _directories(site)
    site.signal_samba(signal.SIGCONT)
    if not site.dc.running:
        site.on_site(site.dc.start)
    for service in site.services:
        service.process.signal(signal.SIGCONT)
        if not service.process.running:
            site.on_site(service.start)


def _network_clocks_and_disks(site: Site) -> None:
    for door in (*site.broker_doors.values(), *site.directory_doors.values()):
        door.mend()
    for name in site.clocks:
        site.set_clock(name, timedelta())
    for filler in site.lab_folder.path.rglob(FILLER):
        filler.unlink(missing_ok=True)


def _directories(site: Site) -> None:
    for server in site.directories.values():
        server.resume()
        if not server._process.running:
            site.on_site(server.start)
        server.read_only(on=False)
    site.suppliers.heal()
