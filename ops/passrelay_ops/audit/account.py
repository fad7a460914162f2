"""One AD user as an audit sees him: who he is, and which version his password has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from ldap3.protocol.formatters.formatters import format_sid
from ldap3.utils.conv import escape_bytes, escape_filter_chars

from passrelay_ops.ad.controller import Attributes
from passrelay_producer.filters import NORMAL_ACCOUNT
from passrelay_producer.metadata import UNICODE_PWD, MetadataError, parse
from passrelay_producer.sources.samba_account import ALL_GROUPS
from passrelay_producer.sources.samba_change import changed_at
from passrelay_schemas.deny import denied
from passrelay_schemas.event import Account
from passrelay_schemas.limits import MAX_FILETIME
from passrelay_schemas.order import OrderKey

ATTRIBUTES = (
    "sAMAccountName",
    "userPrincipalName",
    "objectGUID",
    "objectSid",
    "adminCount",
    "userAccountControl",
    "pwdLastSet",
    "msDS-KeyVersionNumber",
    "replPropertyMetaData",
)
_USERS = "(&(objectClass=user)(!(objectClass=computer)){which})"
"""The same objects that the producer captures."""
_WITHOUT_PASSWORD = 0x20 | 0x2
"""PASSWD_NOTREQD and ACCOUNTDISABLE ([MS-ADTS] 2.2.16): how AD makes an account that has no password yet."""
_NOBODY = UUID(int=0)


@dataclass(frozen=True, slots=True)
class AdAccount:
    """One user of AD at one moment."""

    account: Account
    """What a producer would put into his event, so that the consumer's own match filter fits."""
    kvno: int
    """Version of his password (msDS-KeyVersionNumber); 0 when the controller does not show it."""
    changed_at: int
    """When it was set, as FILETIME; 0 when that cannot be told."""
    origin: UUID | None
    """invocationId of the controller that set it, where replPropertyMetaData can be read."""
    left_out: str | None = None
    """Why passrelay never carries this account, as far as a search for many tells; None when it does."""

    @property
    def name(self) -> str:
        """His sAMAccountName."""
        return self.account.sam_account_name

    @property
    def guid(self) -> UUID:
        """His objectGUID."""
        return self.account.guid

    @property
    def place(self) -> tuple[int, int]:
        """For comparing what two controllers show: the newer password is the greater."""
        return self.kvno, self.changed_at

    def key(self, epoch: int) -> OrderKey | None:
        """His password's place in the order, as an event of it has it; None when only its version is known."""
        if self.origin is None or not self.kvno:
            return None
        return OrderKey.of(
            epoch=epoch, kvno=self.kvno, changed_at=self.changed_at, event_id=_NOBODY, origin=self.origin
        )


def users(name: str | None = None) -> str:
    """The filter for every user, or for one by sAMAccountName or user principal name."""
    if name is None:
        return _USERS.format(which="")
    value = escape_filter_chars(name)
    return _USERS.format(which=f"(|(sAMAccountName={value})(userPrincipalName={value}))")


def by_guid(guids: Iterable[UUID]) -> str:
    """The filter for these users."""
    which = "".join(f"(objectGUID={escape_bytes(guid.bytes_le)})" for guid in guids)
    return _USERS.format(which=f"(|{which})")


def token_groups(values: Attributes | None) -> frozenset[str] | None:
    """The SIDs of all security groups of the user whose tokenGroups these are; None when AD does not show them."""
    found = (values or {}).get(ALL_GROUPS.lower())
    return frozenset(str(format_sid(raw)) for raw in found) if found else None


def read(values: Attributes) -> AdAccount | None:
    """The user of a search result; None for an object whose identity this account may not see or no event can have."""
    if not values.get("objectguid") or not values.get("samaccountname"):
        return None
    name, upn = _text(values, "samaccountname"), _text(values, "userprincipalname")
    sid = values.get("objectsid")
    try:
        account = Account(
            guid=UUID(bytes_le=values["objectguid"][0]),
            sid=str(format_sid(sid[0])) if sid else None,
            sam_account_name=name,
            user_principal_name=upn or None,
        )
    except ValueError:  # pydantic's own too
        return None
    pwd_last_set, kvno = _number(values, "pwdlastset"), _number(values, "msds-keyversionnumber")
    if not 0 <= pwd_last_set <= MAX_FILETIME:
        pwd_last_set = 0
    changed, origin = _origin(values, kvno, pwd_last_set)
    return AdAccount(account, kvno, changed, origin, _left_out(account, values, kvno, pwd_last_set))


def _origin(values: Attributes, kvno: int, pwd_last_set: int) -> tuple[int, UUID | None]:
    """When and where the password was set. Without the metadata pwdLastSet has to do, which a must-change moves too."""
    blob = values.get("replpropertymetadata")
    try:
        stamps = parse(blob[0]) if blob else {}
    except MetadataError:
        stamps = {}
    stamp = stamps.get(UNICODE_PWD)
    if stamp is None or stamp.version != kvno:
        return pwd_last_set, None
    return changed_at(pwd_last_set, stamps), stamp.invocation_id


def _left_out(account: Account, values: Attributes, kvno: int, pwd_last_set: int) -> str | None:
    why = denied(sam_account_name=account.sam_account_name, sid=account.sid, admin_count=_number(values, "admincount"))
    if why is not None:
        return why
    control = _number(values, "useraccountcontrol") or NORMAL_ACCOUNT
    if not control & NORMAL_ACCOUNT:
        return "not a normal account (userAccountControl)"
    if kvno <= 1 and not pwd_last_set and control & _WITHOUT_PASSWORD == _WITHOUT_PASSWORD:
        return "disabled, and no password was ever set"
    return None


def _text(values: Attributes, name: str) -> str:
    return values[name][0].decode("utf-8", "surrogateescape") if values.get(name) else ""


def _number(values: Attributes, name: str) -> int:
    try:
        return int(values[name][0]) if values.get(name) else 0
    except ValueError:
        return 0
