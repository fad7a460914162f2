"""What is said of a server that cannot be reached as it should: on real TLS connections."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from passrelay_ops.check import Result, Row
from passrelay_ops.idm.login import Login
from passrelay_ops.idm.site import Site
from passrelay_ops.idm.view import look
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.secret import Secret
from tests.lab.folder import canary_password

SERVICE = "uid=passrelay,cn=sysaccounts,cn=etc,dc=idm,dc=test"


@contextlib.contextmanager
def tls_server(certificate: trustme.LeafCert) -> Iterator[int]:
    """Something that greets with this certificate and then hangs up, as often as it is asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    with peer, contextlib.suppress(OSError):
                        context.wrap_socket(peer, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=30)


def unusable(ca: trustme.CA, certificate: trustme.LeafCert, folder: Path) -> Row:
    """The check that such a server fails, seen from a site that pins this CA."""
    ca_file = folder / "ca.pem"
    ca.cert_pem.write_to_path(str(ca_file))
    with tls_server(certificate) as port:
        given = {
            "servers": [f"ldaps://localhost:{port}"],
            "ca_file": ca_file,
            "bind_dn": SERVICE,
            "password_file": "/p",
        }
        idm = IdmSettings.model_validate({**given, "timeout_seconds": 5})
        users = DomainSettings.model_validate(
            {"name": "ad.example", "sid": "S-1-5-21-1-2-3", "search_base": "cn=users,cn=accounts,dc=idm,dc=test"}
        )
        login = Login("cn=Directory Manager", Secret(canary_password()))
        view = look(idm.servers[0], idm, Site.of(idm, [users]), login)
    assert view.unusable is not None
    return view.unusable


def test_each_fault_of_a_certificate_has_its_own_repair(tmp_path: Path) -> None:
    ca, yesterday = trustme.CA(), datetime.now(UTC) - timedelta(days=1)
    for certificate, repair in (
        (ca.issue_cert("localhost", not_after=yesterday), "renew"),
        (ca.issue_cert("elsewhere.example"), "a name that stands in its certificate"),
        (trustme.CA().issue_cert("localhost"), "passrelay idm ca"),
    ):
        row = unusable(ca, certificate, tmp_path)
        assert (row.id, row.result) == ("idm.connect", Result.FAIL)
        assert repair in row.repair, row


def test_a_server_that_is_no_directory_is_only_unreachable(tmp_path: Path) -> None:
    ca = trustme.CA()
    row = unusable(ca, ca.issue_cert("localhost"), tmp_path)
    assert row.id == "idm.connect"
    assert "start or reach" in row.repair
