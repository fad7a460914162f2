"""`passrelay idm ca`: fetch IdM's CA, show its fingerprint, and pin it once somebody has compared that."""

from __future__ import annotations

from typing import Annotated

import typer

from passrelay_consumer.result_codes import DirectoryError
from passrelay_ops.commands.idm_setup import settings_of
from passrelay_ops.idm.certificate import Authority, fetch, fingerprint, pin, pinned
from passrelay_ops.idm.site import Site
from passrelay_ops.options import AsJson, OpsConfig, Yes, default_path
from passrelay_ops.report import Report
from passrelay_schemas.errors import ConfigurationError, SafetyError, UnavailableError
from passrelay_schemas.filetime import rfc3339
from passrelay_schemas.idm_settings import IdmSettings

_CONFIG = default_path("ops")
_COMPARE = "openssl x509 -in /etc/ipa/ca.crt -noout -fingerprint -sha256"


def ca(
    compared: Annotated[
        str | None,
        typer.Option("--fingerprint", metavar="SHA256", help="With --yes: pin this very certificate, and no other."),
    ] = None,
    config: OpsConfig = _CONFIG,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Fetch IdM's CA from each server and show its fingerprint; with --yes write it to [idm] ca_file.

    It is fetched without a login, from whoever answers: compare the fingerprint on an IdM server first.
    """
    with Report("idm", as_json=as_json) as report:
        idm, domains = settings_of(config)
        authorities = _fetched(report, idm, Site.of(idm, domains).suffix)
        report["authorities"] = [_document(authority) for authority in authorities]
        if not authorities:
            return
        for authority in authorities:
            report.say(_words(authority))
            if authority.fault:
                report.fail("idm.ca", authority.server, authority.fault)
        if len({authority.pem for authority in authorities}) > 1:
            raise SafetyError("the servers show different CAs: nothing can be pinned until that is explained")
        _pin(report, idm, authorities[0], compared, yes=yes and not any(one.fault for one in authorities))


def _fetched(report: Report, idm: IdmSettings, suffix: str) -> list[Authority]:
    found = []
    for url in idm.servers:
        try:
            found.append(fetch(url, idm, suffix))
        except DirectoryError as error:
            report.fail("idm.ca", url, f"{error}: start or reach {url}", exit_code=UnavailableError.exit_code)
        except ConfigurationError as error:
            report.fail("idm.ca", "", str(error), exit_code=error.exit_code)
    return found


def _pin(report: Report, idm: IdmSettings, authority: Authority, compared: str | None, *, yes: bool) -> None:
    report["ca_file"], report["written"] = str(idm.ca_file), False
    if yes:
        written = report["written"] = pin(idm.ca_file, authority, compared)
        report.progress(f"{idm.ca_file}: {'written' if written else 'holds it already'}")
        return
    known = idm.ca_file.exists() and {fingerprint(one) for one in authority.certificates} <= pinned(idm.ca_file)
    if known:
        report.progress(f"{idm.ca_file}: holds it already")
    else:
        shown = fingerprint(authority.certificates[0])
        report.progress(f"nothing was written. On an IdM server run: {_COMPARE}")
        report.progress(f"if that is the same: passrelay idm ca --yes --fingerprint {shown}")


def _words(authority: Authority) -> str:
    lines = [f"{authority.server} shows"]
    for certificate in authority.certificates:
        lines += [
            f"  subject      {certificate.subject.rfc4514_string()}",
            f"  issuer       {certificate.issuer.rfc4514_string()}",
            f"  valid        {rfc3339(certificate.not_valid_before_utc)} to {rfc3339(certificate.not_valid_after_utc)}",
            f"  SHA-256      {fingerprint(certificate)}",
        ]
    return "\n".join(lines)


def _document(authority: Authority) -> dict[str, object]:
    return {
        "server": authority.server,
        "fault": authority.fault,
        "certificates": [
            {
                "subject": certificate.subject.rfc4514_string(),
                "issuer": certificate.issuer.rfc4514_string(),
                "not_after": rfc3339(certificate.not_valid_after_utc),
                "sha256": fingerprint(certificate),
            }
            for certificate in authority.certificates
        ],
    }
