"""A capture of everything that the site sends over loopback, searched as it comes; nothing of it is kept."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterable

from tests.faults.site import Site
from tests.lab.folder import CANARY, _encodings
from tests.lab.process import Process

_PIECE = 1 << 20
_FILE_HEADER = 24
"""Bytes that a capture without any packet has (pcap-savefile(5))."""
_NEEDLES = _encodings(CANARY)
_OVERLAP = max(map(len, _NEEDLES)) - 1


class Wire:
    """tcpdump on the site's own ports, from `start` to `stop`."""

    def __init__(self, site: Site) -> None:
        self.bytes = 0
        self.hits: list[str] = []
        self.fault = ""
        """Why no canary in the capture means nothing; after `stop`."""
        self._site = site
        what = " or ".join([*(f"port {port}" for port in _ports(site)), f"host {site.dc.address}"])
        self._process = Process(
            "tcpdump",
            ["tcpdump", "-i", "lo", "-s", "0", "-B", "65536", "-U", "-Z", "root", "-w", "-", what],
            log=site.folder / "tcpdump.log",
            stdout=subprocess.PIPE,
        )
        self._thread = threading.Thread(target=self._search, daemon=True)

    def start(self) -> None:
        """Returns when it captures."""
        self._site.on_site(self._process.start)
        self._process.wait_until(lambda: "listening on" in self._process.tail(), what="listening")
        self._thread.start()

    def stop(self) -> None:
        """Returns when everything captured was searched."""
        if not self._process.running:
            self.fault = f"tcpdump ended by itself: {self._process.tail(300)}"
        self._process.stop()
        if self._thread.ident:
            self._thread.join(60)
        if self._thread.is_alive():
            self.fault = "what was captured is not searched to its end"
        elif self.bytes <= _FILE_HEADER:
            self.fault = self.fault or "nothing was captured"

    @property
    def dropped(self) -> int:
        """Packets that the kernel could not hand over in time, which nobody has searched; after `stop`."""
        found = re.search(r"(\d+) packets dropped by kernel", self._process.tail())
        return int(found[1]) if found else 0

    def _search(self) -> None:
        child = self._process.child
        assert child is not None
        assert child.stdout is not None
        rest = b""
        with child.stdout as stream:
            while piece := stream.read1(_PIECE):  # type: ignore[attr-defined]
                self.bytes += len(piece)
                text = rest + piece
                self.hits += [f"loopback: byte {self.bytes}" for needle in _NEEDLES if needle in text]
                rest = text[-_OVERLAP:]


def _ports(site: Site) -> Iterable[int]:
    # What goes through a door comes to one of these as the same bytes.
    for node in site.cluster.nodes:
        yield from (
            node.ports.tls,
            node.ports.plain,
            node.ports.management,
            node.ports.metrics,
            node.ports.distribution,
        )
    for server in site.directories.values():
        yield from (server.listening.ldap, server.listening.ldaps)
