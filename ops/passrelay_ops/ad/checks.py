"""One AD domain as checks, each decided from what its controllers showed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from passrelay_ops.ad import producers
from passrelay_ops.ad.presented import Distrust, Presented
from passrelay_ops.ad.view import Shown, View
from passrelay_ops.check import Result, Row
from passrelay_ops.news import Heard
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.filetime import rfc3339

CLOCK_SECONDS = 60
"""How far a controller's clock may be from ours: what docs/adr/0010-clocks.md takes for a clock that is off."""
RENEW = timedelta(days=30)
"""A certificate that ends sooner is said to need renewal; it fails only when it is over."""
_CSR = "`passrelay ad csr`"
_BAD_LOGIN = 49
_AD_REASON = re.compile(r"\bdata ([0-9a-f]{3})\b")
_REASONS = {
    "525": "there is no such user",
    "52e": "wrong password, or no such user",
    "530": "not allowed to log in at this time",
    "531": "not allowed to log in at this host",
    "532": "the password has expired",
    "533": "the account is disabled",
    "701": "the account has expired",
    "773": "the password must be changed first",
    "775": "the account is locked",
}
"""What AD puts behind "data" in its diagnostic message: Win32 error codes ([MS-ERREF] 2.2), in hexadecimal."""


def rows(domain: DomainSettings, views: Sequence[View], heard: Heard | str, now: datetime) -> list[Row]:
    """Every check of one domain with [domain.ad]: of each server, then of the domain by the first readable server.

    `heard`: the producers' news, or why they cannot be read; `now` is our time.
    """
    readable = [view.shown for view in views if view.shown is not None]
    # A server of another domain says nothing about this one.
    known = next((shown for shown in readable if _same_name(shown, domain)), None)
    why = "no server of [domain.ad] is one of this domain" if readable else "no server of [domain.ad] can be read"
    return [
        *(row for view in views for row in _server(domain, view)),
        _complexity(domain, known) if known else Row("ad.complexity", domain.name, Result.UNKNOWN, why),
        *(_producers(domain, known, heard, now) if known else [Row("ad.producers", domain.name, Result.UNKNOWN, why)]),
    ]


def _server(domain: DomainSettings, view: View) -> Iterator[Row]:
    yield _connect(view)
    yield _certificate(view)
    yield _bind(view)
    if view.shown is None:
        yield from (
            _unknown(view, check, "the server could not be read") for check in ("ad.clock", "ad.sid", "ad.groups")
        )
    else:
        yield _clock(view, view.shown)
        yield _sid(domain, view, view.shown)
        yield _groups(view, view.shown)


def _unknown(view: View, check: str, why: str) -> Row:
    return Row(check, view.server, Result.UNKNOWN, why)


def _connect(view: View) -> Row:
    if not view.connect_fault:
        return Row("ad.connect", view.server, Result.OK, "TLS is answered")
    repair = f"start or reach {view.server}; a Windows controller without a certificate ends every TLS: {_CSR}"
    return Row("ad.connect", view.server, Result.FAIL, view.connect_fault, repair)


def _certificate(view: View) -> Row:
    shown = view.certificate
    if shown is None:
        return _unknown(view, "ad.certificate", "there is no connection")
    if shown.distrust is not None:
        detail, repair = _distrusted(shown, shown.distrust)
        return Row("ad.certificate", view.server, Result.FAIL, detail, repair)
    detail = f"trusted, for {', '.join(shown.names)}, until {rfc3339(shown.not_after)}"
    if shown.not_after - view.looked_at < RENEW:
        days = (shown.not_after - view.looked_at).days
        return Row("ad.certificate", view.server, Result.OK, f"{detail}: {days} days are left: renew it: {_CSR}")
    return Row("ad.certificate", view.server, Result.OK, detail)


def _distrusted(shown: Presented, distrust: Distrust) -> tuple[str, str]:
    """Detail and repair of a certificate that was refused."""
    until = f"valid until {rfc3339(shown.not_after)}"
    names = ", ".join(shown.names) or "no name at all (subjectAltName)"
    issued = f"{shown.subject}, issued by {shown.issuer}, {until}"
    match distrust:
        case Distrust.CA_FILE:
            return f"[domain.ad] ca_file {shown.refused}", f"write the CA there that issued it: {shown.issuer}"
        case Distrust.EXPIRED:
            return f"it or its CA's has expired: {issued}", f"renew it ({_CSR}), or set our clock if that is wrong"
        case Distrust.EARLY:
            return f"not valid yet: {issued}", "set the clock that is wrong"
        case Distrust.NAME:
            repair = f"write the controller in [domain.ad] servers by such a name, or issue it for this one: {_CSR}"
            return f"it is for {names}, {until}", repair
        case Distrust.CHAIN:
            repair = "[domain.ad] ca_file must hold the CA that issued it, and those above it"
            return f"not issued by the CA in ca_file: {issued}", repair


