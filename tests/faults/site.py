"""The deployment of a campaign: every server and process, and a door of its own between any two of them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

import pika
from ldap3.core.exceptions import LDAPException
from pika.adapters.blocking_connection import BlockingConnection
from pika.exceptions import AMQPError

from passrelay_schemas import topology
from passrelay_schemas.errors import UnavailableError
from tests.faults.cluster import Cluster
from tests.faults.door import Door
from tests.faults.plan import ALL_PRODUCERS, CLIENTS, CONSUMERS, DIRECTORIES, FAR, ODD_CLOCKS, PRODUCERS, SAMBA_PRODUCER
from tests.faults.source import Source
from tests.lab.certificates import CertificateAuthority
from tests.lab.clock import environment_of, set_clock
from tests.lab.directory import Directory
from tests.lab.directory_template import with_settings
from tests.lab.enrolment import Sender
from tests.lab.folder import LabFolder
from tests.lab.network import Reservations
from tests.lab.process import LabError, wait_for
from tests.lab.relay import PASSRELAY, Relay, Service
from tests.lab.replication import Suppliers
from tests.lab.samba import DomainController
from tests.lab.small_disk import small_disk
from tests.lab.tiers import short_tiers

ROOT = Path(__file__).resolve().parents[2]
_SPOOL_MEGABYTES, _SPOOL_BYTES = 96, 40_000_000
_MOST_DESCRIPTORS = 240
"""Of a directory: so few connections can be used up by a test."""
_READER = "auditor"
_OPS = "ops"
_THREADS = 12
_PATIENCE_SECONDS = 60

Answer = TypeVar("Answer")


class SmallDirectory(Directory):
    """A server that takes few connections."""

    def configure(self) -> None:
        """Before its first start."""
        super().configure()
        file = self.layout.config / "dse.ldif"
        text = with_settings(file.read_text(), "cn=config", {"nsslapd-maxdescriptors": str(_MOST_DESCRIPTORS)})
        file.write_text(text)


class Site(Relay):
    """A context: everything runs in it and nothing is left of it. `without` names a protection that is switched off."""

    def __init__(self, *, nodes: int = 1, without: str | None = None) -> None:
        self._stack = ExitStack()
        self.lab_folder, self.reservations = LabFolder(), Reservations()
        root = self.lab_folder.path
        self.ca = CertificateAuthority(root / "ca")
        self.cluster = Cluster(root / "brokers", self.reservations, self.ca, nodes=nodes)
        self.suppliers = Suppliers(
            root / "directories", self.reservations, self.ca, storage_scheme="SSHA512", make=SmallDirectory
        )
        self.dc = DomainController(root, self.reservations, self.ca, realm="AD.EXAMPLE", domain="AD", name="ad1")
        super().__init__(root / "relay", self.cluster.nodes[0], self.suppliers.a)
        self.without = without
        self.directories = dict(zip(DIRECTORIES, (self.suppliers.a, self.suppliers.b), strict=True))
        port = self.cluster.nodes[0].ports.tls
        self.broker_doors = {client: Door(self.reservations, port) for client in (*CLIENTS, _OPS)}
        self.directory_doors = {
            (consumer, name): Door(self.reservations, server.listening.ldaps)
            for consumer in CONSUMERS
            for name, server in self.directories.items()
        }
        self.suppliers.a.listed_as += [self._directory_url(*place) for place in self.directory_doors]
        self.clocks = {name: root / f"{name}.clock" for name in ODD_CLOCKS}
        self.cores = root / "cores"
        self.sources: dict[str, Source] = {}
        self.consumers: dict[str, Service] = {}
        self.senders: dict[str, Sender] = {}
        # The kernel stops a server when the thread that started it ends, so these threads live as long as the site.
        self.threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="site")
        self._over = threading.Event()
        self._ended_by_us: set[int] = set()
        self.ended_early: list[str] = []
        """Processes that a fault was to end and that had ended by themselves."""

    # -- life -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _begin(self) -> None:
        starts = [self.cluster.start, self.suppliers.start, self.dc.start]
        for future in [self.threads.submit(start) for start in starts]:
            future.result()
        self.cores.mkdir()
        for name in ALL_PRODUCERS:
            self._stack.enter_context(small_disk(self.spool(name).parent, _SPOOL_MEGABYTES))
            self.senders[name] = self.enrolment.enrol(name)
        shutil.copytree(self.enrolment.consumer_keys, self.keys_of(FAR))
        self.prepare(domains=self._domains())
        self._stack.enter_context(short_tiers(self.broker))
        self.threads.submit(self._make_services).result()
        if len(self.cluster.nodes) > 1:
            self.threads.submit(self._balance)

    def _end(self) -> None:
        self._over.set()
        with ExitStack() as stack:
            stack.callback(self.lab_folder.remove)
            stack.callback(self.reservations.release)
            stack.callback(self.threads.shutdown)
            stack.callback(self._close_doors)
            stack.callback(self.cluster.close)
            stack.callback(self.suppliers.close)
            stack.callback(self.dc.kill)
            stack.callback(self._put_back)
            stack.callback(self.close)
            for source in self.sources.values():
                stack.callback(source.end)

    def _put_back(self) -> None:
        with suppress(AMQPError, OSError):  # the tiers, where the broker is gone; the disks in any case
            self._stack.close()

    def _close_doors(self) -> None:
        for door in (*self.broker_doors.values(), *self.directory_doors.values()):
            door.close()

    def close(self) -> None:
        """End every process of passrelay now."""
        for service in self.services:
            service.kill()

    def on_site(self, work: Callable[[], None]) -> None:
        """Start processes on a thread that lives long enough."""
        self.threads.submit(work).result()

    @property
    def versions(self) -> dict[str, str | None]:
        """For the document's `servers`."""
        return {
            "rabbitmq": self.broker.version,
            "directory": self.suppliers.a.version,
            "samba": self.dc.version,
        }

    def _balance(self) -> None:
        """What a load balancer does: every client is led to a node that takes connections."""
        while not self._over.wait(0.5):
            usable = [node.ports.tls for node in self.cluster.usable()]
            for number, door in enumerate(self.broker_doors.values()):
                if usable and door.target not in usable:
                    door.lead_to(usable[number % len(usable)])

    # -- configuration ----------------------------------------------------------------------------------------------

    def keys_of(self, consumer: str) -> Path:
        """A consumer's key directory."""
        return self.folder / "far-keys" if consumer == FAR else self.enrolment.consumer_keys

    def service(self, name: str) -> Service:
        """A producer or consumer by its name."""
        return next(service for service in self.services if service.name == name)

    def _directory_url(self, consumer: str, name: str) -> str:
        return f"ldaps://localhost:{self.directory_doors[consumer, name].port}"

    def _broker_of(self, client: str, user: str) -> dict[str, Any]:
        return {**self._broker(user), "url": f"amqps://127.0.0.1:{self.broker_doors[client].port}/passrelay"}

    def _domains(self) -> list[dict[str, Any]]:
        secret = self.dc.folder / "reader.password"
        secret.touch(mode=0o600)
        secret.write_text(f"Aa1-{secrets.token_urlsafe(18)}")  # no canary: it lies on this disk
        self.dc.add_user(_READER, secret.read_text())
        ad = {
            "servers": [f"ldaps://{self.dc.address}"],
            "ca_file": self.dc.ca_file,
            "bind_user": f"{_READER}@{self.dc.dns_domain}",
            "password_file": secret,
        }
        base = self.suppliers.a.search_base
        return [
            self.enrolment.domain(base, producers=list(PRODUCERS)),
            {
                "name": self.dc.dns_domain,
                "sid": self.dc.sid,
                "producers": [SAMBA_PRODUCER],
                "search_base": base,
                "ad": ad,
            },
        ]

    def ops_config(self) -> Path:
        """ops.toml; the operator uses no door to the directories."""
        return self.write_config(
            _OPS,
            {
                "broker": self._broker_of(_OPS, "ops"),
                "keys": {"directory": self.enrolment.consumer_keys},
                "idm": self.idm(servers=[server.ldaps_url for server in self.directories.values()]),
                "domain": self.domains,
            },
        )

    def _make_services(self) -> None:
        for name in PRODUCERS:
            self.sources[name] = Source(name, self._producer(name, {"stdin": {}}), self.folder / f"{name}.log")
            self._add(self._prepared(self.sources[name]))
        samba = {"ldapi_path": self.dc.ldapi_path, "gpg_key_file": self.dc.gpg_key_file}
        config = self._producer(SAMBA_PRODUCER, {"samba": samba})
        self.passrelay("producer", "init", "--from", "now", "--config", config)
        log = self.folder / f"{SAMBA_PRODUCER}.log"
        self._add(self._prepared(Service(SAMBA_PRODUCER, ["producer", "run"], config, log)))
        for name in CONSUMERS:
            self.consumers[name] = self._prepared(
                Service(name, ["consumer", "run"], self._consumer(name), self.folder / f"{name}.log")
            )
            self._add(self.consumers[name])

    def _prepared(self, service: Service) -> Service:
        """A core file would be kept, where the process itself does not forbid it; the clock of some can be moved."""
        entry = [PASSRELAY] if self.without is None else [sys.executable, "-m", "tests.faults.sabotage", self.without]
        arguments = service.process.command[1:]
        service.process.command = [*map(str, ("prlimit", "--core=unlimited", *entry)), *arguments]
        service.process.cwd = self.cores
        clock = self.clocks.get(service.name)
        env = dict(os.environ) if clock is None else environment_of(clock)
        service.process.env = {
            **env,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [env.get("PYTHONPATH")])]),
        }
        return service

    def _producer(self, name: str, source: dict[str, Any]) -> Path:
        known = {"name", "sid", "order"}
        mine = [domain for domain in self.domains if name in domain["producers"]]
        return self.write_config(
            name,
            {
                "broker": self._broker_of(name, name),
                "spool": {"path": self.spool(name), "max_bytes": _SPOOL_BYTES},
                "keys": {"directory": self.enrolment.producer_keys(name)},
                "source": source,
                "metrics": {"listen": "127.0.0.1:0"},
                "domain": [{key: value for key, value in domain.items() if key in known} for domain in mine],
            },
        )

    def _consumer(self, name: str) -> Path:
        servers = [self._directory_url(name, directory) for directory in DIRECTORIES]
        return self.write_config(
            name,
            {
                "broker": self._broker_of(name, "consumer"),
                "keys": {"directory": self.keys_of(name)},
                "idm": self.idm(servers=servers, probe_seconds=1, timeout_seconds=4, settle=self.without != "settle"),
                "consumer": {"workers": 4},
                "metrics": {"listen": "127.0.0.1:0"},
                "domain": [{key: value for key, value in domain.items() if key != "ad"} for domain in self.domains],
            },
        )

    # -- what the acts need -----------------------------------------------------------------------------------------

    def expect_end(self, service: Service) -> None:
        """This process is about to be ended by a fault: that it has ended is its own fault only where it had before."""
        if service.process.running:
            self._ended_by_us.add(service.process.pid)
        elif service.process.child is not None and service.process.pid not in self._ended_by_us:
            self.ended_early.append(service.name)

    def ended_by_itself(self) -> list[Service]:
        """Processes that nobody has ended, and that do not run."""
        return [
            service
            for service in self.services
            if service.process.child is not None
            and not service.process.running
            and service.process.pid not in self._ended_by_us
        ]

    def signal_samba(self, number: signal.Signals) -> None:
        """To each of the controller's processes; some of them come and go."""
        for pid in self.dc.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def pause(self, seconds: float) -> None:
        """Wait so long, or until the end of the site."""
        self._over.wait(seconds)

    @contextmanager
    def connected(self) -> Iterator[BlockingConnection]:
        """The administrator's connection to a node that takes one; LabError when none does for half a minute."""
        wait_for(lambda: bool(self.cluster.usable()), what="a broker", timeout_seconds=120, interval_seconds=0.2)
        try:
            connection = BlockingConnection(self.cluster.usable()[0].parameters())
            try:
                yield connection
            finally:
                with suppress(AMQPError):
                    connection.close()
        except (AMQPError, OSError, UnavailableError, IndexError) as error:
            raise LabError(f"broker: {type(error).__name__}: {error}") from error

    def ask(self, question: Callable[[BlockingConnection], Answer]) -> Answer:
        """Ask the broker, again for a minute: after a restart its streams answer later than its port."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                with self.connected() as connection:
                    return question(connection)
            except LabError:
                if time.monotonic() > deadline:
                    raise
                self.pause(1)

    def publish_raw(self, bodies: list[bytes]) -> None:
        """As somebody with a producer's login would; confirmed."""

        def publish(connection: BlockingConnection) -> None:
            channel = connection.channel()
            channel.confirm_delivery()
            for raw in bodies:
                channel.basic_publish(topology.EVENTS, "", raw, pika.BasicProperties(delivery_mode=2), mandatory=True)

        self.ask(publish)

    def add_users(self, names: list[str]) -> None:
        """At whichever directory takes them."""
        wait_for(lambda: self._added(names), what="users added", timeout_seconds=60, interval_seconds=1)

    def _added(self, names: list[str]) -> bool:
        for server in self.directories.values():
            with suppress(LabError, LDAPException, OSError):
                server.add_users(names)
                return True
        return False

    def republish(self, producer: str, since: str) -> None:
        """What a producer has published since a moment, once more."""
        self.passrelay("producer", "republish", "--since", since, "--config", self.service(producer).config)

    # -- what an administrator types --------------------------------------------------------------------------------

    def keys(self, host: str, command: str, *arguments: str | Path) -> dict[str, Any]:
        """`passrelay keys` on a producer's or consumer's host; LabError with its failures when it did not succeed."""
        role = "consumer" if host in CONSUMERS else "producer"
        end = ("--role", role, "--json", "--config", self.service(host).config)
        output = self.passrelay("keys", command, *arguments, *end, check=False)
        document: dict[str, Any] = json.loads(output.splitlines()[-1]) if output.strip() else {}
        if not document.get("ok"):
            raise LabError(f"keys {command} on {host}: {document.get('failures')}")
        return document

    def operate(self, *arguments: str | Path) -> dict[str, Any]:
        """A command of the operator's, and its document whatever came of it."""
        output = self.passrelay(*arguments, "--json", "--config", self.ops_config(), check=False)
        document: dict[str, Any] = json.loads(output.splitlines()[-1]) if output.strip() else {}
        return document

    def set_clock(self, name: str, ahead: timedelta) -> None:
        """Of one process, while it runs or before it starts."""
        set_clock(self.clocks[name], ahead)
