"""One real RabbitMQ node on loopback: TLS with client certificates (EXTERNAL), a plain listener, management, metrics.

Works on RabbitMQ 3.10 (Debian 12) and 4.0 (Debian 13). Everything it writes lies in the folder it is given.
"""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import ssl
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pika
from pika.adapters.blocking_connection import BlockingConnection
from pika.credentials import ExternalCredentials, PlainCredentials
from pika.exceptions import AMQPError

from tests.lab import rabbitmq_program
from tests.lab.broker_folder import ADMIN, HOST, VHOST, BrokerFolder, Ports
from tests.lab.certificates import Certificate, CertificateAuthority
from tests.lab.network import Reservations, accepts
from tests.lab.process import LabError, Process, run_tool, wait_for

_SERVER = rabbitmq_program.BIN / "rabbitmq-server"
_CONTROL = rabbitmq_program.BIN / "rabbitmqctl"
_TIMEOUT_SECONDS = 30
_START_SECONDS = 90  # 8 to 12 s, nearly all processor time, on an idle machine of two cores
_STARTS = 2
"""Seen once in some hundred starts: an Erlang node that hangs before its first line of output, for ever."""


class Broker:
    """A node that keeps its folder, ports, users and messages over stop, kill and start.

    `stop` ends the node and its epmd; `kill` ends only the node, as a crash does; `close` ends both at once, for the
    end of a test. Server errors are LabError and quote the node's log.
    """

    def __init__(self, folder: Path, reservations: Reservations, ca: CertificateAuthority) -> None:
        self.folder = folder
        self.ca = ca
        self.version = ""
        self.ports = Ports.reserve(reservations)
        self._files = BrokerFolder(folder, self.ports)
        self._admin_password = secrets.token_urlsafe(24)
        self._certificates: dict[str, Certificate] = {}
        self._prepared = False
        self._node = self._server("rabbitmq")
        self._epmd = self._port_mapper()

    def _server(self, name: str) -> Process:
        return self._process(name, _SERVER)

    def _port_mapper(self) -> Process:
        # In the foreground and as our own child: a node that finds an epmd running starts none of its own, so that
        # nothing daemonizes and the process to stop is known.
        return self._process("epmd", "epmd", "-address", HOST, "-port", str(self.ports.epmd))

    def _process(self, name: str, *command: str | Path) -> Process:
        return Process(
            name,
            rabbitmq_program.command(*command),
            log=self._files.log / f"{name}-console.log",
            env=self._files.environment,
            cwd=self._files.home,
            user=rabbitmq_program.user(),
        )

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the node and return when it takes logins on the plain listener and connections on all the others."""
        if not self._prepared:
            self._files.prepare(self.ca, self._admin_password)
            self._prepared = True
        if not self._epmd.running:
            self._epmd.start()
            self._epmd.wait_until(lambda: accepts(HOST, self.ports.epmd), what=f"port {self.ports.epmd}")
        for left in reversed(range(_STARTS)):
            self._node.start()
            try:
                self._node.wait_until(self._ready, what=self._what(), timeout_seconds=_START_SECONDS)
            except LabError as error:
                if not self._node.running or not left:
                    raise LabError(f"{error}\n{self._files.last_lines()}") from error
                print(f"rabbitmq hangs and is started again: {error}\n{self._files.last_lines()}", file=sys.stderr)
                self._node.kill()
            else:
                return

    def stop(self) -> None:
        """Stop the node in good order, then its epmd; harmless when they have ended.

        3.10 needs 6 s: with a management plugin its shutdown waits 5 s for a process that waits for the shutdown.
        """
        self._node.stop()
        self._epmd.stop()

    def kill(self) -> None:
        """SIGKILL the Erlang node: nothing is flushed, no connection is closed in good order.

        Waits first (at most a second) until every queue is older than RabbitMQ's own blind spot, see
        `BrokerFolder.registered`.
        """
        if self._node.running:
            wait_for(self._registered, what="rabbitmq: queues registered on disk", timeout_seconds=_TIMEOUT_SECONDS)
        self._node.kill()

    def close(self) -> None:
        """End everything now, without the good order: for a folder that nobody starts again."""
        self._node.kill()
        self._epmd.stop()

    def restart(self) -> None:
        """Stop in good order and start again."""
        self.stop()
        self.start()

    @property
    def running(self) -> bool:
        """True while the node's process lives."""
        return self._node.running

    @property
    def pids(self) -> tuple[int, int]:
        """Process ids of the Erlang node and of its epmd."""
        return self._node.pid, self._epmd.pid

    def evaluate(self, expression: str) -> str:
        """An Erlang expression's value on this node, for what no interface offers."""
        command = rabbitmq_program.command(_CONTROL, "-n", self._files.node, "--quiet", "eval", expression)
        # Erlang looks for code where it is started, and says on stdout that it may not in a checkout of root's alone.
        home, user = self._files.home, rabbitmq_program.user()
        return run_tool(command, env=self._files.environment, cwd=home, user=user).strip()

    # -- who may do what -----------------------------------------------------------------------------------------

    def add_user(self, name: str, *, configure: str, write: str, read: str) -> None:
        """Make, or change, a user who can log in only with `certificate(name)`; permissions are regular expressions.

        `^$` permits nothing. An empty password hash is the API's form of `rabbitmqctl clear_password`.
        """
        user, vhost = quote(name, safe=""), quote(VHOST, safe="")
        self._api("PUT", f"users/{user}", {"password_hash": "", "tags": ""})
        permissions = {"configure": configure, "write": write, "read": read}
        self._api("PUT", f"permissions/{vhost}/{user}", permissions)

    def certificate(self, name: str) -> Certificate:
        """The client certificate whose common name is the user's name; the same one each time."""
        if name not in self._certificates:
            self._certificates[name] = self.ca.issue(name, common_name=name)
        return self._certificates[name]

    # -- addresses -----------------------------------------------------------------------------------------------

    def url(self, *, tls: bool = True) -> str:
        """The address for `[broker] url`, without credentials: the user is whom the client certificate names."""
        return f"amqps://{HOST}:{self.ports.tls}/{VHOST}" if tls else f"amqp://{HOST}:{self.ports.plain}/{VHOST}"

    @property
    def plain_url(self) -> str:
        """The clear-text address with the administrator's credentials: for tests only, never for a command line."""
        return f"amqp://{ADMIN}:{self._admin_password}@{HOST}:{self.ports.plain}/{VHOST}"

    def parameters(self, user: str | None = None) -> pika.ConnectionParameters:
        """How pika logs in: the administrator on the plain listener, or a certificate user over TLS with EXTERNAL."""
        if user is None:
            credentials, port, options = PlainCredentials(ADMIN, self._admin_password), self.ports.plain, None
        else:
            files = self.certificate(user)
            context = ssl.create_default_context(cafile=str(self.ca.ca_file))
            context.load_cert_chain(files.certificate, files.key)
            options = pika.SSLOptions(context, HOST)
            credentials, port = ExternalCredentials(), self.ports.tls
        return pika.ConnectionParameters(
            HOST,
            port,
            VHOST,
            credentials,
            ssl_options=options,
            socket_timeout=_TIMEOUT_SECONDS,
            stack_timeout=_TIMEOUT_SECONDS,
            blocked_connection_timeout=_TIMEOUT_SECONDS,
        )

    # -- what lies in it -----------------------------------------------------------------------------------------

    def queue_depths(self) -> dict[str, int]:
        """Messages that wait in each queue (not those held unacknowledged by a consumer), asked of the queue now.

        Passive declares, because the management API's counts are up to five seconds old. A stream's count can still be
        a tenth of a second old: wait for the value that you expect.
        """
        names = [queue["name"] for queue in self._definitions()["queues"]]
        connection = BlockingConnection(self.parameters())
        try:
            channel = connection.channel()
            return {name: channel.queue_declare(name, passive=True).method.message_count for name in names}
        finally:
            connection.close()

    def purge_all(self) -> None:
        """Empty every queue; a stream cannot be purged, so it is deleted and made again with its bindings.

        Consumers of a stream are cancelled by that; messages that a consumer holds unacknowledged stay.
        """
        definitions = self._definitions()
        vhost = quote(VHOST, safe="")
        for queue in definitions["queues"]:
            path = f"queues/{vhost}/{quote(queue['name'], safe='')}"
            self._api("DELETE", path if _is_stream(queue) else f"{path}/contents")
        self._api("POST", f"definitions/{vhost}", definitions)

    @property
    def data_paths(self) -> list[Path]:
        """Folders with every byte that the node keeps: messages, users, logs, console output, crash dumps."""
        return [self._files.data, self._files.log, self._files.home]

    # -- inside --------------------------------------------------------------------------------------------------

    def _what(self) -> str:
        return f"ready on ports {self.ports.tls} and {self.ports.plain}"

    def _ready(self) -> bool:
        if not all(accepts(HOST, port) for port in (self.ports.tls, self.ports.management, self.ports.metrics)):
            return False
        try:
            connection = BlockingConnection(self.parameters())
            self.version = connection._impl.server_properties["version"]
            connection.close()
            self._read_streams()
        except (AMQPError, OSError, LabError):
            return False
        return True

    def _read_streams(self) -> None:
        # After a crash a stream answers "home node is down" until its writer has been started again, and refuses
        # readers ("no replica on the local node") some time longer.
        streams = [queue["name"] for queue in self._definitions()["queues"] if _is_stream(queue)]
        connection = BlockingConnection(self.parameters())
        try:
            self.queue_depths()
            for name in streams:
                channel = connection.channel()
                channel.basic_qos(prefetch_count=1)
                channel.basic_consume(name, lambda *_: None, arguments={"x-stream-offset": "next"})
                channel.close()
        finally:
            connection.close()

    def _registered(self) -> bool:
        queues = self._definitions()["queues"]
        return self._files.registered({q["name"]: q["arguments"].get("x-queue-type", "") for q in queues})

    def _definitions(self) -> Any:
        return self._api("GET", f"definitions/{quote(VHOST, safe='')}")

    def _api(self, method: str, path: str, body: object = None) -> Any:
        """One call of the management API; the password travels in a header, never on a command line."""
        token = base64.b64encode(f"{ADMIN}:{self._admin_password}".encode()).decode()
        headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(HOST, self.ports.management, timeout=_TIMEOUT_SECONDS)
        try:
            connection.request(method, f"/api/{path}", None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status >= 300:
            text = content.decode(errors="replace")[:500]
            raise LabError(f"rabbitmq: {method} /api/{path}: {response.status} {text}")
        return json.loads(content) if content else None


def _is_stream(queue: dict[str, Any]) -> bool:
    return bool(queue["arguments"].get("x-queue-type") == "stream")
