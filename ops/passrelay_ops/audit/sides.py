"""Both sides of a domain, connected; what did not answer is told at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from passrelay_ops.audit import comparison
from passrelay_ops.audit.comparison import Comparison
from passrelay_ops.audit.controllers import Controllers
from passrelay_ops.report import Report
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import ConfigurationError, UnavailableError
from passrelay_schemas.idm_settings import IdmSettings

_REPAIR = "nothing is proven there: start it or repair the way to it, then again"

_LIST = "who was renamed is not known: raise nsLookThroughLimit and nsSizeLimit of the service account, then again"


@contextmanager
def sides(report: Report, domain: DomainSettings, idm: IdmSettings) -> Iterator[Comparison]:
    """A comparison of this domain. A controller or IdM server that is silent is a failure with exit code 3."""
    if domain.ad is None:
        raise ConfigurationError(f"[[domain]] {domain.name}: [domain.ad] is missing")
    servers = comparison.servers(domain, idm)
    with Controllers(domain.ad) as ad, Comparison(ad, servers, comparison.rules(domain, idm)) as compared:
        report.servers["samba"] = ad.url
        report.servers["directory"] = report.servers["directory"] or ", ".join(idm.servers)
        yield compared
        for check, silent in (("ad", ad.silent), ("directory", compared.silent)):
            for url, why in silent.items():
                report.fail(check, url, f"{why}: {_REPAIR}", exit_code=UnavailableError.exit_code)
        for url, why in compared.unlisted.items():
            detail = f"its entries with a marker cannot be listed: {why}: {_LIST}"
            report.fail("directory", url, detail, exit_code=UnavailableError.exit_code)
