"""A real Samba domain controller in a folder, on a loopback address of its own; a second one can join it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import ldap3
from ldap3.core.exceptions import LDAPException

from tests.lab.certificates import CertificateAuthority
from tests.lab.changes import LDAPS_PORT, Accounts, replace_values, sid_text, unicode_pwd
from tests.lab.folder import canary_password
from tests.lab.network import Reservations, accepts
from tests.lab.openpgp import OpenPgpKey, make_key
from tests.lab.process import LabError, Process, run_tool, wait_for

_KERBEROS_PORTS = (88, 464)
_PROVISION_SECONDS = 300
_FOLDERS = ("private", "cache", "lock", "run", "ncalrpc", "winbindd", "ntp", "log", "tls")


class DomainController(Accounts):
    """A domain controller: the first `start` provisions (or joins); `stop` and `kill` keep the data."""

    def __init__(
        self,
        folder: Path,
        reservations: Reservations,
        ca: CertificateAuthority,
        *,
        realm: str = "LAB.EXAMPLE",
        domain: str = "LAB",
        name: str = "dc1",
        first: DomainController | None = None,
    ) -> None:
        # Samba cannot move its LDAP and Kerberos ports, so each controller has a loopback address of its own.
        address = reservations.address()
        super().__init__(
            name=name,
            address=address,
            realm=realm,
            domain=domain,
            ca_file=ca.ca_file,
            folder=folder / name,
            kdcs=[address, first.address] if first else [address],
        )
        self.folder = folder / name
        self.sid = ""
        self.version = ""
        self._first = first
        self._ca = ca
        self._key: OpenPgpKey | None = None
        self._process = Process(name, [], log=self.folder / "log" / "console.log")
        self._prepared = False

    @classmethod
    def join(
        cls,
        first: DomainController,
        folder: Path,
        reservations: Reservations,
        ca: CertificateAuthority,
        name: str = "dc2",
    ) -> DomainController:
        """A second controller of the domain, with the same OpenPGP key; `first` must run when it starts."""
        return cls(folder, reservations, ca, realm=first.realm, domain=first.domain, name=name, first=first)

    # -- what others need to know

    @property
    def gpg_home(self) -> Path:
        """GNUPGHOME of the controller and of every local samba-tool call."""
        return self._made_key.home

    @property
    def gpg_key_file(self) -> Path:
        """The armoured secret key, mode 0600."""
        return self._made_key.file

    @property
    def gpg_fingerprint(self) -> str:
        """The key that smb.conf names in `password hash gpg key ids`."""
        return self._made_key.fingerprint

    @property
    def data_paths(self) -> list[Path]:
        """Everything that the controller writes."""
        return [self.folder]

    @property
    def running(self) -> bool:
        """True while the root process lives."""
        return self._process.running

    @property
    def _made_key(self) -> OpenPgpKey:
        if self._key is None:
            raise LabError(f"{self.name}: there is no OpenPGP key before the first start")
        return self._key

    # -- life

    def start(self) -> None:
        """Provision or join if that was not done yet, start, and wait until every service answers."""
        new = not self._prepared
        if new:
            self._prepare()
        (self.folder / "run" / "samba.pid").unlink(missing_ok=True)  # left by a kill; its pid may be another's now
        self._process = Process(
            self.name,
            # -l: it opens its log before it reads smb.conf.
            ["samba", "-F", "--no-process-group", "-s", str(self.smb_conf), "-l", str(self.folder / "log")],
            log=self._process.log,
            env=self.env,
        )
        self._process.start()
        self._process.wait_until(self._answers, what="LDAP, Kerberos and the private socket answer")
        if new and self._first is None:
            self._set_up_domain()
        with self.local_connection() as connection:
            connection.search(self.base_dn, "(objectClass=*)", ldap3.BASE, attributes=["objectSid"])
            self.sid = sid_text((connection.response or [])[0]["raw_attributes"]["objectSid"][0])

    def stop(self) -> None:
        """Stop with SIGTERM; returns when no process of the controller is left."""
        self._process.stop()
        self._wait_until_gone()

    def kill(self) -> None:
        """SIGKILL to all its processes at once, as a power cut would do it."""
        self._process.kill()
        self._wait_until_gone()

    def processes(self) -> list[int]:
        """Process ids of the controller, prefork children included; zombies do not count."""
        if self._process.child is None:
            return []
        group = self._process.pid
        return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/stat") if _group_of(path) == group]

    def replicate(self, source: DomainController | None = None) -> None:
        """Pull what this controller lacks from another one, now: without DNS nothing replicates by itself."""
        peer = source or self._first
        if peer is None:
            raise LabError(f"{self.name}: replicate needs a source")
        command = ["samba-tool", "drs", "replicate", "--local", self.address, peer.address, self.base_dn]
        run_tool([*command, "-s", str(self.smb_conf)], env=self.env)

    # -- making

    def _prepare(self) -> None:
        self.version = run_tool(["samba", "--version"]).removeprefix("Version").strip()
        for part in (*_FOLDERS, f"state/sysvol/{self.dns_domain}/scripts"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / "private").chmod(0o700)
        if self._first is None:
            self._key = make_key(self.folder)
            self.administrator_password = canary_password()
        else:
            self._key = self._copy_key(self._first)
            self.administrator_password = self._first.administrator_password
        self.env = {
            **os.environ,
            "GNUPGHOME": str(self.gpg_home),
            "KRB5_CONFIG": str(self.krb5_conf),
            "KRB5CCNAME": f"FILE:{self.folder / 'krb5cc'}",
            "LC_ALL": "C.UTF-8",
        }
        self._issue_certificate()
        self.write_krb5_conf()
        self.smb_conf.write_text(self._configuration())
        if self._first is None:
            self._provision()
        else:
            self._join(self._first)
        self._prepared = True

    def _provision(self) -> None:
        # Without --adminpass samba-tool invents one; `_set_up_domain` replaces it over the private socket.
        command = ["samba-tool", "domain", "provision", f"--realm={self.realm}", f"--domain={self.domain}"]
        host = [f"--host-name={self.name}", f"--host-ip={self.address}"]
        run_tool(
            [*command, *host, "--server-role=dc", "--dns-backend=NONE", "-s", str(self.smb_conf)],
            env=self.env,
            timeout_seconds=_PROVISION_SECONDS,
        )

    def _join(self, first: DomainController) -> None:
        command = ["samba-tool", "domain", "join", self.dns_domain, "DC", "-s", str(self.smb_conf)]
        run_tool(
            [*command, f"--server={first.address}", "--dns-backend=NONE", "-U", "Administrator"],
            env={**self.env, "PASSWD_FD": "0"},
            stdin=f"{self.administrator_password}\n".encode(),
            timeout_seconds=_PROVISION_SECONDS,
        )

    def _set_up_domain(self) -> None:
        with self.local_connection() as connection:
            administrator = f"CN=Administrator,CN=Users,{self.base_dn}"
            replace_values(connection, administrator, {"unicodePwd": unicode_pwd(self.administrator_password)})
            # Tests change a password many times a minute and use old ones again.
            relaxed = {"minPwdAge": "0", "maxPwdAge": "0", "pwdHistoryLength": "0"}
            replace_values(connection, self.base_dn, relaxed)

    def _copy_key(self, first: DomainController) -> OpenPgpKey:
        home, file = self.folder / "gpg", self.folder / first.gpg_key_file.name
        shutil.copytree(first.gpg_home, home, ignore=shutil.ignore_patterns("S.*"))
        shutil.copy(first.gpg_key_file, file)
        return OpenPgpKey(home, file, first.gpg_fingerprint)

    def _issue_certificate(self) -> None:
        # Samba's automatic certificate has no subjectAltName, so no client could check the name.
        issued = self._ca.issue(self.address, f"{self.name}.{self.dns_domain}")
        shutil.copy(issued.certificate, self.folder / "tls" / "cert.pem")
        shutil.copy(issued.key, self.folder / "tls" / "key.pem")
        shutil.copy(self.ca_file, self.folder / "tls" / "ca.pem")

    def _configuration(self) -> str:
        folder = self.folder
        return f"""[global]
    netbios name = {self.name.upper()}
    realm = {self.realm}
    workgroup = {self.domain}
    server role = active directory domain controller
    server services = ldap, cldap, kdc, rpc
    interfaces = {self.address}/8
    bind interfaces only = yes
    disable netbios = yes
    private dir = {folder}/private
    state directory = {folder}/state
    cache directory = {folder}/cache
    lock directory = {folder}/lock
    pid directory = {folder}/run
    ncalrpc dir = {folder}/ncalrpc
    winbindd socket directory = {folder}/winbindd
    binddns dir = {folder}/bind-dns
    ntp signd socket directory = {folder}/ntp
    log file = {folder}/log/samba.log
    tls keyfile = {folder}/tls/key.pem
    tls certfile = {folder}/tls/cert.pem
    tls cafile = {folder}/tls/ca.pem
    password hash gpg key ids = {self.gpg_fingerprint}
[sysvol]
    path = {folder}/state/sysvol
    read only = no
[netlogon]
    path = {folder}/state/sysvol/{self.dns_domain}/scripts
    read only = no
"""

    # -- waiting

    def _answers(self) -> bool:
        if not all(accepts(self.address, port) for port in (LDAPS_PORT, *_KERBEROS_PORTS)):
            return False
        try:
            with self.local_connection() as connection:
                return bool(connection.search("", "(objectClass=*)", ldap3.BASE, attributes=["dsServiceName"]))
        except LDAPException:
            return False

    def _wait_until_gone(self) -> None:
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        wait_for(lambda: not self.processes(), what=f"{self.name}: all processes end")


def _group_of(stat: Path) -> int | None:
    try:
        # The second field is a name in parentheses that may hold blanks and parentheses (proc_pid_stat(5)).
        state, _parent, group = stat.read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return None
    return None if state == "Z" else int(group)
