"""The configuration folder of a private 389 Directory Server, written from the template that its package ships.

No installer runs: `dscreate` takes eleven seconds and writes below /etc. The package's own template-dse.ldif with
its placeholders filled in is all that ns-slapd needs: the system stays untouched and two labs cannot meet.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import shutil
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import NoEncryption, load_pem_private_key, pkcs12

from tests.lab.certificates import Certificate
from tests.lab.process import LabError, MissingServerError, run_tool

_SHARED = Path("/usr/share/dirsrv")
_SYSTEM = Path("/etc/dirsrv")
ROOT_DN = "cn=Directory Manager"

# The part of MIT's and IPA's Kerberos schema that passrelay meets, with their OIDs. The file that 389-ds ships
# beside its schema predates krbLastAdminUnlock, and Debian has no package with IPA's own.
_TIME = (
    "EQUALITY generalizedTimeMatch ORDERING generalizedTimeOrderingMatch"
    " SYNTAX 1.3.6.1.4.1.1466.115.121.1.24 SINGLE-VALUE"
)
KERBEROS_SCHEMA = f"""\
dn: cn=schema
attributeTypes: ( 2.16.840.1.113719.1.301.4.1.1 NAME 'krbPrincipalName' EQUALITY caseExactIA5Match
  SUBSTR caseExactSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )
