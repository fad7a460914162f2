"""A real 389 Directory Server that looks like Red Hat IdM, in a throw-away folder on loopback."""

from __future__ import annotations

import itertools
import os
import secrets
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from ldap3 import BASE, MODIFY_ADD, MODIFY_REPLACE, Connection
from ldap3.core.exceptions import LDAPException
from ldap3.core.results import RESULT_INVALID_CREDENTIALS

from passrelay_ops.idm.ldif import render
from passrelay_ops.idm.site import Site
from passrelay_ops.idm.templates import wanted
from passrelay_schemas.idm_settings import own_probe
from tests.lab.certificates import CertificateAuthority
from tests.lab.directory_connection import close, ldaps_connection
from tests.lab.directory_template import (
    ROOT_DN,
    Layout,
    Listening,
    server_version,
    write_certificate_store,
    write_configuration,
)
from tests.lab.directory_tree import (
    BACKEND_DN,
    Attributes,
    add,
    compat_user,
    create_tree,
    delete,
    demand,
    modify,
    user,
)
from tests.lab.network import Reservations, accepts
from tests.lab.process import LabError, Process, run_tool


class Directory:
    """One server: `start` makes it on first use and keeps its data over stop, kill and start.

    With `set_up=False` the tree has IdM's containers only: no passrelay schema, access rules or accounts.
    `environment` is the server's, by default this process's own.
    """

    def __init__(
        self,
        folder: Path,
        reservations: Reservations,
        ca: CertificateAuthority,
        *,
        suffix: str = "dc=idm,dc=test",
        storage_scheme: str | None = None,
        set_up: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.suffix = suffix
        self.storage_scheme = storage_scheme
        self.ca_file = ca.ca_file
        self.layout = Layout(folder)
        self.listening = Listening(ldap=reservations.port(), ldaps=reservations.port())
        self.ldaps_url = f"ldaps://localhost:{self.listening.ldaps}"
        self.ldap_url = f"ldap://localhost:{self.listening.ldap}"
        self.search_base = f"cn=users,cn=accounts,{suffix}"
        self.service_dn = f"uid=passrelay,cn=sysaccounts,cn=etc,{suffix}"
        self.probe_dn = f"uid=passrelay-probe,cn=sysaccounts,cn=etc,{suffix}"
        self.listed_as = [self.ldaps_url]
        """The addresses under which a list of several servers names those of this tree: each has a probe of its own."""
        self.password_file = folder / "service.password"
        self.manager_file = folder / "manager.password"
        """Directory Manager's password, mode 0600, as an administrator keeps it while he sets a server up."""
        self.data_paths = [self.layout.database, self.layout.logs, self.layout.config]
        self._ca = ca
        self._set_up = set_up
        self._root_password = secrets.token_urlsafe(24)
        self._numbers = itertools.count()
        self._process = Process(
            "ns-slapd",
            ["ns-slapd", "-D", self.layout.config, "-i", folder / "run" / "slapd.pid", "-d", "0"],
            log=folder / "ns-slapd.log",
            env=environment,
        )

    @property
    def version(self) -> str:
        """The server's version, e.g. `2.3.1`."""
        return server_version()

    @property
    def site(self) -> Site:
        """What `passrelay idm setup` would know of it."""
        return Site(
            service_dn=self.service_dn,
            probe_dn=self.probe_dn,
            probe_dns=(self.probe_dn, *(own_probe(self.probe_dn, url) for url in self.listed_as)),
            search_bases=(self.search_base,),
            suffix=self.suffix,
            password_file=self.password_file,
            realm="IDM.TEST",
        )

    # --- life and death

    def start(self) -> None:
        """Start the server and wait until it answers; the first start also creates it."""
        fresh = not self.layout.config.exists()
        if fresh:
            self.configure()
        self._process.start()
        try:
            self._process.wait_until(lambda: accepts("127.0.0.1", self.listening.ldaps), what="LDAPS answers")
            if fresh:
                self.create_tree()
                if self._set_up:
                    self.setup()
        except BaseException:
            self.kill()
            raise

    def configure(self) -> None:
        """Write the configuration that the first start finds."""
        write_configuration(
            self.layout,
            self.listening,
            suffix=self.suffix,
            root_password=self._root_password,
            storage_scheme=self.storage_scheme,
        )
        certificate = self._ca.issue("idm.test", "localhost", "127.0.0.1")
        write_certificate_store(self.layout, certificate, self.ca_file)
        self.manager_file.touch(mode=0o600)
        self.manager_file.write_text(self._root_password)

    def create_tree(self) -> None:
        """What is in the database before anybody sets it up for passrelay."""
        with self.manager() as manager:
            create_tree(manager, self.suffix)

    def stop(self) -> None:
        """Stop it cleanly; nothing is left running. Harmless when it does not run."""
        self._process.signal(signal.SIGCONT)
        self._process.stop()

    def kill(self) -> None:
        """SIGKILL, as a power cut would do it."""
        self._process.kill()

    def pause(self) -> None:
        """SIGSTOP: connections are accepted by the kernel, but nothing answers."""
        self._process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        self._process.signal(signal.SIGCONT)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    # --- connections

    @contextmanager
    def connect(self, dn: str, password: str) -> Iterator[Connection]:
        """A new bound connection over LDAPS, closed at the end; LabError with the answer to a refused bind."""
        connection = ldaps_connection(self.listening.ldaps, self.ca_file, dn, password)
        try:
            connection.bind()
            demand(connection, f"bind as {dn}")
            yield connection
        except LDAPException as error:
            raise LabError(f"{self.ldaps_url}: {type(error).__name__}: {error}") from error
        finally:
            close(connection)

    def manager(self) -> AbstractContextManager[Connection]:
        """A new connection bound as Directory Manager, whom no access rule binds."""
        return self.connect(ROOT_DN, self._root_password)

    def service(self) -> AbstractContextManager[Connection]:
        """A new connection bound as passrelay's service account."""
        return self.connect(self.service_dn, self.password_file.read_text().strip())

    def binds(self, uid: str, password: str) -> bool:
        """Whether the user can log in: False for result 49 only, LabError for any other (53 = locked)."""
        # As bytes: ldap3 would change a text (SASLprep, RFC 4013) or refuse a tab in it.
        connection = ldaps_connection(self.listening.ldaps, self.ca_file, self.user_dn(uid), password.encode())
        try:
            connection.bind()
            if connection.result["result"] == RESULT_INVALID_CREDENTIALS:
                return False
            demand(connection, f"bind as {uid}")
        except LDAPException as error:
            raise LabError(f"bind as {uid} at {self.ldaps_url}: {error}") from error
        finally:
            close(connection)
        return True

    # --- users

    def user_dn(self, uid: str) -> str:
        """The DN of a user below cn=users,cn=accounts."""
        return f"uid={uid},{self.search_base}"

    def add_user(self, uid: str, password: str | None = None, **attributes: str | list[str]) -> str:
        """Create a user that looks like IPA's, and its second face in cn=compat; returns the DN."""
        given = {name: [value] if isinstance(value, str) else value for name, value in attributes.items()}
        entry = user(uid, next(self._numbers), given)
        secret = {} if password is None else {"userPassword": [password]}
        dn = self.user_dn(uid)
        with self.manager() as manager:
            add(manager, dn, {**entry, **secret})
            add(manager, self._compat_dn(uid), compat_user(entry))
        return dn

    def add_users(self, uids: Iterable[str]) -> None:
        """Create many users without passwords, over one connection."""
        with self.manager() as manager:
            for uid in uids:
                add(manager, self.user_dn(uid), user(uid, next(self._numbers), {}))

    def delete_user(self, uid: str) -> None:
        """Remove a user and its second face."""
        with self.manager() as manager:
            for dn in (self.user_dn(uid), self._compat_dn(uid)):
                delete(manager, dn)

    def add_to_group(self, uid: str, group: str) -> None:
        """Make a user a member of `admins` or `ipausers`; the server then fills memberOf."""
        dn = f"cn={group},cn=groups,cn=accounts,{self.suffix}"
        with self.manager() as manager:
            modify(manager, dn, {"member": [(MODIFY_ADD, [self.user_dn(uid)])]})

    def read(self, uid: str) -> Attributes:
        """All attributes of a user, operational ones too, as Directory Manager; LabError for no such user."""
        return self.read_entry(self.user_dn(uid))

    def read_entry(self, dn: str) -> Attributes:
        """All attributes of any entry as text; LabError when there is none."""
        with self.manager() as manager:
            manager.search(dn, "(objectClass=*)", BASE, attributes=["*", "+"])
            demand(manager, f"read {dn}")
            raw = manager.response[0]["raw_attributes"] if manager.response else {}
            return {name: [value.decode(errors="replace") for value in values] for name, values in raw.items()}

    def _compat_dn(self, uid: str) -> str:
        return f"uid={uid},cn=users,cn=compat,{self.suffix}"

    # --- the server itself

    def read_only(self, on: bool) -> None:
        """Make the backend refuse writes (result 53), as in maintenance, or accept them again."""
        with self.manager() as manager:
            modify(manager, BACKEND_DN, {"nsslapd-readonly": [(MODIFY_REPLACE, ["on" if on else "off"])]})

    def setup(self) -> None:
        """What `passrelay idm setup` prints, given to OpenLDAP's own ldapmodify as an administrator may do it."""
        self.password_file.touch(mode=0o600)
        self.password_file.write_text(secrets.token_urlsafe(24))
        needed = wanted(self.site)
        self.apply_ldif(render((*needed.schema, *needed.tree)))

    def apply_ldif(self, ldif: str) -> None:
        """Give change records to OpenLDAP's ldapmodify, as Directory Manager; LabError with what it says."""
        # By address: OpenLDAP takes "localhost" for the machine's own name when it checks the certificate.
        url = f"ldaps://127.0.0.1:{self.listening.ldaps}"
        command = ["ldapmodify", "-x", "-H", url, "-D", ROOT_DN, "-y", str(self.manager_file)]
        environment = {**os.environ, "LDAPTLS_CACERT": str(self.ca_file), "LDAPTLS_REQCERT": "demand"}
        run_tool(command, env=environment, stdin=ldif.encode())
