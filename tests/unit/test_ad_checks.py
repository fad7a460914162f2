"""What `passrelay ad check` decides from what controllers showed, without any server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from passrelay_ops.ad.checks import rows
from passrelay_ops.ad.controller import Attributes, Controller
from passrelay_ops.ad.presented import Distrust, Presented, kind
from passrelay_ops.ad.view import Member, Shown, View, dns_name, generalized_time, members
from passrelay_ops.check import Result, Row
from passrelay_ops.commands.ad import exit_code
from passrelay_ops.news import Heard, Unbelieved
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import ConfigurationError, UnavailableError
from passrelay_schemas.news import News
from passrelay_schemas.verdict import Reason

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SID = "S-1-5-21-1-2-3"
URL = "ldaps://dc1.ad.example"
DOMAIN = DomainSettings(name="ad.example", sid=SID)
SHOWN = Shown(
    host="dc1.ad.example",
    domain="ad.example",
    sid=SID,
    complexity=True,
    clock=NOW,
    members=(Member("dc1.ad.example", read_only=False), Member("branch.ad.example", read_only=True)),
    groups=True,
)
CERTIFICATE = Presented("CN=dc1", "CN=CA", ("dc1.ad.example",), NOW + timedelta(days=400))
GOOD = View(URL, "reader@ad.example", NOW, certificate=CERTIFICATE, shown=SHOWN)
AWAY = View(URL, "reader@ad.example", NOW, connect_fault="refused")


def news(producer: str = "dc1", controller: str | None = "dc1.ad.example", age: float = 30, **more: Any) -> News:
    sent_at = NOW - timedelta(seconds=age)
    fields = {"signing_key_id": f"signing-{producer}", "producer": producer, "source": "samba", "version": "1"}
    times = {"sent_at": sent_at, "started_at": sent_at}
    return News.model_validate(fields | times | {"controller": controller} | more)


def heard(*all_news: News, unbelieved: Sequence[Unbelieved] = ()) -> Heard:
    return Heard({one.producer: one for one in all_news}, unbelieved)


ALIVE = heard(news())


def looked(*views: View, domain: DomainSettings = DOMAIN, heard: Heard | str = ALIVE) -> list[Row]:
    return rows(domain, views or (GOOD,), heard, NOW)


def showing(**changes: Any) -> View:
    return replace(GOOD, shown=replace(SHOWN, **changes))


def not_good(found: Sequence[Row]) -> dict[str, Result]:
    return {row.id: row.result for row in found if row.result is not Result.OK}


def one(found: Sequence[Row], check: str, subject: str = "") -> Row:
    [row] = [row for row in found if row.id == check and subject in row.subject]
    return row


def test_all_good() -> None:
    found = looked()
    assert not_good(found) == {}
    assert "needs none" in one(found, "ad.producers", "branch").detail


# --- the server


def test_nothing_is_known_of_a_server_that_is_away() -> None:
    found = looked(AWAY)
    assert one(found, "ad.connect").result is Result.FAIL
    assert {row.result for row in found if row.id != "ad.connect"} == {Result.UNKNOWN}


def test_a_connection_that_ends_before_the_answer_is_no_fault_of_certificate_or_password() -> None:
    found = looked(replace(GOOD, shown=None, connect_fault="connection reset"))
    assert {row.id for row in found if row.result is Result.FAIL} == {"ad.connect"}
    assert one(found, "ad.certificate").result is Result.OK
    assert one(found, "ad.bind").result is Result.UNKNOWN


@pytest.mark.parametrize(
    ("distrust", "detail", "repair"),
    [
        (Distrust.CA_FILE, "ca_file holds no PEM certificate", "CN=CA"),
        (Distrust.EXPIRED, "expired", "passrelay ad csr"),
        (Distrust.EARLY, "not valid yet", "clock"),
        (Distrust.NAME, "it is for dc1.ad.example", "[domain.ad] servers"),
        (Distrust.CHAIN, "issued by CN=CA", "ca_file must hold the CA"),
    ],
)
def test_each_way_to_distrust_a_certificate_has_its_repair(distrust: Distrust, detail: str, repair: str) -> None:
    certificate = replace(CERTIFICATE, distrust=distrust, refused="holds no PEM certificate")
    found = looked(replace(GOOD, certificate=certificate, shown=None))
    row = one(found, "ad.certificate")
    assert row.result is Result.FAIL
    assert detail in row.detail
    assert repair in row.repair
    assert one(found, "ad.connect").result is Result.OK
    assert one(found, "ad.bind").result is Result.UNKNOWN
    assert "no password is sent" in one(found, "ad.bind").detail


@pytest.mark.parametrize(("days", "said"), [(400, False), (31, False), (29, True), (0.5, True)])
def test_a_certificate_that_soon_ends_is_good_and_said(days: float, said: bool) -> None:
    found = looked(replace(GOOD, certificate=replace(CERTIFICATE, not_after=NOW + timedelta(days=days))))
    row = one(found, "ad.certificate")
    assert row.result is Result.OK
    assert ("renew it" in row.detail) is said
    assert f"{NOW + timedelta(days=days):%Y-%m-%d}" in row.detail


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired", Distrust.EXPIRED),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate is not yet valid", Distrust.EARLY),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] Hostname mismatch, certificate is not valid for 'a'", Distrust.NAME),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] IP address mismatch, certificate is not valid for '::1'", Distrust.NAME),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] unable to get local issuer certificate", Distrust.CHAIN),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate in certificate chain", Distrust.CHAIN),
        ("[SSL: TLSV1_ALERT_PROTOCOL_VERSION] it has expired", None),
        ("connection refused", None),
    ],
)
def test_what_openssl_says_of_a_certificate(words: str, expected: Distrust | None) -> None:
    assert kind(words) is expected


@pytest.mark.parametrize(
    ("code", "fault", "detail"),
    [
        (49, "LDAP result 49: bind as x: 80090308: AcceptSecurityContext error, data 52e, v1db1", "wrong password"),
        (49, "LDAP result 49: bind as x: 80090308: AcceptSecurityContext error, data 775, v1db1", "locked"),
        (49, "LDAP result 49: bind as x: 80090308: AcceptSecurityContext error, data 533, v1db1", "disabled"),
        (49, "LDAP result 49: invalidCredentials", "invalidCredentials"),
        (None, "[domain.ad] password_file /x: cannot be read", "/x: cannot be read"),
        (1, "LDAP result 1: operations error", "operations error"),
    ],
)
def test_a_login_that_is_refused_says_why(code: int | None, fault: str, detail: str) -> None:
    found = looked(replace(GOOD, shown=None, bind_fault=fault, bind_code=code))
    row = one(found, "ad.bind")
    assert (row.result, row.repair != "") == (Result.FAIL, True)
    assert detail in row.detail
    assert {one(found, check).result for check in ("ad.connect", "ad.certificate")} == {Result.OK}
    assert {row.result for row in found[3:]} == {Result.UNKNOWN}


@pytest.mark.parametrize(("ahead", "result"), [(0, "ok"), (60, "ok"), (-60, "ok"), (61, "fail"), (-3600, "fail")])
def test_a_clock_may_be_a_minute_off(ahead: int, result: str) -> None:
    found = looked(showing(clock=NOW + timedelta(seconds=ahead)))
    assert one(found, "ad.clock").result == result
    assert set(not_good(found)) <= {"ad.clock"}
    assert ("ahead of" in one(found, "ad.clock").detail) is (ahead > 0)


def test_what_the_account_may_not_see_is_unknown() -> None:
    found = looked(showing(clock=None, sid=None, complexity=None, members=(), groups=None))
    unknown = ("ad.clock", "ad.sid", "ad.groups", "ad.complexity", "ad.producers")
    assert not_good(found) == dict.fromkeys(unknown, Result.UNKNOWN)


def test_an_account_that_cannot_tell_administrators_is_told_the_group_that_can() -> None:
    found = looked(showing(groups=False))
    assert not_good(found) == {"ad.groups": Result.FAIL}
    assert "Pre-Windows 2000 Compatible Access" in one(found, "ad.groups").repair


# --- the domain


def test_another_sid_fails_alone_and_another_domain_makes_the_rest_unknown() -> None:
    found = looked(showing(sid="S-1-5-21-9-9-9"))
    assert not_good(found) == {"ad.sid": Result.FAIL}
    assert 'sid = "S-1-5-21-9-9-9"' in one(found, "ad.sid").repair
    found = looked(showing(domain="other.example"))
    assert not_good(found) == {
        "ad.sid": Result.FAIL,
        "ad.complexity": Result.UNKNOWN,
        "ad.producers": Result.UNKNOWN,
    }


def test_a_domain_that_is_ordered_by_time_needs_no_sid() -> None:
    domain = DomainSettings.model_validate({"name": "AD.example", "order": "time"})
    assert not_good(looked(domain=domain)) == {}


def test_the_domain_is_read_at_the_first_server_that_is_one_of_it() -> None:
    found = looked(AWAY, showing(domain="other.example"), showing(complexity=False))
    assert one(found, "ad.complexity").result is Result.FAIL
    assert "samba-tool domain passwordsettings set --complexity=on" in one(found, "ad.complexity").repair


# --- producers


def test_a_producer_speaks_for_the_controller_that_its_news_name() -> None:
    here = "dc1.ad.example"
    assert one(looked(heard=heard(news(controller=here))), "ad.producers", here).result is Result.OK
    two = heard(news("old", age=4000), news("new"))
    assert one(looked(heard=two), "ad.producers", here).result is Result.OK
    silent = one(looked(heard=heard(news(age=301))), "ad.producers", here)
    assert silent.result is Result.FAIL
    assert "silent: producer dc1" in silent.detail
    stopped = one(looked(heard=heard(news(stopping=True))), "ad.producers", here)
    assert (stopped.result, "stopped" in stopped.detail) == (Result.FAIL, True)
    for others in (heard(), heard(news(controller=None)), heard(news(controller="dc2.ad.example"))):
        none = one(looked(heard=others), "ad.producers", here)
        assert none.result is Result.FAIL
        assert "no producer" in none.detail


def test_news_that_cannot_be_believed_here_are_said() -> None:
    unbelieved = [
        Unbelieved(1, Reason.UNTRUSTED, "why", "dc1", "sig-x"),
        Unbelieved(2, Reason.MALFORMED, "", None, None),
    ]
    row = one(looked(heard=heard(unbelieved=unbelieved)), "ad.producers", "dc1")
    assert "news of dc1 do not count" in row.detail
    assert "passrelay keys enroll" in row.repair


def test_without_news_only_read_only_controllers_are_decided() -> None:
    found = looked(heard="broker: refused")
    assert not_good(found) == {"ad.producers": Result.UNKNOWN}
    assert "broker: refused" in one(found, "ad.producers", "dc1").detail


# --- exit codes


def test_exit_codes() -> None:
    away, refused = UnavailableError("broker"), ConfigurationError("broker")
    assert exit_code(looked(), None) == 0
    assert exit_code(looked(AWAY), None) == 3
    assert exit_code(looked(AWAY, heard="away"), away) == 3
    assert exit_code(looked(heard="away"), away) == 3
    assert exit_code(looked(heard="refused"), refused) == 2
    assert exit_code(looked(showing(complexity=False), heard="away"), away) == 1
    assert exit_code(looked(AWAY, showing(complexity=False)), None) == 1
    assert exit_code(looked(showing(complexity=None)), None) == 1


# --- reading


def test_names_and_times_as_ad_writes_them() -> None:
    assert dns_name("DC=AD,DC=example") == "ad.example"
    assert dns_name("") == ""
    assert generalized_time("20261125120000.0Z") == NOW
    assert generalized_time("") is None


class Forest:
    """CN=Sites of a forest with two domains, as search results."""

    def __init__(self, servers: Sequence[tuple[str, str, dict[str, Any]]]) -> None:
        self._servers = servers

    def search(self, base: str, search_filter: str, attributes: Sequence[str]) -> Iterator[tuple[str, Attributes]]:
        assert base == "CN=Sites,CN=Configuration,DC=ad,DC=example"
        for name, host, settings in self._servers:
            server = f"CN={name},CN=Servers,CN=Berlin,{base}"
            yield server, {"objectclass": (b"top", b"server"), **({"dnshostname": (host.encode(),)} if host else {})}
            if settings:
                yield (
                    f"CN=NTDS Settings,{server}",
                    {"objectclass": (b"top", b"applicationSettings", b"nTDSDSA"), **settings},
                )


def test_the_controllers_of_a_domain_are_found_in_a_forest() -> None:
    here = {"msds-hasdomainncs": (b"DC=AD,DC=example",)}
    windows_rodc = {"objectclass": (b"top", b"applicationSettings", b"nTDSDSA", b"nTDSDSARO")}
    samba_rodc = {"objectcategory": (b"CN=NTDS-DSA-RO,CN=Schema,CN=Configuration,DC=ad,DC=example",)}
    forest = Forest(
        [
            ("DC1", "dc1.ad.example", here),
            ("DC2", "dc2.ad.example", {"hasmasterncs": (b"DC=ad,DC=example", b"CN=Configuration,DC=ad,DC=example")}),
            ("DC3", "", here),
            ("RO1", "ro1.ad.example", {**here, **windows_rodc}),
            ("RO2", "ro2.ad.example", {**here, **samba_rodc}),
            ("SUB", "dc1.sub.ad.example", {"msds-hasdomainncs": (b"DC=sub,DC=ad,DC=example",)}),
            ("GONE", "gone.ad.example", {}),
        ]
    )
    found = members(cast("Controller", forest), "CN=Configuration,DC=ad,DC=example", "DC=ad,DC=example")
    assert {member.host: member.read_only for member in found} == {
        "dc1.ad.example": False,
        "dc2.ad.example": False,
        "DC3": False,
        "ro1.ad.example": True,
        "ro2.ad.example": True,
    }
