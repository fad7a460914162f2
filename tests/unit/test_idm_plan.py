"""What `passrelay idm setup` decides from what a server shows: what is missing, what is ours, what is to be said."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from passrelay_consumer.directory import MANAGERS, PLUGIN_DN
from passrelay_ops.check import Result, Row
from passrelay_ops.idm import checks, login, password_file, schema, setting_up, templates, undo
from passrelay_ops.idm.ldif import Change, FromFile, Record, parse
from passrelay_ops.idm.managers import listed, to_add, to_remove
from passrelay_ops.idm.plan import missing, to_set_up, to_take_back
from passrelay_ops.idm.server import Attributes
from passrelay_ops.idm.site import Site
from passrelay_ops.idm.view import View
from passrelay_schemas.distinguished_name import folded, parent
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.idm_settings import IdmSettings
from tests.lab.enrolment import toml
from tests.lab.folder import CANARY

ROOT = Path(__file__).resolve().parents[2]
SUFFIX = "dc=idm,dc=test"
SERVICE = f"uid=passrelay,cn=sysaccounts,cn=etc,{SUFFIX}"
PROBE = SERVICE.replace("passrelay", "passrelay-probe")
BASE = f"cn=users,cn=accounts,{SUFFIX}"
A, B = "ldaps://a", "ldaps://b"
SITE = Site(
    service_dn=SERVICE,
    probe_dn=PROBE,
    probe_dns=(PROBE,),
    search_bases=(BASE,),
    suffix=SUFFIX,
    password_file=Path("/etc/passrelay/idm.password"),
    realm="IDM.TEST",
)
WANTED = templates.wanted(SITE)


def settings(**fields: object) -> IdmSettings:
    given = {"servers": [A], "ca_file": "/ca", "bind_dn": SERVICE, "password_file": "/p"}
    return IdmSettings.model_validate(given | fields)


def domain(base: str | None, name: str = "ad.example", sid: str = "S-1-5-21-1-2-3") -> DomainSettings:
    return DomainSettings.model_validate({"name": name, "sid": sid, "search_base": base})


def server(url: str = A, *, plugin: bool = True, sees_all: bool = True) -> View:
    """A server on which nobody has made anything for passrelay."""
    entries: dict[str, Attributes] = {
        "cn=schema": {"attributetypes": (), "objectclasses": ()},
        folded(BASE): {
            "aci": ('(targetattr = "cn")(version 3.0; acl "somebody else\'s"; allow (read) userdn = "x";)',)
        },
        folded(f"cn=sysaccounts,cn=etc,{SUFFIX}"): {},
    }
    if plugin:
        entries[folded(PLUGIN_DN)] = {"cn": ("ipa_pwd_extop",)}
    return View(url, "cn=Directory Manager", entries=entries, sees_all=sees_all, kerberos=True)


def applied(view: View, records: Iterable[Record]) -> View:
    """The server after these records, as a directory would do them."""
    entries = {dn: dict(attributes) for dn, attributes in view.entries.items()}
    for record in records:
        dn = folded(record.dn)
        if record.kind == "delete":
            del entries[dn]
            continue
        entry = entries.setdefault(dn, {}) if record.kind == "add" else entries[dn]
        for change in record.changes:
            values = tuple(value for value in change.values if isinstance(value, str))
            kept = () if change.operation == "replace" else entry.get(change.attribute.lower(), ())
            if change.operation == "delete":
                assert set(values) <= set(kept), "a server answers 16 to the deletion of what is not there"
                entry[change.attribute.lower()] = tuple(value for value in kept if value not in values)
            else:
                ours = {schema.oid(value) for value in values} if record.dn == "cn=schema" else set()
                kept = tuple(value for value in kept if schema.oid(value) not in ours)
                entry[change.attribute.lower()] = kept + values
    return replace(view, entries=entries)


def set_up(view: View) -> View:
    return applied(view, [step.record for step in to_set_up(WANTED, [view])])


def bad(site: Site, wanted: templates.Wanted, view: View) -> dict[str, Result]:
    return {row.id: row.result for row in checks.rows(site, wanted, view) if row.result is not Result.OK}


# --- the site


def test_a_site_takes_its_suffix_and_realm_from_where_account_and_users_are() -> None:
    site = Site.of(
        settings(),
        [
            domain(BASE),
            domain(BASE.upper(), "b.example", "S-1-5-21-4-5-6"),
            domain(None, "c.example", "S-1-5-21-7-8-9"),
        ],
    )
    assert (site.suffix, site.realm) == (SUFFIX, "IDM.TEST")
    assert site.search_bases == (BASE,)
    assert site.admins_dn == f"cn=admins,cn=groups,cn=accounts,{SUFFIX}"


@pytest.mark.parametrize(
    ("idm", "base", "complaint"),
    [
        ({}, None, "search_base is needed"),
        ({}, "nonsense", "search_base 'nonsense': not a DN"),
        ({}, "ou=people,dc=elsewhere", "lie in different directories"),
        ({"bind_dn": f"cn=passrelay,{SUFFIX}"}, BASE, "begin it with uid="),
        ({"bind_dn": f"uid=a%20b,{SUFFIX}"}, BASE, "cannot stand in an access rule"),
        ({"probe_dn": f"cn=probe,{SUFFIX}"}, BASE, "probe_dn"),
    ],
)
def test_a_site_that_cannot_be_set_up_is_explained(idm: dict[str, object], base: str | None, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Site.of(settings(**idm), [domain(base)])


# --- the templates


def test_every_name_in_the_templates_is_filled_in() -> None:
    text = repr(WANTED)
    assert "{" not in text
    assert text.count(SERVICE) > 5


def test_the_templates_are_found_where_the_wheel_puts_them(tmp_path: Path) -> None:
    """The layout of an installed wheel, made from pyproject.toml as the build does it; here they lie in ops/idm."""
    target = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for package in target["packages"]:
        shutil.copytree(ROOT / package, tmp_path / Path(package).name)
    for source, place in target["force-include"].items():
        shutil.copytree(ROOT / source, tmp_path / place)
    ops_file = tmp_path / "ops.toml"
    idm = {"servers": [A], "ca_file": "/ca", "bind_dn": SERVICE, "password_file": str(SITE.password_file)}
    domains = [{"name": "ad.example", "sid": "S-1-5-21-1-2-3", "search_base": BASE}]
    ops_file.write_text(toml({"broker": {"url": "amqp://127.0.0.1/"}, "idm": idm, "domain": domains}))
    arguments = ["idm", "setup", "--offline", "--config", str(ops_file)]
    done = subprocess.run(
        [sys.executable, "-c", "from passrelay_ops.cli import main; main()", *arguments],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert parse(done.stdout) == list(WANTED.records)


def test_each_place_with_users_gets_its_rules() -> None:
    wanted = templates.wanted(replace(SITE, search_bases=(BASE, f"ou=people,{SUFFIX}")))
    ruled = [record.dn for record in wanted.tree if record.kind == "modify"]
    assert ruled == [BASE, f"ou=people,{SUFFIX}", SITE.probe_dn]


def test_undo_takes_back_the_probes_of_every_earlier_list_of_servers() -> None:
    several = settings(servers=[A, B])
    view = applied(server(), WANTED.records)
    now = Site.of(several, [domain(BASE)])
    view = applied(view, [step.record for step in to_set_up(templates.wanted(now), [view])])
    foreign = f"uid=passrelay-probe-c,{parent(SERVICE)}"
    view = applied(view, [Record(foreign, "add", (Change("add", "uid", ("passrelay-probe-c",)),))])
    view = replace(view, probes=(PROBE, *several.probe_entries, foreign))
    for site in (SITE, replace(now, realm=SITE.realm)):
        taken = undo.plan(site, undo.all_made(templates.wanted(site), [view]), [view], marked=0, markers_too=False)
        deleted = {step.record.dn for step in taken.steps if step.record.kind == "delete"}
        assert deleted == {PROBE, *several.probe_entries, SERVICE}
        assert [why for why in taken.stays if foreign in why] == list(taken.stays)


def test_the_password_is_never_a_value() -> None:
    values = [value for record in WANTED.tree for change in record.changes for value in change.values]
    assert [value for value in values if isinstance(value, FromFile)] == [FromFile(SITE.password_file)] * 2


def test_a_directory_without_kerberos_gets_no_name_that_it_does_not_know() -> None:
    text = repr(templates.wanted(replace(SITE, kerberos=False)).tree)
    assert "krb" not in text
    assert "|| ||" not in text
    assert '"userPassword || passrelayMarker || passrelayProof"' in text


def test_attributes_of_the_sites_own_need_no_schema_and_no_class() -> None:
    wanted = templates.wanted(replace(SITE, marker="employeeNumber", proof=None))
    assert wanted.schema == ()
    assert "passrelayAccount" not in repr(wanted)
    assert "passrelayMarker" not in repr(wanted)
    assert '(targetattr = "employeeNumber")' in repr(wanted)


# --- what is missing, and what is ours


def test_a_server_lacks_all_then_nothing_and_then_has_what_it_had() -> None:
    before = server()
    steps = to_set_up(WANTED, [before])
    assert [step.record for step in steps] == list(WANTED.records)
    after = set_up(before)
    assert to_set_up(WANTED, [after]) == []
    assert bad(SITE, WANTED, after) == {}
    steps_back, schema_steps = to_take_back(WANTED, [after])
    left = applied(after, [step.record for step in (*steps_back, *schema_steps)])
    assert to_take_back(WANTED, [left]) == ([], [])
    assert left.values(BASE, "aci") == before.values(BASE, "aci")


def test_the_tree_is_written_once_and_the_rest_on_every_server() -> None:
    steps = to_set_up(WANTED, [server(A), server(B, plugin=False)])
    where = {(step.record.dn, step.record.kind): step.servers for step in steps}
    assert where["cn=schema", "modify"] == (A, B)
    assert where[SERVICE, "add"] == (A,)
    assert where[PLUGIN_DN, "modify"] == (A,), "a server without IPA's plugin has no list"


def test_a_rule_of_another_version_is_replaced_and_other_rules_stay() -> None:
    [rules] = [record for record in WANTED.tree if record.dn == BASE]
    current = [value for value in rules.changes[0].values if isinstance(value, str)]
    older = [current[0].replace(" || memberOf", ""), *current[1:]]
    view = applied(server(), [Record(BASE, "modify", (Change("add", "aci", tuple(older)),))])
    found = missing(rules, view)
    assert found is not None
    assert found.changes == (Change("delete", "aci", (older[0],)), Change("add", "aci", (current[0],)))
    spaced = applied(
        server(), [Record(BASE, "modify", (Change("add", "aci", tuple(v.replace(" ", "\n  ") for v in current)),))]
    )
    assert missing(rules, spaced) is None, "blanks do not make another rule"


def test_an_account_that_is_there_gets_what_it_lacks_and_keeps_its_password_and_description() -> None:
    foreign = {"objectclass": ("top", "account"), "uid": ("passrelay",), "description": ("by hand",)}
    view = server()
    view = replace(view, entries={**view.entries, folded(SERVICE): foreign})
    found = missing(WANTED.tree[0], view)
    assert found is not None
    assert (found.kind, found.changes) == ("modify", (Change("add", "objectClass", ("simpleSecurityObject",)),))
    plan = undo.plan(SITE, WANTED, [set_up(view)], marked=0, markers_too=False)
    assert SERVICE not in [step.record.dn for step in plan.steps]
    assert plan.stays == (f"{SERVICE}: passrelay idm setup has not made it",)


def test_undo_leaves_the_schema_while_entries_or_a_silent_server_need_it() -> None:
    view = set_up(server())
    silent = View(B, "cn=Directory Manager", unusable=Row("idm.connect", B, Result.FAIL))
    assert undo.plan(SITE, WANTED, [view], marked=0, markers_too=False).schema_steps
    for views, marked in (([view], 3), ([view, silent], 0)):
        plan = undo.plan(SITE, WANTED, views, marked=marked, markers_too=False)
        assert plan.schema_steps == ()
        assert any("the schema" in reason for reason in plan.stays)
    assert undo.plan(SITE, WANTED, [view], marked=3, markers_too=True).stays == ()


def test_what_setup_cannot_repair_stops_it_first(tmp_path: Path) -> None:
    site = replace(SITE, password_file=tmp_path / "missing")
    setting_up.check_possible(site, [server()])
    assert setting_up.plan(site, WANTED, [server()])
    with pytest.raises(ConfigurationError, match="exists: copy"):
        setting_up.plan(site, WANTED, [set_up(server())])
    with pytest.raises(ConfigurationError, match="use Directory Manager"):
        setting_up.check_possible(site, [server(sees_all=False)])
    with pytest.raises(ConfigurationError, match=r"search_base: there is no entry ou=people,dc=idm,dc=test"):
        setting_up.check_possible(replace(site, search_bases=(f"ou=people,{SUFFIX}",)), [server()])
    with pytest.raises(ConfigurationError, match="fax is not in the schema"):
        setting_up.check_possible(replace(site, marker="fax"), [server()])


# --- managers


def test_managers_are_added_in_the_spelling_that_counts_and_removed_in_every_one() -> None:
    spelled = SERVICE.replace(",", ", ")
    view = applied(server(), [Record(PLUGIN_DN, "modify", (Change("add", MANAGERS, (spelled, "uid=x,dc=y")),))])
    assert [manager.counts for manager in listed(view)] == [False, True]
    [step] = to_add(SERVICE, [view])
    assert step.record.changes == (Change("delete", MANAGERS, (spelled,)), Change("add", MANAGERS, (SERVICE,)))
    both = applied(view, [Record(PLUGIN_DN, "modify", (Change("add", MANAGERS, (SERVICE.upper(),)),))])
    [step] = to_remove(SERVICE, [both])
    assert step.record.changes == (Change("delete", MANAGERS, (spelled, SERVICE.upper())),)
    good = applied(view, [Record(PLUGIN_DN, "modify", (Change("add", MANAGERS, (SERVICE,)),))])
    assert to_add(SERVICE, [good]) == [], "the other spelling beside it does nothing"
    assert to_add("uid=x,dc=y", [view]) == to_remove("uid=z,dc=y", [view]) == []


# --- checks


def test_what_rests_on_a_failed_check_is_unknown() -> None:
    for check, unknown in (("idm.connect", 7), ("idm.bind", 6)):
        view = View(A, "cn=x", unusable=Row(check, A, Result.FAIL, "why", "repair"))
        found = bad(SITE, WANTED, view)
        assert found.pop(check) is Result.FAIL
        assert list(found.values()) == [Result.UNKNOWN] * unknown


def test_what_a_login_does_not_see_is_unknown_and_not_missing() -> None:
    hidden = replace(server(plugin=False, sees_all=False), login_fault="refused")
    found = bad(SITE, WANTED, hidden)
    assert found.pop("idm.login") is Result.FAIL
    assert set(found.values()) == {Result.UNKNOWN}
    assert "idm.managers" not in bad(SITE, WANTED, replace(hidden, sees_all=True)), "a plain server has no such list"


# --- schema definitions


MARKER = next(value for value in WANTED.schema[0].changes[0].values if isinstance(value, str))


def test_a_definition_is_compared_by_what_it_means() -> None:
    shown = MARKER.replace("X-ORIGIN 'passrelay'", "X-ORIGIN ( 'passrelay' 'user defined' )")
    assert schema.alike(MARKER, shown)
    assert not schema.alike(MARKER, MARKER.replace("SINGLE-VALUE ", ""))
    assert not schema.alike(MARKER, MARKER.replace("caseExactIA5Match", "caseIgnoreIA5Match"))
    one = "( 1.2 NAME 'c' SUP top AUXILIARY MAY ( a $ b ) )"
    assert schema.alike(one, "( 1.2 NAME 'c' DESC 'x' SUP top AUXILIARY MAY ( B $ a ) X-ORIGIN 'y' )")
    assert not schema.alike(one, "( 1.2 NAME 'c' SUP top AUXILIARY MAY a )")


def test_a_definition_is_found_by_any_of_its_names() -> None:
    definitions = ["( 1.1 NAME ( 'fax' 'facsimileTelephoneNumber' ) SYNTAX 1.2 )", "( 1.2 NAME 'faxes' SYNTAX 1.2 )"]
    assert schema.find(definitions, "FacsimileTelephoneNumber") == definitions[0]
    assert schema.find(definitions, "Faxes") == definitions[1]
    assert schema.find(definitions, "fa") is None


@pytest.mark.parametrize(
    ("without", "why"),
    [
        ("SINGLE-VALUE", "two markers"),
        ("EQUALITY caseExactIA5Match", "no EQUALITY"),
        ("SYNTAX 1.3.6.1.4.1.1466.115.121.1.26", "must be Directory String"),
    ],
)
def test_an_attribute_that_cannot_hold_markers(without: str, why: str) -> None:
    assert schema.unfit_for_markers([MARKER], "passrelayMarker") is None
    assert why in (schema.unfit_for_markers([MARKER.replace(without, "")], "passrelaymarker") or "")


# --- passwords


def test_the_password_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "idm.password"
    assert password_file.ensure(path)
    made = path.read_text()
    assert (stat.S_IMODE(path.stat().st_mode), made.strip(), len(made) > 40) == (0o600, made, True)
    assert not password_file.ensure(path)
    assert path.read_text() == made
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        password_file.ensure(path)
    with pytest.raises(ConfigurationError, match="make its directory"):
        password_file.ensure(tmp_path / "no" / "such")


def test_an_empty_password_is_refused_because_it_would_log_in_as_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda _: "")
    with pytest.raises(ConfigurationError, match="empty"):
        login.ask("cn=Directory Manager", None)
    monkeypatch.setattr("getpass.getpass", lambda _: CANARY)
    asked = login.ask("cn = Directory Manager", None)
    assert (asked.dn, asked.password.reveal()) == ("cn=Directory Manager", CANARY)
    assert CANARY not in repr(asked)
