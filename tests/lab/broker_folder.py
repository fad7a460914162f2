"""The folder of one RabbitMQ node: its configuration, its environment, and what its files tell."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pwd
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.lab.certificates import CertificateAuthority
from tests.lab.network import Reservations
from tests.lab.process import MissingServerError

HOST = "127.0.0.1"
VHOST = "passrelay"
ADMIN = "admin"
ACCOUNT = "rabbitmq"
_PLUGINS = ("rabbitmq_auth_mechanism_ssl", "rabbitmq_management", "rabbitmq_prometheus")


@dataclass(frozen=True)
class Ports:
    """The node's ports on 127.0.0.1."""

    tls: int
    plain: int
    management: int
    metrics: int
    distribution: int
    epmd: int

    @classmethod
    def reserve(cls, reservations: Reservations) -> Ports:
        """Six free ports."""
        return cls(*(reservations.port() for _ in range(6)))


class BrokerFolder:
    """Everything that the node reads or writes lies below `path`."""

    node = "lab@localhost"
    # A stream's count is refreshed only by this tick (5 s unless told); a quorum queue answers for itself.
    advanced: Mapping[str, int] = {"stream_tick_interval": 100}
    """Of the application `rabbit`, in milliseconds."""

    def __init__(self, path: Path, ports: Ports) -> None:
        self.path = path
        self.ports = ports
        self.home, self.data, self.log = path / "home", path / "data", path / "log"

    @property
    def environment(self) -> dict[str, str]:
        """The node's environment; each default that would point outside the folder is named: /etc has no say."""
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.home),  # the Erlang cookie is made there
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(self.ports.epmd),
            "ERL_CRASH_DUMP": str(self.log / "erl_crash.dump"),
            # Makes the start script exec the node instead of waiting for it: the pid we hold is the node's own.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_CONF_ENV_FILE": str(self.home / "env.conf"),
            "RABBITMQ_CONFIG_FILE": str(self.home / "rabbitmq"),
            "RABBITMQ_CONFIG_FILES": str(self.home / "conf.d" / "*.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.home / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.home / "enabled_plugins"),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(self.ports.distribution),
            "RABBITMQ_MNESIA_BASE": str(self.data),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.home / "generated"),
            "RABBITMQ_LOG_BASE": str(self.log),
            # Schedulers that sleep instead of spinning leave the machine's few cores to everything else (RabbitMQ's
            # runtime guide: "CPU: avoid busy waiting").
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}"
            " +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def prepare(self, ca: CertificateAuthority, admin_password: str) -> None:
        """Write certificates and configuration, and give the folder to the account that the node runs as."""
        for path in (self.home, self.data, self.log):
            path.mkdir(parents=True, exist_ok=True)
        server = ca.issue("broker.lab.example", "localhost", HOST)
        # The authority keeps its keys readable for us alone; the node needs copies of its own.
        shutil.copy(ca.ca_file, self.home / "ca.pem")
        shutil.copy(server.certificate, self.home / "server.pem")
        shutil.copy(server.key, self.home / "server.key")
        (self.home / "env.conf").touch()
        settings = ",".join(f"{{{name},{value}}}" for name, value in self.advanced.items())
        (self.home / "advanced.config").write_text(f"[{{rabbit,[{settings}]}}].\n")
        (self.home / "enabled_plugins").write_text(f"[{','.join(_PLUGINS)}].\n")
        (self.home / "definitions.json").write_text(json.dumps(_definitions(admin_password)))
        (self.home / "rabbitmq.conf").write_text(self._configuration())
        if os.geteuid() == 0:
            _give(self.path)

    def registered(self, queues: Mapping[str, str]) -> bool:
        """True when the names of all quorum queues, and of the streams' coordinator, are in the node's files.

        `queues` maps names to types. Measured on 3.10.8: a node killed within a second of a declare forgets the
        queue's Raft name. The quorum queue then comes back empty, confirmed messages and all, and the first stream
        never comes back.
        """
        names = {
            "quorum": [f"{VHOST}_{name}" for name, kind in queues.items() if kind == "quorum"],
            "coordination": ["rabbit_stream_coordinator"] if "stream" in queues.values() else [],
        }
        for folder, expected in names.items():
            file = self.data / self.node / folder / self.node / "names.dets"
            content = file.read_bytes() if expected else b""
            if not all(name.encode() in content for name in expected):
                return False
        return True

    def last_lines(self) -> str:
        """The end of every log, for error messages."""
        logs = sorted(path for path in self.log.rglob("*.log") if path.is_file())
        return "\n".join(f"{path}:\n{path.read_text(errors='replace')[-1500:]}" for path in logs)

    def _configuration(self) -> str:
        return f"""\
listeners.tcp.1 = {HOST}:{self.ports.plain}
listeners.ssl.1 = {HOST}:{self.ports.tls}
ssl_options.cacertfile = {self.home}/ca.pem
ssl_options.certfile = {self.home}/server.pem
ssl_options.keyfile = {self.home}/server.key
ssl_options.versions.1 = tlsv1.3
ssl_options.versions.2 = tlsv1.2
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
auth_mechanisms.1 = EXTERNAL
auth_mechanisms.2 = PLAIN
ssl_cert_login_from = common_name
management.tcp.ip = {HOST}
management.tcp.port = {self.ports.management}
prometheus.tcp.ip = {HOST}
prometheus.tcp.port = {self.ports.metrics}
load_definitions = {self.home}/definitions.json
log.file.level = info
"""


def _definitions(password: str) -> dict[str, object]:
    """What the node imports at each boot: the virtual host and the administrator, by salted hash (no clear text)."""
    salt = secrets.token_bytes(4)
    hashed = base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
    admin = {
        "name": ADMIN,
        "password_hash": hashed,
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": "administrator",
    }
    everything = {"user": ADMIN, "vhost": VHOST, "configure": ".*", "write": ".*", "read": ".*"}
    return {"vhosts": [{"name": VHOST}], "users": [admin], "permissions": [everything]}


def _give(folder: Path) -> None:
    """Hand a folder and all below it to the account that the node runs as."""
    try:
        account = pwd.getpwnam(ACCOUNT)
    except KeyError:
        raise MissingServerError(f"there is no account {ACCOUNT}: run `./run test` once") from None
    for path in (folder, *folder.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid)