def _bind(view: View) -> Row:
    if view.shown is not None:
        return Row("ad.bind", view.server, Result.OK, f"as {view.bind_user}")
    if view.connect_fault:
        return _unknown(view, "ad.bind", "there is no connection")
    if not view.bind_fault:
        return _unknown(view, "ad.bind", "no password is sent where the certificate is not trusted")
    reason = _AD_REASON.search(view.bind_fault)
    meaning = _REASONS.get(reason[1]) if reason else None
    if view.bind_code == _BAD_LOGIN:
        detail = f"{view.bind_user}: {meaning}" if meaning else view.bind_fault
        return Row(
            "ad.bind",
            view.server,
            Result.FAIL,
            detail,
            "repair the account, or [domain.ad] bind_user and password_file",
        )
    repair = "repair [domain.ad] password_file" if view.bind_code is None else "repair what the server says"
    return Row("ad.bind", view.server, Result.FAIL, view.bind_fault, f"{repair}, then run it again")


def _clock(view: View, shown: Shown) -> Row:
    if shown.clock is None:
        return _unknown(view, "ad.clock", "the server does not tell its time (currentTime)")
    ahead = (shown.clock - view.looked_at).total_seconds()
    detail = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} ours"
    if abs(ahead) <= CLOCK_SECONDS:
        return Row("ad.clock", view.server, Result.OK, detail)
    repair = "let both hosts keep time from the same source (`w32tm /resync` on Windows, `chronyc makestep`)"
    return Row("ad.clock", view.server, Result.FAIL, detail, repair)


def _same_name(shown: Shown, domain: DomainSettings) -> bool:
    return shown.domain == domain.name.lower()


def _sid(domain: DomainSettings, view: View, shown: Shown) -> Row:
    check = "ad.sid"
    if not _same_name(shown, domain):
        detail = f"a controller of {shown.domain or 'no domain'}, not of {domain.name}"
        repair = f"write [[domain]] name as AD has it, or a controller of {domain.name} in [domain.ad] servers"
        return Row(check, view.server, Result.FAIL, detail, repair)
    if domain.sid is None:
        return Row(check, view.server, Result.OK, f"{shown.domain}; [[domain]] has no sid to compare")
    if shown.sid is None:
        return _unknown(view, check, f"{view.bind_user} does not see objectSid of the domain")
    if shown.sid != domain.sid:
        detail = f"{domain.name} is {shown.sid} in AD, {domain.sid} in [[domain]] sid: every event would be refused"
        repair = f'sid = "{shown.sid}" in [[domain]] of ops.toml and of every consumer.toml'
        return Row(check, view.server, Result.FAIL, detail, repair)
    return Row(check, view.server, Result.OK, f"{shown.domain}, {shown.sid}")


def _groups(view: View, shown: Shown) -> Row:
    check = "ad.groups"
    if shown.groups is None:
        return _unknown(view, check, f"{view.bind_user} does not see the account Guest, by which it is tried")
    if shown.groups:
        return Row(check, view.server, Result.OK, f"{view.bind_user} sees which groups accounts are in (tokenGroups)")
    detail = f"{view.bind_user} does not see tokenGroups: `audit` cannot tell who is an administrator"
    repair = "put the account into the group Pre-Windows 2000 Compatible Access; a global catalog must be there"
    return Row(check, view.server, Result.FAIL, detail, repair)


def _complexity(domain: DomainSettings, shown: Shown) -> Row:
    check = "ad.complexity"
    if shown.complexity is None:
        return Row(check, domain.name, Result.UNKNOWN, "this account does not see pwdProperties of the domain")
    if shown.complexity:
        return Row(check, domain.name, Result.OK, "passwords must meet complexity requirements")
    return Row(
        check,
        domain.name,
        Result.FAIL,
        "passwords need not meet complexity requirements: IdM takes from passrelay whatever AD has accepted",
        "Samba: `samba-tool domain passwordsettings set --complexity=on`; Windows: the Default Domain Policy's "
        '"Password must meet complexity requirements"',
    )


def _producers(domain: DomainSettings, shown: Shown, heard: Heard | str, now: datetime) -> list[Row]:
    found = [producers.row(member, heard, now) for member in shown.members]
    return found or [
        Row("ad.producers", domain.name, Result.UNKNOWN, "this account does not see the controllers below CN=Sites")
    ]
