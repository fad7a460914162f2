"""RabbitMQ nodes from the files that are shipped in ops/rabbitmq: only paths, ports and node names are rewritten."""

from __future__ import annotations

import os
import shutil
import ssl
from pathlib import Path

import pika
from pika.adapters.blocking_connection import BlockingConnection
from pika.credentials import ExternalCredentials

from tests.lab import rabbitmq_program
from tests.lab.broker_folder import ACCOUNT, HOST, VHOST, BrokerFolder, Ports
from tests.lab.certificates import Certificate, CertificateAuthority
from tests.lab.network import Reservations, accepts
from tests.lab.process import Process, run_tool

SHIPPED = Path(__file__).resolve().parents[2] / "ops" / "rabbitmq"
_START_SECONDS = 120
_WAIT_SECONDS = 30


class ShippedNode:
    """One node. Those of a cluster share the epmd, the cookie and the list of names."""

    def __init__(
        self,
        folder: Path,
        ports: Ports,
        ca: CertificateAuthority,
        *,
        name: str = "lab@localhost",
        peers: tuple[str, ...] = (),
    ) -> None:
        self.ports, self.ca, self.name, self.peers = ports, ca, name, peers
        self.files = BrokerFolder(folder, ports)
        self.environment = {**self.files.environment, "RABBITMQ_NODENAME": name}
        self._process = Process(
            name,
            rabbitmq_program.command(rabbitmq_program.BIN / "rabbitmq-server"),
            log=self.files.log / "console.log",
            env=self.environment,
            cwd=self.files.home,
            user=rabbitmq_program.user(),
        )

    def prepare(self, cookie: str) -> None:
        """Install the shipped files as docs/install.md says."""
        home = self.files.home
        for path in (home / "tls", home / "conf.d", self.files.data, self.files.log):
            path.mkdir(parents=True, exist_ok=True)
        server = self.ca.issue(f"broker-{self.ports.tls}", "localhost", HOST)
        shutil.copy(self.ca.ca_file, home / "tls" / "ca.pem")
        shutil.copy(server.certificate, home / "tls" / "broker.pem")
        shutil.copy(server.key, home / "tls" / "broker.key")
        shutil.copy(SHIPPED / "definitions.json", home)
        shutil.copy(SHIPPED / "enabled_plugins", home)
        rewritten = self._rewritten((SHIPPED / "rabbitmq.conf").read_text())
        (home / "rabbitmq.conf").write_text(rewritten)
        if self.peers:
            text = (SHIPPED / "cluster.conf").read_text()
            for number, peer in enumerate(self.peers, 1):
                text = text.replace(f"rabbit@broker{number}", peer)
            (home / "conf.d" / "cluster.conf").write_text(text)
        (home / ".erlang.cookie").write_text(cookie)
        (home / ".erlang.cookie").chmod(0o400)
        (home / "env.conf").touch()
        if os.geteuid() == 0:
            for path in (self.files.path, *self.files.path.rglob("*")):
                shutil.chown(path, ACCOUNT, ACCOUNT)

    def _rewritten(self, text: str) -> str:
        changes = {
            "listeners.ssl.1 = 5671": f"listeners.ssl.1 = {HOST}:{self.ports.tls}",
            "prometheus.tcp.port = 15692": f"prometheus.tcp.port = {self.ports.metrics}",
        }
        for old, new in changes.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        return text.replace("/etc/rabbitmq", str(self.files.home))

    def launch(self) -> None:
        """Start without waiting: a cluster's first node waits for the others."""
        self._process.start()

    def wait(self) -> None:
        """Return when clients are taken."""
        self._process.wait_until(
            lambda: accepts(HOST, self.ports.tls), what=f"port {self.ports.tls}", timeout_seconds=_START_SECONDS
        )

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def tool(self, program: str, *arguments: str | Path) -> str:
        """`rabbitmqctl` and its like, as root would run it on the broker's host."""
        return run_tool(
            rabbitmq_program.command(rabbitmq_program.BIN / program, "-n", self.name, *arguments),
            env=self.environment,
            user=rabbitmq_program.user(),
        )

    def url(self) -> str:
        """The address for `[broker] url`."""
        return f"amqps://{HOST}:{self.ports.tls}/{VHOST}"

    def certificate(self, user: str) -> Certificate:
        """The client certificate of a user."""
        return self.ca.issue(user, common_name=user)

    def connect(self, user: str) -> BlockingConnection:
        """A login as passrelay does it."""
        files = self.certificate(user)
        context = ssl.create_default_context(cafile=str(self.ca.ca_file))
        context.load_cert_chain(files.certificate, files.key)
        return BlockingConnection(
            pika.ConnectionParameters(
                HOST,
                self.ports.tls,
                VHOST,
                ExternalCredentials(),
                ssl_options=pika.SSLOptions(context, HOST),
                socket_timeout=_WAIT_SECONDS,
                stack_timeout=_WAIT_SECONDS,
                blocked_connection_timeout=_WAIT_SECONDS,
            )
        )


class ShippedCluster:
    """One node or three of them, with an epmd of their own."""

    def __init__(self, folder: Path, reservations: Reservations, ca: CertificateAuthority, *, size: int) -> None:
        first = Ports.reserve(reservations)
        ports = [first, *(Ports(**{**vars(Ports.reserve(reservations)), "epmd": first.epmd}) for _ in range(size - 1))]
        names = tuple(f"rabbit{number}@localhost" for number in range(1, size + 1))
        peers = names if size > 1 else ()
        self.nodes = [
            ShippedNode(folder / name.partition("@")[0], port, ca, name=name, peers=peers)
            for name, port in zip(names, ports, strict=True)
        ]
        self._folder = folder
        # As in tests/lab/broker.py: a node that finds an epmd running starts none that would outlive it.
        self._epmd = Process(
            "epmd",
            rabbitmq_program.command("epmd", "-address", HOST, "-port", str(first.epmd)),
            log=folder / "epmd.log",
            env=self.nodes[0].environment,
        )
        self._epmd_port = first.epmd

    def start(self) -> None:
        """Start all nodes and import the shipped definitions, by the documented command."""
        self._folder.mkdir(parents=True, exist_ok=True)
        cookie = os.urandom(12).hex().upper()
        for node in self.nodes:
            node.prepare(cookie)
        self._epmd.start()
        self._epmd.wait_until(lambda: accepts(HOST, self._epmd_port), what=f"port {self._epmd_port}")
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait()
        first = self.nodes[0]
        first.tool("rabbitmqctl", "import_definitions", first.files.home / "definitions.json")

    def close(self) -> None:
        """End every process."""
        for node in self.nodes:
            node.kill()
        self._epmd.stop()
