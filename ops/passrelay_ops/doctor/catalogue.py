"""Every check of `passrelay doctor`, as its runbook lists them (`python -m passrelay_ops.doctor.catalogue`)."""

from __future__ import annotations

import sys
from collections.abc import Mapping

CHECKS: Mapping[str, tuple[str, str]] = {
    "config.file": (
        "its role is known, it can be read, has no unknown key, and only its owner reads it if it may hold a password",
        "correct the key that is named (docs/configuration.md)",
    ),
    "config.broker": ("the files that [broker] names are there, fit together and have not expired", "as it says"),
    "config.keys": ("the key directory can be read, and holds the keys that the role needs", "`passrelay keys`"),
    "config.spool": ("the spool's directory is there and may be written", "make it, or `chown` it"),
    "config.source": ("Samba's socket and gpg_key_file are there", "start samba; export the key; run as root"),
    "config.idm": ("the files that [idm] names are there, and only their owner reads the password", "as it says"),
    "config.domain": ("what [[domain]] names is there", "as it says"),
    "broker.connect": ("the broker's port answers, with TLS and AMQP 0-9-1", "start it, or correct the way to it"),
    "broker.certificate": (
        "its certificate: signed by ca_file, for the name in url, good for 14 days and more",
        "the right ca_file, a name that stands in it, or a new certificate: the row says which",
    ),
    "broker.client": ("the broker accepts our certificate", "one of a CA that its ssl_options.cacertfile has"),
    "broker.login": ("the certificate's common name is a user who may use the vhost", "`rabbitmqctl add_user`"),
    "broker.version": ("RabbitMQ 3.10 or later", "install a newer one"),
    "broker.permissions": (
        "the user may do what its role needs, and no more",
        "the `rabbitmqctl set_permissions` command that the row shows",
    ),
    "broker.topology": ("every exchange and queue that the role uses is there", "`passrelay topology apply`"),
    "broker.limits": (
        "delivery limits, dead-lettering, sizes and ages are as they should be (operators only)",
        "empty and delete the queue, then `passrelay topology apply`",
    ),
    "broker.consumers": (
        "a consumer reads the work queue (operators only)",
        "`passrelay consumer run`, or its log: it unsubscribes while no IdM server is fit",
    ),
    "keys.expiry": ("no key in use has expired", "`passrelay keys rotate`"),
    "keys.signing": (
        "every listed producer has a signing key here that is believed, and signs with such a one",
        "`passrelay keys init producer NAME` there, `passrelay keys enroll` here",
    ),
    "keys.hook": (
        "where a producer on Windows speaks, the active hook key is enrolled (operators only)",
        "`passrelay keys enroll` its document; the consumers need its private file too",
    ),
    "windows.role": ("this is a writable Windows domain controller", "install on those"),
    "windows.ppl": (
        "LSASS may load the hook: RunAsPPL is off, or the DLL has Microsoft's signature",
        "have it signed by Microsoft, or take RunAsPPL away",
    ),
    "windows.listed": (
        "`Notification Packages` names the hook, and System32 has it",
        "`passrelay producer windows install --yes`",
    ),
    "windows.settings": (
        "the hook's registry key fits this producer and domain, its key is whole, and the hook says it seals to that",
        "the same, with `--hook-key FILE` when it is the key",
    ),
    "windows.registry": (
        "nobody but SYSTEM and Administrators can write the hook's registry key, and the service can read it",
        "`passrelay producer windows install --hook-key FILE --yes`",
    ),
    "windows.folder": (
        "nobody but SYSTEM and Administrators can put files into the hook's folder",
        "`passrelay producer windows install --yes`",
    ),
    "windows.loaded": ("LSASS has loaded the hook; the row says which", "restart the controller"),
    "windows.lost": (
        "the hook lost no change since the start, and needed no prepared file",
        "make room; have the passwords changed again",
    ),
    "windows.service": ("the service runs, under its own account, and starts with Windows", "as it says"),
    "windows.records": ("no record has waited in the folder for ten minutes", "producer.log says why"),
    "windows.quarantine": ("no record is in quarantine", "producer.log says why"),
    "windows.controller": (
        "look-ups reach this controller itself, and no other; `bind_user` logs in",
        "correct `[source.hook] controller`, or as it says",
    ),
    "producer.socket": ("Samba's private socket gives the rights of the system", "run as root on a running controller"),
    "producer.domain": ("the controller's domain stands in [[domain]]", "correct the name"),
    "producer.filter": (
        "the groups and OUs of [filter] exist and leave somebody",
        "correct the name, widen the filter",
    ),
    "producer.cleartext": (
        "smb.conf sets `password hash gpg key ids`, as testparm reads it",
        "set it on every controller and restart samba; passwords changed before must be changed again",
    ),
    "producer.gpg_key": (
        "gpg_key_file opens, has not expired, and is the key that smb.conf names",
        "export that secret key again",
    ),
    "producer.proof": (
        "the password that was changed last can be read, and is that password (NT hash)",
        "a controller without the key made the change: set it up there too",
    ),
    "producer.spool": ("the spool opens and has room for 100 MB", "free space, raise [spool] max_bytes"),
    "producer.initialised": ("it was said where capturing begins", "`passrelay producer init --from now|all`"),
    "producer.running": ("a producer runs on this spool (Samba)", "`passrelay producer run`"),
    "producer.published": ("nothing has waited for the broker for ten minutes", "the producer's log says why"),
    "producer.alive": (
        "its news, signed by an enrolled key, are younger than five minutes (operators only)",
        "start it, or look at its way to the broker",
    ),
    "producer.one_key": ("all Samba producers of a domain have one OpenPGP key", "one key on every controller"),
    "idm.connect": ("there is an [idm], and the server's port answers", "start or reach it"),
    "idm.certificate": (
        "its certificate: signed by ca_file, for the name in servers, in its time",
        "`passrelay idm ca`, a name that stands in it, or a new certificate: the row says which",
    ),
    "idm.bind": ("who looks may log in: --bind-dn, or the service account", "the password that is named"),
    "idm.schema": ("the attributes for marker and proof are there, single-valued", "`passrelay idm setup --yes`"),
    "idm.account": (
        "the service account is there",
        "correct [idm] bind_dn if the rules are for another, else `passrelay idm setup --yes`",
    ),
    "idm.probe": ("the disabled probe entry is there", "`passrelay idm setup --yes`"),
    "idm.access": ("the access rules are there and as they should be", "`passrelay idm setup --yes`"),
    "idm.managers": (
        "passSyncManagersDNs of this server has the service account, in a spelling that counts",
        "`passrelay idm managers add --yes`",
    ),
    "idm.login": (
        "the service account logs in with password_file",
        "a new password (docs/runbooks/idm-setup.md); a locked account: unlock it",
    ),
    "idm.write": (
        "a password set on the probe, as consumers do every minute, is taken and holds",
        "what the server says: read-only, a full disk, a plugin",
    ),
    "idm.clock": ("the server's clock is within a minute of this host's", "set the clock that is wrong"),
    "idm.unhashed": (
        "nsslapd-unhashed-pw-switch is nolog or off, or the changelog keeps passwords in clear text",
        "`dsconf INSTANCE config replace nsslapd-unhashed-pw-switch=nolog`, then remove the old changelog",
    ),
    "idm.replication": ("every replication agreement works", "`ipa-replica-manage list -v`, `dsconf repl-agmt`"),
    "ad.connect": ("there is a [domain.ad], and the controller answers TLS", "start or reach it"),
    "ad.certificate": ("its certificate is trusted, for its name, in its time", "docs/runbooks/ad-setup.md"),
    "ad.bind": ("the account of [domain.ad] logs in", "the account, or its password_file"),
    "ad.sid": ("it is the domain of [[domain]], by name and SID", "correct name and sid, on consumers too"),
    "ad.groups": ("[domain.ad]'s account sees who is an administrator", "Pre-Windows 2000 Compatible Access"),
    "ad.clock": ("the controller's clock is within a minute of this host's", "set the clock that is wrong"),
    "ad.complexity": ("passwords must meet complexity requirements", "Default Domain Policy, or `samba-tool`"),
    "ad.producers": ("every writable controller has a producer that lives", "a producer there"),
}
"""By check: what is good, and the repair when it is not."""


def table() -> str:
    """The checks as a Markdown table."""
    lines = ["| check | good when | repair |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| `{check}` | {good} | {repair} |" for check, (good, repair) in CHECKS.items())])


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
