"""Settings: a slip in a file is named with its repair, clear text stays on loopback, no error shows a credential."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from passrelay_schemas.broker_settings import BrokerSettings
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.filter_settings import FilterSettings
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.order import Order
from passrelay_schemas.process_settings import MetricsSettings
from passrelay_schemas.secret import Secret
from passrelay_schemas.setting_values import is_loopback
from passrelay_schemas.settings import ROLES, ConsumerSettings, OpsSettings, ProducerSettings, RoleSettings
from passrelay_schemas.settings_file import load
from tests.lab.folder import CANARY

PRODUCER = """
[broker]
url = "amqps://broker.example/passrelay"
ca_file = "/etc/passrelay/ca.pem"
certificate_file = "/etc/passrelay/dc1.pem"
key_file = "/etc/passrelay/dc1.key"
[spool]
retention_hours = 48
[source.samba]
[[domain]]
name = "LAB.Example"
sid = "S-1-5-21-1-2-3"
"""
CONSUMER = """
[broker]
url = "amqp://127.0.0.1:5672/passrelay"
[idm]
servers = ["ldaps://idm1.example:636", "ldap://idm2.example"]
ca_file = "/etc/ipa/ca.crt"
bind_dn = "uid=passrelay,cn=sysaccounts,cn=etc,dc=idm,dc=test"
password_file = "/etc/passrelay/idm.password"
[[domain]]
name = "lab.example"
sid = "S-1-5-21-1-2-3"
producers = ["dc1"]
search_base = "cn=users,cn=accounts,dc=idm,dc=test"
"""
OPS = '[broker]\nurl = "amqp://localhost/passrelay"\n'


def producer(tmp_path: Path, text: str = PRODUCER) -> ProducerSettings:
    path = tmp_path / "producer.toml"
    path.write_text(text, encoding="utf-8")
    return load(ProducerSettings, path)


def consumer(tmp_path: Path, text: str = CONSUMER) -> ConsumerSettings:
    path = tmp_path / "consumer.toml"
    path.write_text(text, encoding="utf-8")
    return load(ConsumerSettings, path)


def broker(url: str, **files: Any) -> BrokerSettings:
    return BrokerSettings(url=Secret(url), **({"ca_file": "/ca.pem"} | files))


def idm(**fields: Any) -> IdmSettings:
    return IdmSettings(
        **({"servers": ["ldaps://a"], "ca_file": "/ca", "bind_dn": "uid=p,cn=x", "password_file": "/p"} | fields)
    )


# -- filters -----------------------------------------------------------------------------------------------------------


def filtered(tmp_path: Path, text: str, source: str = "[source.samba]") -> FilterSettings:
    document = PRODUCER.replace("[source.samba]", source)
    if "stdin" in source:
        document = document.replace('sid = "S-1-5-21-1-2-3"', 'order = "time"')
    return producer(tmp_path, f"{document}\n[filter]\n{text}\n").filter


def test_filters_take_names_dns_sids_and_patterns(tmp_path: Path) -> None:
    found = filtered(
        tmp_path,
        'include_groups = ["Night Shift", "CN=staff,CN=Users,DC=lab,DC=example", "S-1-5-21-1-2-3-513"]\n'
        'exclude_ous = ["ou=Sales\\\\, EU, dc=lab, dc=example", "CN=Users,DC=lab,DC=example"]\n'
        'exclude_patterns = ["svc-*", "?dmin", "*-test*"]',
    )
    assert len(found.include_groups) == 3
    assert found.exclude_ous[0] == "ou=Sales\\, EU, dc=lab, dc=example"
    assert found.exclude_patterns == ("svc-*", "?dmin", "*-test*")
    assert filtered(tmp_path, "") == FilterSettings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('exclude_patterns = ["*"]', "filter.exclude_patterns.0: '*' names nobody or everybody"),
        ('exclude_patterns = ["svc-*", "??*"]', "filter.exclude_patterns.1: '??*' names nobody or everybody"),
        ('exclude_patterns = [""]', "filter.exclude_patterns.0: '' names nobody or everybody"),
        ('exclude_patterns = "svc-*"', "filter.exclude_patterns: "),
        ('include_groups = [" "]', "filter.include_groups.0: an empty text names no group: remove it"),
        ('include_ous = ["People"]', "filter.include_ous.0: 'People' must be the DN of an OU or container, like OU="),
        ('exclude_ous = ["DC=lab,DC=example"]', "filter.exclude_ous.0: 'DC=lab,DC=example' must be the DN of an OU"),
        (
            'include_groups = ["Staff"]\nexclude_groups = ["x", "staff"]',
            "'Staff' stands in include_groups and in exclude_groups: remove one of them",
        ),
        (
            'include_ous = ["OU=A,OU=B,DC=x"]\nexclude_ous = ["ou=b,dc=x"]',
            "include_ous 'OU=A,OU=B,DC=x' is within exclude_ous 'ou=b,dc=x': remove one of them",
        ),
        ('exclude_group = ["x"]', "filter.exclude_group: unknown key: did you mean exclude_groups?"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        filtered(tmp_path, text)
    assert message in str(caught.value)


def test_an_ou_may_be_excluded_within_an_included_one(tmp_path: Path) -> None:
    assert filtered(tmp_path, 'include_ous = ["OU=B,DC=x"]\nexclude_ous = ["OU=A,OU=B,DC=x"]').exclude_ous


@pytest.mark.parametrize("key", ["include_groups", "exclude_groups", "include_ous", "exclude_ous"])
def test_standard_input_knows_no_groups_and_ous(tmp_path: Path, key: str) -> None:
    assert filtered(tmp_path, 'exclude_patterns = ["svc-*"]', "[source.stdin]").exclude_patterns == ("svc-*",)
    with pytest.raises(ConfigurationError, match=rf"takes exclude_patterns only with \[source.stdin\].*{key}"):
        filtered(tmp_path, f'{key} = ["OU=x,DC=y"]', "[source.stdin]")


def test_admins_are_always_protected() -> None:
    assert idm().protected_groups == ("admins",)
    assert idm(protected_groups=["Admins", "hr"]).protected_groups == ("Admins", "hr")
    with pytest.raises(ValidationError, match='"admins" must stay in the list'):
        idm(protected_groups=["hr"])
    with pytest.raises(ValidationError, match=r"must be the group's name \(cn\) alone"):
        idm(protected_groups=["admins", "cn=hr,cn=groups,cn=accounts,dc=idm"])


# -- files and defaults ------------------------------------------------------------------------------------------------


def test_the_documented_files_load(tmp_path: Path) -> None:
    one = producer(tmp_path)
    assert one.spool.retention_hours == 48
    assert one.spool.path == Path("/var/lib/passrelay/spool.sqlite")
    assert one.keys.directory == Path("/etc/passrelay/keys")
    assert one.domain[0].name == "lab.example"
    assert one.source.samba is not None
    other = consumer(tmp_path)
    assert other.domain[0].order is Order.KVNO
    assert other.idm.probe_base == "uid=passrelay-probe,cn=sysaccounts,cn=etc,dc=idm,dc=test"
    assert (other.consumer.threads, other.consumer.held) == (11, 44)
    path = tmp_path / "ops.toml"
    path.write_text(OPS)
    assert load(OpsSettings, path).idm is None


def test_every_role_is_listed() -> None:
    assert list(ROLES.values()) == [ProducerSettings, ConsumerSettings, OpsSettings]
    assert list(ROLES) == ["producer", "consumer", "ops"]


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.toml: missing"):
        load(OpsSettings, tmp_path / "nothing.toml")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(OpsSettings, tmp_path)


@pytest.mark.parametrize(
    "content", [b"[broker", b"\xff\xfe", b'a = "x', b"a = 1\na = 2", b'\xef\xbb\xbf[broker]\nurl="x"']
)
def test_what_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"x\.toml: not TOML"):
        load(OpsSettings, path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("retention_hours", "retention_hour", "spool.retention_hour: unknown key: did you mean retention_hours?"),
        ("[spool]", "[spol]", "spol: unknown key: did you mean spool?"),
        ("[source.samba]", "[source.samba]\npoll = 5", "source.samba.poll: unknown key: did you mean poll_ms?"),
        ("ca_file", "cafile", "broker.cafile: unknown key: did you mean ca_file?"),
        ('sid = "', 'sidd = "', "domain.0.sidd: unknown key: did you mean sid?"),
        ("[spool]", "[zzz]", "zzz: unknown key: known here: broker, domain, filter, keys, log, metrics, source, spool"),
        ("retention_hours = 48", "retention_hours = -1", "spool.retention_hours: Input should be greater than"),
        ("retention_hours = 48", "retention_hours = nan", "spool.retention_hours: Input should be"),
        ("[source.samba]", "", "source: is needed and missing"),
        ("[source.samba]", "[source]", "give exactly one of [source.samba], [source.stdin] and [source.hook]"),
        ("[source.samba]", "[source.samba]\n[source.stdin]", "give exactly one of"),
        ("[[domain]]", "[domain]", "domain: "),
        ('name = "LAB.Example"', 'name = "lab example"', "domain.0.name: not a DNS name"),
        ('sid = "S-1-5-21-1-2-3"', "", 'sid is needed with order = "kvno"'),
        ('sid = "S-1-5-21-1-2-3"', 'sid = "1-2-3"', "domain.0.sid: not a SID"),
    ],
)
def test_a_slip_is_named_with_its_place_and_repair(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        producer(tmp_path, PRODUCER.replace(old, new, 1))
    assert message in str(caught.value)
    assert "producer.toml" in str(caught.value)
    assert caught.value.exit_code == 2


def test_all_faults_are_listed_at_once(tmp_path: Path) -> None:
    text = PRODUCER.replace("retention_hours", "retention").replace("LAB.Example", "!")
    with pytest.raises(ConfigurationError) as caught:
        producer(tmp_path, text)
    assert "spool.retention" in str(caught.value)
    assert "domain.0.name" in str(caught.value)


@given(text=st.text(max_size=60) | st.text(st.sampled_from('[]{}"=.\n#ab1-_ \\'), max_size=60))
def test_no_file_stops_loading_with_anything_but_a_configuration_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError):
        load(ConsumerSettings, path)


# -- environment -------------------------------------------------------------------------------------------------------


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSRELAY_SPOOL__RETENTION_HOURS", "12")
    monkeypatch.setenv("passrelay_log__level", "debug")
    settings = producer(tmp_path)
    assert settings.spool.retention_hours == 12
    assert settings.log.level == "debug"
    assert settings.broker.shown == "amqps://broker.example/passrelay"  # the rest of a table stays


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PASSRELAY_BROKR__URL", "x", "PASSRELAY_BROKR__URL: no such section"),
        ("PASSRELAY_PASSWORD", CANARY, "PASSRELAY_PASSWORD: no such section"),
        ("PASSRELAY_SPOOL__RETENTION", CANARY, "unknown key: did you mean retention_hours?"),
        ("PASSRELAY_SPOOL__RETENTION_HOURS", CANARY, "spool.retention_hours: Input should be a valid number"),
        ("PASSRELAY_DOMAIN", CANARY, "domain"),
        ("PASSRELAY_DOMAIN", "[1]", "domain.0"),
        ("PASSRELAY_BROKER", '{"url": "amqp://u:' + CANARY + '@h/"', "broker"),
        ("PASSRELAY_BROKER__URL", f"amqp://u:{CANARY}@broker.example/", "only to loopback"),
        ("PASSRELAY_BROKER__URL", f"amqp://u:{CANARY}@127.0.0.1/\udced", "PASSRELAY_BROKER__URL: not UTF-8"),
    ],
)
def test_a_slip_in_the_environment_is_a_configuration_error_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        producer(tmp_path)
    assert message in str(caught.value)
    assert CANARY not in str(caught.value)


def test_a_section_of_another_role_in_the_environment_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSRELAY_IDM__BIND_DN", "uid=x")
    assert producer(tmp_path).spool.retention_hours == 48


# -- broker ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "amqp://broker.example/x",
        "amqp://10.0.0.1/x",
        "amqp://127.0.0.1.example/x",
        "amqp://localhost.example/x",
        "amqp://0.0.0.0/x",
        "amqp://[::]/x",
        f"amqp://127.0.0.1:{CANARY}@broker.example/x",
        "AMQP://broker.example/x",
    ],
)
def test_clear_text_off_loopback_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="only to loopback") as caught:
        broker(url)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["amqp://localhost/x", "amqp://127.9.9.9:1/x", "amqp://[::1]:5672/x", "amqp://LOCALHOST/x"]
)
def test_clear_text_on_loopback_is_taken(url: str) -> None:
    broker(url, ca_file=None)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "broker.example",
        "http://broker.example/",
        "amqps:///x",
        f"amqps://relay:{CANARY}@/x",
        f"amqps://relay:{CANARY}/x@broker.example/x",  # urllib: "Port could not be cast to integer value as ..."
        f"amqps://relay:{CANARY}\u2100@broker.example/x",  # urllib: "netloc ... contains invalid characters"
        f"amqps://relay:{CANARY}@broker.example:99999/x",
        f"amqps://relay:{CANARY}@broker.example:0/x",
        f"amqps://relay:{CANARY}@[broker/x",
    ],
)
def test_an_unusable_broker_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValidationError, match="url must look like") as caught:
        broker(url)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("ending", ["?heartbeat=0", f"?ssl_options={CANARY}", f"#{CANARY}"])
def test_options_in_the_broker_url_are_refused(ending: str) -> None:
    """Pika would read them: no heartbeat, other TLS, or an error that is none of ours."""
    with pytest.raises(ValidationError, match="nothing after the vhost") as caught:
        broker(f"amqps://relay:x@broker.example/x{ending}")
    assert CANARY not in str(caught.value)


def test_tls_needs_a_ca_and_certificates_come_in_pairs() -> None:
    with pytest.raises(ValidationError, match="ca_file is needed"):
        broker("amqps://broker.example/x", ca_file=None)
    for half in ("certificate_file", "key_file"):
        with pytest.raises(ValidationError, match="belong together"):
            broker("amqps://broker.example/x", **{half: "/x.pem"})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"amqps://relay:{CANARY}@broker.example:5671/passrelay", "amqps://broker.example:5671/passrelay"),
        (f"amqps://{CANARY}@broker.example/%2F", "amqps://broker.example/%2F"),
        (f"amqps://relay:{CANARY}@[::1]:5671/x", "amqps://[::1]:5671/x"),
        (f"amqps://relay:{CANARY}@x@broker.example/x", "amqps://broker.example/x"),
    ],
)
def test_the_shown_address_has_no_credentials(url: str, shown: str) -> None:
    settings = broker(url)
    assert settings.shown == shown
    assert CANARY not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("127.0.0.1", True), ("127.255.0.1", True), ("::1", True), ("128.0.0.1", False), ("", False)],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


# -- domains, idm, metrics ---------------------------------------------------------------------------------------------

DOMAIN_TABLE = CONSUMER[CONSUMER.index("[[domain]]") :]


@pytest.mark.parametrize("again", [DOMAIN_TABLE, DOMAIN_TABLE.replace("lab.example", "LAB.example.")])
def test_a_doubled_domain_is_refused(tmp_path: Path, again: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\[\[domain\]\] lab\.example stands twice"):
        consumer(tmp_path, CONSUMER + again)


TIMED_TABLE = DOMAIN_TABLE.replace("lab.example", "hr.example") + 'order = "time"\n'


@pytest.mark.parametrize(
    ("role", "text"), [(ProducerSettings, PRODUCER), (ConsumerSettings, CONSUMER), (OpsSettings, OPS)]
)
def test_no_role_takes_one_ad_domain_twice(tmp_path: Path, role: type[RoleSettings], text: str) -> None:
    """Under one name or two: changes in two orders cannot be compared."""
    path = tmp_path / "settings.toml"
    for again, message in (
        (DOMAIN_TABLE, r"\[\[domain\]\] lab\.example stands twice"),
        (TIMED_TABLE, r"sid S-1-5-21-1-2-3 stands in another \[\[domain\]\] too"),
    ):
        path.write_text(text.partition("[[domain]]")[0] + DOMAIN_TABLE + again)
        with pytest.raises(ConfigurationError, match=message):
            load(role, path)


def test_samba_has_versions_so_its_domain_is_never_ordered_by_time(tmp_path: Path) -> None:
    text = PRODUCER.partition("[[domain]]")[0] + TIMED_TABLE
    with pytest.raises(ConfigurationError, match=r"hr\.example: \[source\.samba\] has versions"):
        producer(tmp_path, text)
    assert producer(tmp_path, text.replace("[source.samba]", "[source.stdin]")).domain[0].order is Order.TIME


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('producers = ["dc1"]', "", "producers is empty"),
        ('producers = ["dc1"]', 'producers = ["dc 1"]', "domain.0.producers.0"),
        ('search_base = "cn=users,cn=accounts,dc=idm,dc=test"', "", "search_base is needed"),
        ('sid = "S-1-5-21-1-2-3"', "", "sid is needed"),
        (DOMAIN_TABLE, "", "domain: is needed and missing"),
        ('servers = ["ldaps://idm1.example:636", "ldap://idm2.example"]', "servers = []", "idm.servers"),
    ],
)
def test_a_consumer_without_what_it_needs_does_not_start(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        consumer(tmp_path, CONSUMER.replace(old, new))
    assert message in str(caught.value)


def test_a_timed_domain_needs_no_sid() -> None:
    assert DomainSettings(name="hr.example", order=Order.TIME).sid is None
    with pytest.raises(ValidationError, match="sid is needed"):
        DomainSettings(name="lab.example")


def match(template: str) -> DomainSettings:
    return DomainSettings(name="x.example", order=Order.TIME, match=template)


@pytest.mark.parametrize(
    "template", ["(uid={sam})", "(|(uid={sam})(mail={upn}))", "(x={guid})", "(&(objectClass=person)(ntSid={sid}))"]
)
def test_match_filters_with_placeholders_are_taken(template: str) -> None:
    assert match(template).match == template


@pytest.mark.parametrize(
    "template",
    [
        "(uid=alice)",  # every event would hit alice
        "(objectClass=person)",
        "(uid={user})",
        "(uid={sam}{)",
        "(uid={{sam}})",
        "(uid={sam.__class__})",
        "(uid={0})",
        "uid={sam}",
        "(uid={sam}",
        "(uid={sam}))",
        "(uid={sam})(cn={sam})",
        "(uid={sam}))((cn={sam})",
        ")uid={sam}(",
        " (uid={sam})",
        "",
    ],
)
def test_match_filters_that_hit_anything_else_are_refused(template: str) -> None:
    with pytest.raises(ValidationError, match="match"):
        match(template)


@pytest.mark.parametrize(
    "url", ["ldaps://idm1.example", "ldaps://idm1.example:636/", "ldap://10.0.0.1:389", "ldaps://[::1]:1"]
)
def test_idm_addresses(url: str) -> None:
    assert idm(servers=[url]).servers == (url,)


@pytest.mark.parametrize(
    "url",
    [
        "idm1.example",
        "https://idm1.example",
        "ldapi:///run/x",
        "ldaps://",
        "ldaps://idm1.example/dc=x",
        "ldaps://idm1.example:99999",
        "ldaps://idm1.example:x",
        "ldaps://[idm1",
        f"ldaps://uid=x:{CANARY}@idm1.example",
        f"ldaps://{CANARY}@idm1.example",
        f"ldaps://x:{CANARY}\u2100@idm1.example",
        f"ldaps://x:{CANARY}/y@idm1.example",
    ],
)
def test_unusable_idm_addresses_are_refused_without_showing_credentials(url: str) -> None:
    with pytest.raises(ValidationError, match="must look like ldaps") as caught:
        idm(servers=["ldaps://good", url])
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "listen", ["9464", ":9464", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:\u00b2", ""]
)
def test_unusable_metrics_addresses_are_refused(listen: str) -> None:
    with pytest.raises(ValidationError):
        MetricsSettings(listen=listen)


def test_usable_metrics_addresses() -> None:
    assert [MetricsSettings(listen=listen).listen for listen in ("127.0.0.1:0", "[::1]:9464")] == [
        "127.0.0.1:0",
        "[::1]:9464",
    ]


def test_the_samples_above_are_toml() -> None:
    for text in (PRODUCER, CONSUMER, OPS):
        tomllib.loads(text)


@pytest.mark.parametrize(
    ("given", "marker", "proof", "needs_class"),
    [
        ({}, "passrelayMarker", "passrelayProof", True),
        ({"marker_attribute": "passrelaymarker"}, "passrelayMarker", "passrelayProof", True),  # LDAP knows no cases
        ({"marker_attribute": "carLicense"}, "carLicense", None, False),
        ({"marker_attribute": "carLicense", "proof_attribute": "PASSRELAYPROOF"}, "carLicense", "passrelayProof", True),
    ],
)
def test_our_own_attributes_are_known_however_they_are_spelled(
    given: dict[str, Any], marker: str, proof: str | None, needs_class: bool
) -> None:
    settings = idm(**given)
    assert (settings.marker_attribute, settings.proof, settings.needs_class) == (marker, proof, needs_class)


def test_several_servers_need_a_proof_of_its_own() -> None:
    several = ["ldaps://a.example", "ldaps://b.example"]
    with pytest.raises(ValueError, match="proof_attribute"):
        idm(servers=several, marker_attribute="carLicense")
    with pytest.raises(ValueError, match="two attributes"):
        idm(marker_attribute="carLicense", proof_attribute="carlicense")
    assert idm(servers=several, marker_attribute="carLicense", proof_attribute="employeeType").settles


@pytest.mark.parametrize(
    ("servers", "names"),
    [
        (["ldaps://idm1.example:1636"], ["probe"]),
        (["ldaps://idm1.example", "ldaps://IDM2.example:636/"], ["probe-idm1.example", "probe-idm2.example"]),
        (["ldap://idm1.example:389", "ldaps://idm1.example"], ["probe-idm1.example"]),
        (["ldaps://[::1]:1636", "ldap://idm2:636"], ["probe-::1:1636", "probe-idm2:636"]),
    ],
)
def test_each_of_several_servers_has_a_probe_of_its_own(servers: list[str], names: list[str]) -> None:
    found = idm(servers=servers, probe_dn="uid=probe, cn=etc, dc=idm")
    assert found.probe_entries == tuple(f"uid={name},cn=etc,dc=idm" for name in names)