attributeTypes: ( 2.16.840.1.113719.1.301.4.6.1 NAME 'krbPrincipalExpiration' {_TIME} )
attributeTypes: ( 2.16.840.1.113719.1.301.4.37.1 NAME 'krbPasswordExpiration' {_TIME} )
attributeTypes: ( 2.16.840.1.113719.1.301.4.39.1 NAME 'krbPrincipalKey' EQUALITY octetStringMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.40 )
attributeTypes: ( 2.16.840.1.113719.1.301.4.45.1 NAME 'krbLastPwdChange' {_TIME} )
attributeTypes: ( 2.16.840.1.113719.1.301.4.50.1 NAME 'krbLoginFailedCount' EQUALITY integerMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
attributeTypes: ( 2.16.840.1.113719.1.301.4.51.1 NAME 'krbExtraData' EQUALITY octetStringMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.40 )
attributeTypes: ( 1.3.6.1.4.1.5322.21.2.5 NAME 'krbLastAdminUnlock' {_TIME} )
objectClasses: ( 2.16.840.1.113719.1.301.6.8.1 NAME 'krbPrincipalAux' SUP top AUXILIARY
  MAY ( krbPrincipalName $ krbPrincipalExpiration $ krbPasswordExpiration $ krbPrincipalKey $ krbLastPwdChange
  $ krbLastAdminUnlock $ krbLoginFailedCount $ krbExtraData ) )
"""


@dataclass(frozen=True)
class Layout:
    """Where one server's files are, all below its folder."""

    folder: Path

    @property
    def config(self) -> Path:
        """dse.ldif, schema and the NSS certificate store."""
        return self.folder / "config"

    @property
    def database(self) -> Path:
        """Entries, and the changelog when the server replicates."""
        return self.folder / "db"

    @property
    def logs(self) -> Path:
        """The server's access, error and audit logs."""
        return self.folder / "logs"


@dataclass(frozen=True)
class Listening:
    """The two ports on 127.0.0.1."""

    ldap: int
    ldaps: int


def server_version() -> str:
    """The installed server, e.g. `2.3.1`; MissingServerError without it."""
    output = run_tool(["ns-slapd", "-v"], timeout_seconds=30, check=False)  # it prints its version and exits 1
    found = re.search(r"389-Directory/(\S+)", output)
    if found is None:
        raise LabError(f"ns-slapd -v prints no version: {output.strip()!r}")
    return found[1]


def hashed(password: str) -> str:
    """A password as 389-ds stores it (SSHA512), so that dse.ldif never holds the root password itself."""
    salt = secrets.token_bytes(8)
    return "{SSHA512}" + base64.b64encode(hashlib.sha512(password.encode() + salt).digest() + salt).decode()


def write_configuration(
    layout: Layout, listening: Listening, *, suffix: str, root_password: str, storage_scheme: str | None
) -> None:
    """Folders and dse.ldif of a server that listens on 127.0.0.1 only and runs as the current user."""
    for path in (
        layout.config / "schema",
        layout.database,
        layout.logs,
        *map(layout.folder.joinpath, _SCRATCH),
    ):
        path.mkdir(parents=True, mode=0o700)
    try:
        template = (_SHARED / "data" / "template-dse.ldif").read_text()
        shutil.copy(_SYSTEM / "schema" / "99user.ldif", layout.config / "schema")
        for name in ("slapd-collations.conf", "certmap.conf"):
            shutil.copy(_SYSTEM / "config" / name, layout.config)
    except PermissionError as error:
        raise LabError(f"{error.filename} cannot be read: run as root or join the group dirsrv") from error
    except FileNotFoundError as error:
        raise MissingServerError(
            f"389-ds-base is not installed, {error.filename} is missing: run `./run test`"
        ) from error
    (layout.config / "schema" / "60kerberos.ldif").write_text(KERBEROS_SCHEMA)
    dse = _fill(template, _values(layout, listening, suffix=suffix, root_password=root_password))
    settings = {
        "nsslapd-listenhost": "127.0.0.1",
        "nsslapd-securelistenhost": "127.0.0.1",
        "nsslapd-secureport": str(listening.ldaps),
        "nsslapd-security": "on",
        # Otherwise the changelog and post-operation plug-ins keep the password in clear text.
        "nsslapd-unhashed-pw-switch": "nolog",
        # As IPA sets it up (install/updates/10-config.update); 389-ds alone allows 2,000 and 5,000.
        "nsslapd-sizelimit": "100000",
    }
    if storage_scheme is not None:
        settings["passwordStorageScheme"] = storage_scheme
    dse = with_settings(dse, "cn=config", settings)
    limits = {"nsslapd-lookthroughlimit": "100000"}
    dse = with_settings(dse, "cn=config,cn=ldbm database,cn=plugins,cn=config", limits)
    dse = with_settings(dse, "cn=encryption,cn=config", {"sslVersionMin": "TLS1.2"})
    dse = with_settings(dse, "cn=MemberOf Plugin,cn=plugins,cn=config", {"nsslapd-pluginenabled": "on"})
    file = layout.config / "dse.ldif"
    file.touch(mode=0o600)
    file.write_text(dse)


_SCRATCH = ("lock", "tmp", "ldif", "bak", "run")


def _values(layout: Layout, listening: Listening, *, suffix: str, root_password: str) -> dict[str, str]:
    folder = layout.folder
    return {
        **{f"{name}_dir": str(folder / name) for name in _SCRATCH},
        "inst_dir": str(folder),
        "schema_dir": str(layout.config / "schema"),
        "cert_dir": str(layout.config),
        "config_dir": str(layout.config),
        "log_dir": str(layout.logs),
        "db_dir": str(layout.database),
        "db_home_dir": str(layout.database),
        "db_lib": "bdb" if int(server_version().split(".")[0]) < 3 else "mdb",
        "fqdn": "idm.test",
        "ds_port": str(listening.ldap),
        "ds_user": getuser(),
        "ds_suffix": suffix,
        "ds_passwd": hashed(root_password),
        "rootdn": ROOT_DN,
        "instance_name": "lab",
        "ldapi_enabled": "off",
        "ldapi": str(folder / "run" / "ldapi"),
        "ldapi_autobind": "off",
    }


def _fill(template: str, values: dict[str, str]) -> str:
    """The template with every %name% replaced; LabError names a placeholder that a newer server has added."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise LabError(f"template-dse.ldif has a placeholder %{found[1]}% that the lab does not know: add it here")
        return values[found[1]]

    return re.sub(r"%([a-z_]+)%", value, template)


def with_settings(dse: str, dn: str, settings: dict[str, str]) -> str:
    """dse.ldif with single-valued attributes of one entry replaced or added; LabError for no such entry."""
    entries = dse.split("\n\n")
    for position, entry in enumerate(entries):
        lines = entry.strip("\n").splitlines()
        if lines and lines[0].casefold() == f"dn: {dn}".casefold():
            replaced = tuple(f"{name}:".casefold() for name in settings)
            kept = [line for line in lines if not line.casefold().startswith(replaced)]
            entries[position] = "\n".join(kept + [f"{name}: {value}" for name, value in settings.items()])
            return "\n\n".join(entries)
    raise LabError(f"template-dse.ldif has no entry {dn}: is this server version supported?")


def write_certificate_store(layout: Layout, certificate: Certificate, ca_file: Path) -> None:
    """The NSS database (no password, mode 0600) with the server's key and certificate and the lab's CA."""
    store = f"sql:{layout.config}"
    chain = x509.load_pem_x509_certificates(certificate.certificate.read_bytes())
    key = load_pem_private_key(certificate.key.read_bytes(), password=None)
    bundle = pkcs12.serialize_key_and_certificates(
        b"Server-Cert",
        key,  # type: ignore[arg-type]  # every key type that trustme makes is accepted
        chain[0],
        chain[1:] or None,
        NoEncryption(),
    )
    # pk12util reads files only. The key lies in the lab's folder as PEM anyway, with the same mode.
    file = layout.config / "server.p12"
    file.touch(mode=0o600)
    file.write_bytes(bundle)
    try:
        run_tool(["certutil", "-N", "-d", store, "--empty-password"])
        run_tool(["pk12util", "-i", file, "-d", store, "-W", "", "-K", ""])
        run_tool(["certutil", "-A", "-d", store, "-n", "lab-ca", "-t", "CT,,", "-a", "-i", ca_file])
    finally:
        file.unlink()
    for name in ("cert9.db", "key4.db"):
        (layout.config / name).chmod(0o600)
