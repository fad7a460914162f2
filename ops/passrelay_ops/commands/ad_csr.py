"""`passrelay ad csr`: what a domain controller needs to ask a CA for its LDAPS certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from passrelay_ops.ad import request
from passrelay_ops.options import AsJson, Yes
from passrelay_ops.report import Report


def csr(
    controller: Annotated[str, typer.Option(metavar="HOST", help="The controller's full DNS name (dNSHostName).")],
    name: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="A further name it is reached by; may be repeated.")
    ] = None,
    directory: Annotated[Path, typer.Option(metavar="DIR", help="Where the files go; it must exist.")] = Path(),
    with_key: Annotated[
        bool, typer.Option("--pkcs10", help="Samba, or no certreq: make the private key and the request here.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Write request.inf for certreq on a Windows controller, whose key then never leaves it.

    With --pkcs10 a private key and a PKCS#10, made here: best on the controller itself. Nothing is ever overwritten.
    """
    with Report("ad", as_json=as_json) as report:
        names = request.all_names(controller, name or [])
        key, inf, csr_file = directory / f"{names[0]}.key", directory / "request.inf", directory / f"{names[0]}.csr"
        paths = [key, csr_file] if with_key else [inf]
        report["names"], report["files"], report["written"] = list(names), [str(path) for path in paths], False
        request.refuse_existing(paths)
        if not yes:
            if not with_key:
                report.say(request.request_inf(names).replace("\r\n", "\n"))
            shown = " and ".join(map(str, paths))
            report.progress(f"nothing was written: add --yes to write {shown} for {', '.join(names)}")
            return
        if with_key:
            private = request.new_key()
            request.write({key: request.key_pem(private), csr_file: request.pkcs10(names, private)}, private=key)
        else:
            request.write({inf: request.request_inf(names).encode("ascii")})
        report["written"] = True
        steps = _samba_steps(names[0], key, csr_file) if with_key else _windows_steps()
        report["next"] = steps
        report.say("\n".join([*(f"written: {path}" for path in paths), "", *steps]))


def _windows_steps() -> list[str]:
    return [
        "On the domain controller, as an administrator, in the directory of request.inf:",
        "  certreq -new request.inf request.csr",
        "Have request.csr signed:",
        '  by AD CS: certreq -submit -attrib "CertificateTemplate:WebServer" request.csr dc.cer',
        "  by another CA: take request.csr there; its CA certificates go into the computer's Trusted Root store",
        "  (certutil -addstore Root ca.cer)",
        "Back on the controller:",
        "  certreq -accept dc.cer",
        "LDAPS takes it at once, or after a restart of the controller. Then: passrelay ad check",
    ]


def _samba_steps(host: str, key: Path, csr_file: Path) -> list[str]:
    return [
        f"Have {csr_file.name} signed:",
        f"  by IdM: ipa host-add {host} --force; ipa service-add ldap/{host} --force;",
        f"          ipa cert-request {csr_file.name} --principal=ldap/{host} --certificate-out={host}.pem",
        "          (each further name needs a host entry of its own)",
        f'  by AD CS: certreq -submit -attrib "CertificateTemplate:WebServer" {csr_file.name} {host}.pem',
        "On the Samba controller, smb.conf [global] (the key owned by root, mode 0600, or Samba does not start TLS):",
        f"  tls keyfile = /var/lib/samba/private/tls/{key.name}",
        f"  tls certfile = /var/lib/samba/private/tls/{host}.pem",
        "  tls cafile = the CA's certificate",
        f"Move {key.name} there and keep no copy, restart samba, then: passrelay ad check",
    ]
