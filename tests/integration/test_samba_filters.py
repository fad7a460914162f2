"""Filters on a real domain controller: who is captured, who is not, and who comes into the filter later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from passrelay_producer.filters import Rule
from passrelay_schemas.errors import ConfigurationError, UnavailableError
from passrelay_schemas.filter_settings import FilterSettings
from tests.lab.certificates import CertificateAuthority
from tests.lab.folder import LabFolder, canary_password
from tests.lab.network import Reservations
from tests.lab.notebook import Capture, password_of
from tests.lab.organisation import Organisation
from tests.lab.samba import DomainController

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def controller(
    lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority
) -> Iterator[DomainController]:
    dc = DomainController(lab_folder.path / "filters", reservations, ca)
    try:
        dc.start()
        yield dc
    finally:
        dc.stop()


@pytest.fixture(scope="module")
def organisation(controller: DomainController) -> Organisation:
    """An always captured account, and the groups staff > night > owls > staff (a circle) and visitors."""
    made = Organisation(controller)
    for name in ("owls", "visitors"):
        made.group(name)
    made.group("night", "owls")
    made.group("staff", "night")
    made.join("owls", "staff")
    controller.add_user("always", canary_password())
    made.join("staff", "always")
    return made


def filters(**lists: Any) -> FilterSettings:
    return FilterSettings(**{name: tuple(values) for name, values in lists.items()})


class Site:
    """One controller, its organisation, and a source with a filter that goes on running."""

    def __init__(self, controller: DomainController, organisation: Organisation, **lists: Any) -> None:
        self.controller = controller
        self.organisation = organisation
        self.capture = Capture(controller, filters=filters(**lists)).initialise().stay_connected()

    def change(self, sam: str) -> str:
        password = canary_password()
        self.controller.ldaps_reset(sam, password)
        return password

    def add(self, sam: str) -> str:
        password = canary_password()
        self.controller.add_user(sam, password)
        return password

    def catch_up(self) -> None:
        """What was changed before is captured or left out when a change after it has come."""
        self.change("always")
        self.capture.until("always")

    def rule(self, sam: str) -> Rule | None:
        """What keeps the account out, as far as its changes were seen."""
        guid = self.controller.account(sam)["guid"]
        return next((rule for found, rule in self.capture.notebook.left_out.items() if str(found) == guid), None)

    def arrives(self, sam: str, password: str) -> None:
        """The next event of the account has this password, and it is not left out any more."""
        (event,) = self.capture.until(sam)
        assert password_of(event) == password
        assert self.rule(sam) is None


@pytest.fixture
def site(controller: DomainController, organisation: Organisation) -> Iterator[Callable[..., Site]]:
    """Make sites with these lists; their connections end with the test."""
    made: list[Site] = []

    def make(**lists: Any) -> Site:
        made.append(Site(controller, organisation, **lists))
        return made[-1]

    yield make
    for one in made:
        one.capture.close()


def test_members_of_nested_groups_are_captured_and_others_left_out(
    controller: DomainController, organisation: Organisation, site: Callable[..., Site]
) -> None:
    for name in ("direct", "deep", "stranger", "svc-night"):
        controller.add_user(name, canary_password())
    organisation.join("staff", "direct")
    organisation.join("owls", "deep", "svc-night")
    running = site(include_groups=["Staff"], exclude_patterns=["SVC-*"])
    passwords = {name: running.change(name) for name in ("direct", "deep", "stranger", "svc-night")}
    running.catch_up()
    events = running.capture.notebook.events
    captured = {event.account.sam_account_name: password_of(event) for event in events}
    assert {name: captured.get(name) for name in passwords} == {
        "direct": passwords["direct"],
        "deep": passwords["deep"],
        "stranger": None,
        "svc-night": None,
    }
    assert running.rule("stranger") is Rule.NOT_INCLUDED
    assert running.rule("svc-night") is Rule.EXCLUDE_PATTERN


def test_a_primary_group_counts_and_exclusion_wins(
    controller: DomainController, organisation: Organisation, site: Callable[..., Site]
) -> None:
    for name in ("prima", "both"):
        controller.add_user(name, canary_password())
    organisation.join("owls", "prima", "both")
    organisation.primary("prima", "owls")
    organisation.join("visitors", "both")
    running = site(include_groups=["staff"], exclude_groups=[organisation.sid("visitors")])
    running.change("both")
    running.arrives("prima", running.change("prima"))
    running.catch_up()
    assert running.rule("both") is Rule.EXCLUDE_GROUP
    everybody = site(include_groups=["Domain Users"])
    everybody.arrives("both", everybody.change("both"))
    everybody.arrives("prima", everybody.change("prima"))  # her former primary group is a plain one now


def test_a_new_user_is_captured_once_he_is_in_his_group(organisation: Organisation, site: Callable[..., Site]) -> None:
    running = site(include_groups=["staff"])
    password = running.add("newbie")
    running.catch_up()
    assert running.rule("newbie") is Rule.NOT_INCLUDED
    organisation.join("owls", "newbie")
    running.arrives("newbie", password)
    # Out again: what is changed now waits until he is back.
    organisation.leave("owls", "newbie")
    later = running.change("newbie")
    running.catch_up()
    assert running.rule("newbie") is Rule.NOT_INCLUDED
    organisation.join("night", "newbie")
    running.arrives("newbie", later)


def test_who_joins_and_is_told_to_keep_his_password_in_one_moment_is_captured(
    controller: DomainController, organisation: Organisation, site: Callable[..., Site]
) -> None:
    running = site(include_groups=["staff"])
    password = running.add("momentary")
    controller.modify_user("momentary", pwdLastSet="0")
    running.catch_up()
    organisation.join("staff", "momentary")
    controller.modify_user("momentary", pwdLastSet="-1")
    running.arrives("momentary", password)


def test_a_group_that_is_nested_later_brings_its_members(organisation: Organisation, site: Callable[..., Site]) -> None:
    running = site(include_groups=["staff"])
    organisation.group("temps")
    password = running.add("temp")
    organisation.join("temps", "temp")
    running.catch_up()
    assert running.rule("temp") is Rule.NOT_INCLUDED
    organisation.join("night", "temps")
    running.arrives("temp", password)


def test_an_excluded_group_that_loses_its_link_lets_its_members_in(
    controller: DomainController, organisation: Organisation, site: Callable[..., Site]
) -> None:
    outer, inner = organisation.group("barred"), organisation.group("between")
    organisation.join("barred", "between")
    password = canary_password()
    controller.add_user("freed", password)
    organisation.join("between", "freed")
    running = site(exclude_groups=[outer])
    running.catch_up()
    assert running.rule("freed") is Rule.EXCLUDE_GROUP  # known from `init` on, without a change
    organisation.delete(inner)
    running.arrives("freed", password)


def test_moves_between_ous_and_moves_of_ous(
    controller: DomainController, organisation: Organisation, site: Callable[..., Site]
) -> None:
    people = organisation.ou("People")
    apart = organisation.ou("Apart", people)
    elsewhere = organisation.ou("Elsewhere")
    team = organisation.ou("Team", elsewhere)
    names = ("walker", "teammate", "locked")
    passwords = {}
    for name in names:
        passwords[name] = canary_password()
        controller.add_user(name, passwords[name])
    for name, ou in (("walker", elsewhere), ("teammate", team), ("locked", apart)):
        organisation.move(organisation.dn(name), ou)
    running = site(include_groups=["staff"], include_ous=[people.lower()], exclude_ous=[apart])
    assert [running.rule(name) for name in names] == [Rule.NOT_INCLUDED, Rule.NOT_INCLUDED, Rule.EXCLUDE_OU]
    running.catch_up()
    organisation.move(organisation.dn("walker"), people)
    running.arrives("walker", passwords["walker"])
    moved = organisation.move(team, people)
    running.arrives("teammate", passwords["teammate"])
    organisation.rename(moved, "OU=Crew")
    running.arrives("teammate", running.change("teammate"))
    running.change("locked")
    running.catch_up()
    assert running.rule("locked") is Rule.EXCLUDE_OU
    organisation.move(organisation.dn("teammate"), elsewhere)
    running.change("teammate")
    running.catch_up()
    assert running.rule("teammate") is Rule.NOT_INCLUDED


def test_a_new_name_and_a_lost_admin_count_let_an_account_in(
    controller: DomainController, organisation: Organisation, site: Callable[..., Site]
) -> None:
    running = site(exclude_patterns=["tmp-*"])
    named, _ = running.add("tmp-nora"), running.add("chief")
    organisation.set("chief", adminCount="1")
    later = running.change("chief")
    running.catch_up()
    assert running.rule("tmp-nora") is Rule.EXCLUDE_PATTERN
    assert running.rule("chief") is Rule.DENIED
    organisation.set("tmp-nora", sAMAccountName="nora")
    running.arrives("nora", named)
    organisation.set("chief", adminCount=None)
    running.arrives("chief", later)
    # Whoever is deleted is forgotten.
    running.add("tmp-gone")
    running.catch_up()
    left_out = dict(running.capture.notebook.left_out)
    controller.delete_user("tmp-gone")
    running.capture.drive(
        lambda: len(running.capture.notebook.left_out) == len(left_out) - 1, what="the deleted is forgotten"
    )


def test_what_moved_while_the_producer_was_off_and_a_wider_filter_count_at_the_start(
    organisation: Organisation, site: Callable[..., Site]
) -> None:
    running = site(include_groups=["staff"])
    password, other = running.add("absent"), running.add("widened")
    running.catch_up()
    organisation.join("owls", "absent")
    running.capture.restart(filters(include_groups=["staff"]))
    running.arrives("absent", password)
    organisation.join("visitors", "widened")
    running.capture.restart(filters(include_groups=["staff", "visitors"]))
    running.arrives("widened", other)


def test_a_membership_that_another_controller_replicated_counts(
    controller: DomainController,
    organisation: Organisation,
    lab_folder: LabFolder,
    reservations: Reservations,
    ca: CertificateAuthority,
) -> None:
    second = DomainController.join(controller, lab_folder.path / "filters", reservations, ca)
    try:
        second.start()
        capture = Capture(second, filters=filters(include_groups=["staff"])).initialise().stay_connected()
        password = canary_password()
        controller.add_user("remote", password)
        second.replicate()
        guid = controller.account("remote")["guid"]
        capture.drive(lambda: guid in map(str, capture.notebook.left_out), what="left out on the second controller")
        organisation.join("owls", "remote")
        second.replicate()
        (event,) = capture.until("remote")
        assert password_of(event) == password
        capture.close()
    finally:
        second.stop()


# -- faults in the configuration ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ({"include_groups": ["staff", "stuff"]}, r"include_groups: there is no group 'stuff' in lab.example"),
        ({"exclude_groups": ["always"]}, "exclude_groups: there is no group 'always'"),
        ({"exclude_groups": ["st*"]}, r"exclude_groups: there is no group 'st\*'"),
        ({"exclude_groups": ["S-1-5-21-1-2-3-4"]}, "exclude_groups: there is no group 'S-1-5-21-1-2-3-4'"),
        ({"include_ous": ["OU=Nobody,DC=lab,DC=example"]}, "include_ous: there is no OU or container 'OU=Nobody"),
        ({"exclude_ous": ["CN=staff,CN=Users,DC=lab,DC=example"]}, "exclude_ous: there is no OU or container"),
        ({"include_groups": ["hollow"]}, r"leaves nobody of \d+ users"),
        ({"include_groups": ["staff"], "exclude_ous": ["CN=Users,DC=lab,DC=example"]}, r"leaves nobody of \d+ users"),
        ({"exclude_groups": ["Domain Users", "staff"]}, r"leaves nobody of \d+ users"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused_everywhere(
    controller: DomainController, organisation: Organisation, lists: dict[str, list[str]], words: str
) -> None:
    if lists == {"include_groups": ["hollow"]}:
        organisation.group("hollow")
    capture = Capture(controller).initialise().restart(filters(**lists))
    for everything in (False, True):
        with pytest.raises(ConfigurationError, match=words):
            capture.initialise(everything=everything)
    for user in (None, "always"):
        with pytest.raises(ConfigurationError, match=words):
            capture.recapture(user)
    with pytest.raises(ConfigurationError, match=words):
        capture.until("always")
    assert capture.notebook.events == []


def test_a_group_that_is_deleted_while_running_stops_capturing_and_loses_nothing(
    organisation: Organisation, site: Callable[..., Site]
) -> None:
    doomed = organisation.group("doomed")
    running = site(exclude_groups=["doomed"])
    running.catch_up()
    organisation.delete(doomed)
    password = running.change("always")
    for _ in range(2):
        with pytest.raises(UnavailableError, match=r"there is no group 'doomed'.*Until then nothing is captured"):
            running.capture.until("always")
    organisation.group("doomed")
    running.arrives("always", password)


def test_a_group_named_by_its_sid_may_be_renamed(
    controller: DomainController, organisation: Organisation, site: Callable[..., Site]
) -> None:
    dn = organisation.group("oldname")
    controller.add_user("renamer", canary_password())
    organisation.join("oldname", "renamer")
    running = site(exclude_groups=[organisation.sid("oldname")])
    organisation.rename(dn, "CN=newname")
    organisation.set("oldname", sAMAccountName="newname")
    running.change("renamer")
    running.catch_up()
    assert running.rule("renamer") is Rule.EXCLUDE_GROUP


def test_capture_by_name_says_which_filter_leaves_the_account_out(
    controller: DomainController, site: Callable[..., Site]
) -> None:
    controller.add_user("svc-named", canary_password())
    running = site(exclude_patterns=["svc-*"])
    with pytest.raises(ConfigurationError, match=r"'svc-named': \[filter\] exclude_patterns 'svc-\*' matches"):
        running.capture.recapture("svc-named")
    running.capture.recapture("always")
    running.capture.recapture(None)
    assert {event.account.sam_account_name for event in running.capture.notebook.events} >= {"always"}
    assert running.capture.of("svc-named") == []
