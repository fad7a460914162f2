"""One RabbitMQ node, or three that form a cluster on one loopback, each with a small disk of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from tests.lab.broker import Broker
from tests.lab.broker_folder import HOST, BrokerFolder, Ports
from tests.lab.certificates import CertificateAuthority
from tests.lab.network import Reservations, accepts
from tests.lab.process import Process, wait_for
from tests.lab.small_disk import small_disk

_DISK_MEGABYTES = 1500
_ALARM_MEGABYTES = 100
"""With less than this free the node takes no more publishes."""
_COOKIE = ".erlang.cookie"


class NodeFolder(BrokerFolder):
    """The folder of one node of several."""

    # What a tier had sent on to a queue that was cut off is sent once more after so long; RabbitMQ waits minutes.
    advanced: Mapping[str, int] = {**BrokerFolder.advanced, "dead_letter_worker_publisher_confirm_timeout": 5_000}

    def __init__(self, path: Path, ports: Ports, *, name: str, peers: list[str], cookie: str) -> None:
        super().__init__(path, ports)
        self.node = f"{name}@localhost"
        self._peers = peers
        self._cookie = cookie

    def prepare(self, ca: CertificateAuthority, admin_password: str) -> None:
        """Also the cookie that lets the nodes talk."""
        self.home.mkdir(parents=True, exist_ok=True)
        cookie = self.home / _COOKIE
        cookie.write_text(self._cookie)
        cookie.chmod(0o400)
        super().prepare(ca, admin_password)

    def _configuration(self) -> str:
        lines = [
            f"disk_free_limit.absolute = {_ALARM_MEGABYTES}MB",
            # The log of all queues is kept small enough for the small disk.
            "raft.wal_max_size_bytes = 32000000",
        ]
        if len(self._peers) > 1:
            lines += ["cluster_formation.peer_discovery_backend = classic_config"]
            # Those that are there already: RabbitMQ 4 waits for every node of this list before it starts.
            there = self._peers[: self._peers.index(self.node) + 1]
            lines += [f"cluster_formation.classic_config.nodes.{n} = {peer}" for n, peer in enumerate(there, 1)]
            lines += ["cluster_partition_handling = pause_minority"]
        return super()._configuration() + "\n".join(lines) + "\n"


class Node(Broker):
    """One node; the epmd that all of them share is the cluster's."""

    def __init__(
        self,
        folder: Path,
        reservations: Reservations,
        ca: CertificateAuthority,
        *,
        name: str,
        peers: list[str],
        first: Node | None,
    ) -> None:
        super().__init__(folder, reservations, ca)
        self.name = name
        if first is not None:
            self.ports = dataclasses.replace(self.ports, epmd=first.ports.epmd)
            self._admin_password = first._admin_password
            self._certificates = first._certificates
        self._files = NodeFolder(folder, self.ports, name=name, peers=peers, cookie=folder.parent.name)
        self._others = ",".join(f"'{peer}'" for peer in peers if peer != self._files.node)
        self._node = self._server(name)
        self._epmd = self._port_mapper() if first is None else first._epmd

    @property
    def disk(self) -> Path:
        """What `BrokerFolder.data` lies on."""
        return self._files.data

    @property
    def process(self) -> Process:
        """The Erlang node itself."""
        return self._node

    def start(self) -> None:
        """Start it, or find that another fault's end has done so."""
        if not self.running:
            super().start()

    def stop(self) -> None:
        """In good order; the epmd stays, for the other nodes."""
        self._node.stop()

    def cut_off(self) -> None:
        """No other node reaches it from now on, nor it them: with another cookie for each of them they do not talk."""
        self.evaluate(f"[begin erlang:set_cookie(N, apart), erlang:disconnect_node(N) end || N <- [{self._others}]].")
        wait_for(lambda: self.evaluate("nodes().") == "[]", what=f"{self.name} is alone")

    def join(self) -> None:
        """It talks to the others again; harmless where it does."""
        self.evaluate(f"[erlang:set_cookie(N, erlang:get_cookie()) || N <- [{self._others}]].")

    def kill(self) -> None:
        """SIGKILL; every queue is older than RabbitMQ's blind spot when the first fault comes."""
        self._node.kill()


class Cluster:
    """`nodes` of them, started one after the other; `close` ends all."""

    def __init__(self, folder: Path, reservations: Reservations, ca: CertificateAuthority, *, nodes: int) -> None:
        names = [f"n{number}" for number in range(1, nodes + 1)]
        peers = [f"{name}@localhost" for name in names]
        self.nodes: list[Node] = []
        self._disks = ExitStack()
        for name in names:
            first = self.nodes[0] if self.nodes else None
            self.nodes.append(Node(folder / name, reservations, ca, name=name, peers=peers, first=first))

    def start(self) -> None:
        """Mount the disks, start the nodes, and return when each of them takes logins."""
        for node in self.nodes:
            self._disks.enter_context(small_disk(node.disk, _DISK_MEGABYTES))
            node.start()

    def usable(self) -> list[Node]:
        """The nodes that take connections now, as a load balancer's health check would find them."""
        return [node for node in self.nodes if node.running and accepts(HOST, node.ports.tls)]

    def join(self) -> None:
        """All nodes talk to each other."""
        for node in self.nodes if len(self.nodes) > 1 else ():
            node.join()

    def close(self) -> None:
        """End everything now."""
        for node in self.nodes:
            node.close()
        self._disks.close()
