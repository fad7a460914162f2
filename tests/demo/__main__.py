"""The command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from passrelay_ops.report import Report
from tests.demo.show import Show
from tests.lab.lab import Lab


def main(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document as the last line of stdout.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the servers running until Enter is pressed.")] = False,
) -> None:
    """Show the main job on real servers; exit 0 only if every newest password binds and no older one does."""
    report = Report("demo", as_json=as_json)
    with report:
        report.progress("demo: starting RabbitMQ, 389 Directory Server and a Samba AD domain controller")
        with Lab() as lab:
            show = Show(lab, report, live=sys.stderr.isatty())
            services = show.start()
            show.play()
            show.judge(services)
            if keep:
                _wait(lab, report)
            lab.stop()
            show.search()


def _wait(lab: Lab, report: Report) -> None:
    assert lab.dc is not None
    ops, ca, dc = lab.relay.ops_config(), lab.ca.ca_file, lab.dc
    # By address: OpenLDAP takes "localhost" for the machine's own name when it checks the certificate.
    url = f"ldaps://127.0.0.1:{lab.directory.listening.ldaps}"
    report.progress(
        f"""demo: everything runs until you press Enter. In another terminal, for example:
  .venv/bin/passrelay status user01 --config {ops}
  .venv/bin/passrelay dead list --config {ops}
  .venv/bin/passrelay topology check --config {ops}
  GNUPGHOME={dc.gpg_home} samba-tool user setpassword user01 -s {dc.smb_conf}
  LDAPTLS_CACERT={ca} ldapwhoami -H {url} -x -W -D {lab.directory.user_dn("user01")}"""
    )
    sys.stdin.readline()


if __name__ == "__main__":
    typer.run(main)
