"""passrelay itself in the lab: real `passrelay` processes, configured as an administrator would."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import sys
import threading
import urllib.request
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops.stream import read
from passrelay_schemas import record, topology
from passrelay_schemas.record import Record
from passrelay_schemas.verdict import FINAL
from tests.lab.broker import Broker
from tests.lab.directory import Directory
from tests.lab.enrolment import Enrolment, toml
from tests.lab.process import Process, run_tool, wait_for

PASSRELAY = Path(sys.executable).with_name("passrelay")
"""The console script of the environment that runs the tests."""

_PERMISSIONS = {
    "ops": {"configure": r"^passrelay\..*", "write": r"^passrelay\..*", "read": r"^passrelay\..*"},
    "consumer": {"configure": "^$", "write": r"^passrelay\.(retry|dead|journal)$", "read": r"^passrelay\.events$"},
    "producer": {"configure": "^$", "write": r"^passrelay\.(events|news)$", "read": "^$"},
}


class Service:
    """One passrelay process with its configuration, log and metrics page."""

    def __init__(self, name: str, arguments: list[str], config: Path, log: Path, *, pipes: bool = False) -> None:
        self.name = name
        self.config = config
        self.log = log
        self.process = Process(
            name,
            [PASSRELAY, *arguments, "--config", config],
            log=log,
            stdin=PIPE if pipes else DEVNULL,
            stdout=PIPE if pipes else None,
        )

    def start(self) -> None:
        """Start it and wait until it says so in its log."""
        seen = len(self.lines("started"))
        self.process.start()
        self.process.wait_until(lambda: len(self.lines("started")) > seen, what="started", timeout_seconds=60)

    def stop(self) -> int | None:
        """SIGTERM and its exit code."""
        return self.process.stop()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def lines(self, action: str) -> list[dict[str, Any]]:
        """The log's lines of one action."""
        if not self.log.exists():
            return []
        text = self.log.read_text(errors="replace")
        return [json.loads(line) for line in text.splitlines() if f'"action": "{action}"' in line]

    def metrics(self) -> str:
        """The metrics page; needs [metrics] listen."""
        address = self.lines("metrics_listening")[-1]["address"]
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as page:
            return str(page.read().decode())

    def metric(self, name: str, /, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        total = 0.0
        for line in self.metrics().splitlines():
            match = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if match and all(f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()):
                total += float(match[2])
        return total


class LineProducer(Service):
    """A producer with the stdin source: lines in, answers out; what was not answered is known."""

    def start(self) -> None:
        """Start it with fresh pipes."""
        super().start()
        self.answers: list[dict[str, Any]] = []
        assert self.process.child is not None
        threading.Thread(target=self._read, args=(self.process.child.stdout,), daemon=True).start()

    def _read(self, stdout: Any) -> None:
        with stdout:
            for line in stdout:
                self.answers.append(json.loads(line))

    def write(self, events: Iterable[dict[str, Any]]) -> None:
        """Write lines; BrokenPipeError when the producer was killed."""
        assert self.process.child is not None
        assert self.process.child.stdin is not None
        for event in events:
            self.process.child.stdin.write(json.dumps(event).encode() + b"\n")
        self.process.child.stdin.flush()

    def send(self, events: list[dict[str, Any]], *, timeout_seconds: float = 60) -> list[dict[str, Any]]:
        """Write lines and wait for one answer each."""
        seen = len(self.answers)
        self.write(events)
        wait_for(
            lambda: len(self.answers) >= seen + len(events),
            what=f"{self.name}: {len(events)} answers",
            timeout_seconds=timeout_seconds,
            alive=self.process,
        )
        return self.answers[seen : seen + len(events)]

    def kill(self) -> None:
        """SIGKILL; the pipes are closed."""
        super().kill()
        self._close()

    def stop(self) -> int | None:
        """SIGTERM; the pipes are closed."""
        code = super().stop()
        self._close()
        return code

    def finish(self, timeout_seconds: float = 120) -> int:
        """End of input: wait until everything is published and the process ends by itself."""
        self._close()
        assert self.process.child is not None
        return self.process.child.wait(timeout_seconds)

    def _close(self) -> None:
        child = self.process.child
        if child is not None and child.stdin is not None and not child.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()


class Relay:
    """Broker users, topology, configuration files and processes of one deployment."""

    def __init__(
        self, folder: Path, broker: Broker, directory: Directory, *, tls: bool = True, log_level: str = "info"
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.broker = broker
        self.directory = directory
        self.tls = tls
        self.log_level = log_level
        self.enrolment = Enrolment(folder / "keys")
        self.services: list[Service] = []
        self.domains: list[dict[str, Any]] = []

    # -- configuration ------------------------------------------------------------------------------------------

    def prepare(self, *, domains: list[dict[str, Any]] | None = None) -> None:
        """Make users and topology. Producers must have been enrolled before, for they are listed under [[domain]]."""
        self.domains = domains or [self.enrolment.domain(self.directory.search_base)]
        for user in ("ops", "consumer", *self.enrolment.producers):
            self.broker.add_user(user, **_PERMISSIONS.get(user, _PERMISSIONS["producer"]))
        self.passrelay("topology", "apply", "--config", self.ops_config())

    def passrelay(self, *arguments: str | Path, check: bool = True) -> str:
        """Run the command line tool to its end."""
        return run_tool([PASSRELAY, *arguments], check=check)

    def _broker(self, user: str) -> dict[str, Any]:
        if not self.tls:
            return {"url": self.broker.plain_url}
        files = self.broker.certificate(user)
        return {
            "url": self.broker.url(),
            "ca_file": self.broker.ca.ca_file,
            "certificate_file": files.certificate,
            "key_file": files.key,
        }

    def idm(self, **changes: Any) -> dict[str, Any]:
        """The [idm] table."""
        return {
            "servers": [self.directory.ldaps_url],
            "ca_file": self.directory.ca_file,
            "bind_dn": self.directory.service_dn,
            "password_file": self.directory.password_file,
            **changes,
        }

    def write_config(self, name: str, document: dict[str, Any]) -> Path:
        """A configuration file that only its owner can read."""
        path = self.folder / f"{name}.toml"
        path.touch(mode=0o600)
        path.write_text(toml(document))
        return path

    def ops_config(self) -> Path:
        """ops.toml."""
        return self.write_config(
            "ops",
            {
                "broker": self._broker("ops"),
                "keys": {"directory": self.enrolment.consumer_keys},
                "idm": self.idm(),
                "domain": self.domains,
            },
        )

    # -- processes ----------------------------------------------------------------------------------------------

    def consumer(self, name: str, *, workers: int = 4, idm: dict[str, Any] | None = None, **consumer: Any) -> Service:
        """A consumer process, not started."""
        config = self.write_config(
            name,
            {
                "broker": self._broker("consumer"),
                "keys": {"directory": self.enrolment.consumer_keys},
                "idm": self.idm(**(idm or {})),
                "consumer": {"workers": workers, **consumer},
                "metrics": {"listen": "127.0.0.1:0"},
                "log": {"level": self.log_level},
                "domain": self.domains,
            },
        )
        return self._add(Service(name, ["consumer", "run"], config, self.folder / f"{name}.log"))

    def _producer_config(self, name: str, source: dict[str, Any], filters: dict[str, Any] | None = None) -> Path:
        return self.write_config(
            name,
            {
                "broker": self._broker(name),
                "spool": {"path": self.spool(name)},
                "keys": {"directory": self.enrolment.producer_keys(name)},
                "source": source,
                "filter": filters or {},
                "metrics": {"listen": "127.0.0.1:0"},
                "log": {"level": self.log_level},
                "domain": [
                    {key: value for key, value in domain.items() if key in {"name", "sid", "order"}}
                    for domain in self.domains
                ],
            },
        )

    def line_producer(self, name: str, **stdin: Any) -> LineProducer:
        """A producer with the stdin source, not started."""
        config = self._producer_config(name, {"stdin": stdin})
        producer = LineProducer(name, ["producer", "run"], config, self.folder / f"{name}.log", pipes=True)
        self._add(producer)
        return producer

    def samba_producer(
        self, name: str, samba: dict[str, Any], *, start_from: str = "now", filters: dict[str, Any] | None = None
    ) -> Service:
        """A producer on a domain controller, initialised, not started."""
        config = self._producer_config(name, {"samba": samba}, filters)
        self.passrelay("producer", "init", "--from", start_from, "--config", config)
        return self._add(Service(name, ["producer", "run"], config, self.folder / f"{name}.log"))

    def hook_producer(self, name: str, hook: dict[str, Any], *, filters: dict[str, Any] | None = None) -> Service:
        """A producer that takes the Windows hook's records, not started."""
        config = self._producer_config(name, {"hook": hook}, filters)
        return self._add(Service(name, ["producer", "run"], config, self.folder / f"{name}.log"))

    def spool(self, name: str) -> Path:
        """A producer's spool file, in a folder of its own."""
        folder = self.folder / f"{name}-spool"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder / "spool.sqlite"

    def _add(self, service: Service) -> Service:
        self.services.append(service)
        return service

    def close(self) -> None:
        """Stop every process."""
        for service in reversed(self.services):
            service.stop()

    # -- what came of it ----------------------------------------------------------------------------------------

    def records(self, stream: str = topology.JOURNAL) -> list[Record]:
        """Every record of the journal or dead stream, in order (raw envelopes that the broker moved are left out)."""
        connection = BlockingConnection(self.broker.parameters())
        try:
            return [
                record.decode(message.body)
                for message in read(connection, stream)
                if message.properties.type == record.SCHEMA
            ]
        finally:
            connection.close()

    def outcomes(self) -> dict[str, Record]:
        """The first final record of each event: the one that counts.

        An empty queue does not say that it is there: consumers record and ack what they have done some tenths of a
        second later.
        """
        first: dict[str, Record] = {}
        for found in self.records():
            if found.verdict in FINAL:
                first.setdefault(str(found.event_id), found)
        return first

    def captured(self, producer: str) -> set[str]:
        """The ids of all events in a producer's spool, published or not."""
        with closing(sqlite3.connect(self.spool(producer))) as connection:
            return {event_id for (event_id,) in connection.execute("SELECT event_id FROM captured")}

    def journal_depth(self) -> int:
        """How many records the journal has, cheaply."""
        return self.broker.queue_depths()[topology.JOURNAL]

    def publish(self, envelopes: Iterable[bytes]) -> None:
        """Publish raw envelopes as a producer would, confirmed one by one."""
        connection = BlockingConnection(self.broker.parameters())
        try:
            channel = connection.channel()
            channel.confirm_delivery()
            for raw in envelopes:
                channel.basic_publish(topology.EVENTS, "", raw, pika.BasicProperties(delivery_mode=2), mandatory=True)
        finally:
            connection.close()

    @property
    def data_paths(self) -> list[Path]:
        """Everything that passrelay itself leaves behind, logs and spools; the keys and configuration too."""
        return [self.folder]
