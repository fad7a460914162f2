#!/usr/bin/env python3
"""The demo's directory server: 389 Directory Server with the tree of an IdM server, made at the first start.

/files holds server.pem, server.key, ca.pem and manager.password; all data is in /data. No installer runs, because
dscreate needs root: the template that 389-ds ships is filled in, the rest is set over LDAP.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import time
from pathlib import Path

DATA, FILES, DEMO = Path("/data"), Path("/files"), Path("/demo")
CONFIG = DATA / "config"
STAMP = DATA / "complete"
SUFFIX = "dc=idm,dc=example"
MANAGER = "cn=Directory Manager"
SERVER = ["ns-slapd", "-D", str(CONFIG), "-i", str(DATA / "run/slapd.pid"), "-d", "0"]
_SCRATCH = ("lock", "tmp", "ldif", "bak", "run")
_START_SECONDS = 60


def hashed(password: str) -> str:
    """The password as 389-ds stores it (SSHA512)."""
    salt = secrets.token_bytes(8)
    return "{SSHA512}" + base64.b64encode(hashlib.sha512(password.encode() + salt).digest() + salt).decode()


def write_configuration() -> None:
    """Folders, dse.ldif and schema of a server that is not set up yet."""
    for name in ("config/schema", "db", "logs", *_SCRATCH):
        (DATA / name).mkdir(parents=True)
    values = {
        **{f"{name}_dir": str(DATA / name) for name in _SCRATCH},
        "inst_dir": str(DATA),
        "schema_dir": str(CONFIG / "schema"),
        "cert_dir": str(CONFIG),
        "config_dir": str(CONFIG),
        "log_dir": str(DATA / "logs"),
        "db_dir": str(DATA / "db"),
        "db_home_dir": str(DATA / "db"),
        "db_lib": "mdb",
        "fqdn": "directory",
        "ds_port": "389",
        "ds_user": "dirsrv",
        "ds_suffix": SUFFIX,
        "ds_passwd": hashed((FILES / "manager.password").read_text()),
        "rootdn": MANAGER,
        "instance_name": "demo",
        "ldapi_enabled": "off",
        "ldapi": str(DATA / "run/ldapi"),
        "ldapi_autobind": "off",
    }
    template = Path("/usr/share/dirsrv/data/template-dse.ldif").read_text()
    dse = CONFIG / "dse.ldif"
    dse.touch(mode=0o600)
    dse.write_text(re.sub(r"%([a-z_]+)%", lambda found: values[found[1]], template))
    for name in ("slapd-collations.conf", "certmap.conf"):
        shutil.copy(Path("/etc/dirsrv/config") / name, CONFIG)
    shutil.copy("/etc/dirsrv/schema/99user.ldif", CONFIG / "schema")
    shutil.copy(DEMO / "kerberos.ldif", CONFIG / "schema/60kerberos.ldif")


def write_certificate_store() -> None:
    """The NSS database with the server's certificate and key."""
    store, bundle = f"sql:{CONFIG}", CONFIG / "server.p12"
    certificate = ["-in", str(FILES / "server.pem"), "-inkey", str(FILES / "server.key")]
    # The password protects nothing: the key lies beside it as PEM. NSS wants one that is not empty from openssl.
    run("openssl", "pkcs12", "-export", *certificate, "-name", "Server-Cert", "-out", bundle, "-passout", "pass:x")
    run("certutil", "-N", "-d", store, "--empty-password")
    run("pk12util", "-i", bundle, "-d", store, "-W", "x", "-K", "")
    run("certutil", "-A", "-d", store, "-n", "demo-ca", "-t", "CT,,", "-a", "-i", FILES / "ca.pem")
    bundle.unlink()


def run(*command: str | Path) -> None:
    """Run a tool to its end; its complaints go to the log."""
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)


def load_tree() -> None:
    """Start the server for a moment, and give it settings, database, tree and users."""
    server = subprocess.Popen(SERVER)
    try:
        login = ["-x", "-H", "ldap://127.0.0.1", "-D", MANAGER, "-y", str(FILES / "manager.password")]
        deadline = time.monotonic() + _START_SECONDS
        while subprocess.run(["ldapwhoami", *login], capture_output=True, check=False).returncode:
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("directory: the server does not start")
            time.sleep(0.2)
        for name in ("server.ldif", "tree.ldif"):
            run("ldapmodify", "-a", *login, "-f", DEMO / name)
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Make what is missing, then become the server."""
    os.umask(0o077)
    if not STAMP.exists():
        for path in DATA.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_configuration()
        write_certificate_store()
        load_tree()
        STAMP.touch()
    os.execvp(SERVER[0], SERVER)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
