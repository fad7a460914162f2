"""A real 389 Directory Server with IPA's own password plugin, policy and realm. No KDC runs: the plugin needs none."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ldap3 import MODIFY_ADD, MODIFY_DELETE, MODIFY_REPLACE

from passrelay_ops.idm.ldif import render
from passrelay_ops.idm.templates import wanted
from tests.lab.certificates import CertificateAuthority
from tests.lab.directory import Directory
from tests.lab.directory_tree import Changes, add, demand, modify
from tests.lab.ipa_plugin import Plugin
from tests.lab.network import Reservations

PLUGIN_DN = "cn=ipa_pwd_extop,cn=plugins,cn=config"
MAX_LIFE_SECONDS = 90 * 24 * 3600
"""krbMaxPwdLife of the global policy, as IPA's installer sets it."""
_REALM = "IDM.TEST"
_DELETED = "cn=deleted users,cn=accounts,cn=provisioning"
_CREDENTIALS = ("krbPrincipalKey", "krbLastPwdChange", "krbPasswordExpiration", "userPassword")


class IpaDirectory(Directory):
    """A Directory whose password writes go through IPA's plugin.

    passrelay's service account is in passSyncManagersDNs, as the README tells the administrator to put it there.
    """

    def __init__(
        self,
        folder: Path,
        reservations: Reservations,
        ca: CertificateAuthority,
        plugin: Plugin,
        *,
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self._kerberos = folder / "krb5.conf"
        server = {**(os.environ if environment is None else environment), "KRB5_CONFIG": str(self._kerberos)}
        super().__init__(folder, reservations, ca, environment=server, **options)
        self._plugin = plugin

    @property
    def policy_dn(self) -> str:
        """The password policy of everybody who has no other."""
        return f"cn=global_policy,{self._realm_dn}"

    @property
    def _realm_dn(self) -> str:
        return f"cn={_REALM},cn=kerberos,{self.suffix}"

    def configure(self) -> None:
        """Beside the server's own configuration: the plugin, its realm and IPA's schema."""
        super().configure()
        self._kerberos.write_text(f"[libdefaults]\n default_realm = {_REALM}\n")
        for path in self._plugin.schema:
            shutil.copy(path, self.layout.config / "schema")
        entry = self._plugin.entry.replace("changetype: add\n", "").replace("$SUFFIX", self.suffix)
        entry = entry.replace(": libipa_pwd_extop\n", f": {self._plugin.shared_object}\n")
        dse = self.layout.config / "dse.ldif"
        # One blank line between entries: at two the server ends without a word.
        dse.write_text(f"{dse.read_text().strip()}\n\n{entry.strip()}\n")

    def create_tree(self) -> None:
        """With the realm: without it the plugin refuses every password."""
        super().create_tree()
        self._add_realm()

    def setup(self) -> None:
        """What the README tells, this server's own configuration included."""
        super().setup()
        self.add_manager()

    def _add_realm(self) -> None:
        container = {"objectClass": ["top", "krbContainer"], "cn": ["kerberos"]}
        # No krbDefaultEncSaltTypes: aes-cts keys only. With IPA's aes-sha2 keys too a write takes six times as long.
        realm: dict[str, list[Any]] = {
            "objectClass": ["top", "krbRealmContainer", "krbTicketPolicyAux"],
            "cn": [_REALM],
            "krbSubTrees": [self.suffix],
            "krbMKey": [_master_key()],
        }
        policy = {
            "objectClass": ["top", "nsContainer", "krbPwdPolicy", "ipaPwdPolicy"],
            "cn": ["global_policy"],
            "krbMinPwdLife": ["3600"],
            "krbPwdMinDiffChars": ["0"],
            "krbPwdMinLength": ["8"],
            "krbPwdHistoryLength": ["0"],
            "krbMaxPwdLife": [str(MAX_LIFE_SECONDS)],
            "krbPwdMaxFailure": ["6"],
            "krbPwdFailureCountInterval": ["60"],
            "krbPwdLockoutDuration": ["600"],
        }
        config = {"objectClass": ["top", "nsContainer", "ipaConfigObject"], "cn": ["ipaConfig"]}
        with self.manager() as manager:
            add(manager, f"cn=kerberos,{self.suffix}", container)
            add(manager, self._realm_dn, realm)
            add(manager, self.policy_dn, policy)
            add(manager, f"cn=ipaConfig,cn=etc,{self.suffix}", config)

    # --- what an IPA administrator does

    def add_manager(self) -> None:
        """What `passrelay idm setup` writes into this server's own configuration: the list, and a look at it."""
        self.apply_ldif(render(wanted(self.site).managers))

    def set_managers(self, *dns: str) -> None:
        """Who is in passSyncManagersDNs; the plugin reads it anew for each password."""
        self._change(PLUGIN_DN, {"passSyncManagersDNs": [(MODIFY_REPLACE, list(dns))]})

    def change_rules(self, dn: str, *, add: Sequence[str] = (), delete: Sequence[str] = ()) -> None:
        """Access rules of one entry, also of the server's own configuration."""
        self._change(dn, {"aci": [(MODIFY_DELETE, list(delete))] if delete else [(MODIFY_ADD, list(add))]})

    def set_policy(self, **values: int) -> None:
        """Change the global policy, e.g. `set_policy(krbPwdHistoryLength=5)`."""
        self._change(self.policy_dn, {name: [(MODIFY_REPLACE, [str(value)])] for name, value in values.items()})

    def expire(self, uid: str, at: datetime) -> None:
        """`ipa user-mod --password-expiration`."""
        self._change(self.user_dn(uid), {"krbPasswordExpiration": [(MODIFY_REPLACE, [f"{at:%Y%m%d%H%M%SZ}"])]})

    def preserve(self, uid: str) -> None:
        """`ipa user-del --preserve`: moved away, and without a password (ipaserver/plugins/user.py)."""
        self._move(self.user_dn(uid), f"{_DELETED},{self.suffix}")
        dn = f"uid={uid},{_DELETED},{self.suffix}"
        present = self.read_entry(dn)
        self._change(dn, {name: [(MODIFY_DELETE, [])] for name in _CREDENTIALS if name in present})

    def undelete(self, uid: str) -> None:
        """`ipa user-undel`: back among the users, still without a password."""
        self._move(f"uid={uid},{_DELETED},{self.suffix}", self.search_base)

    def _move(self, dn: str, below: str) -> None:
        with self.manager() as manager:
            manager.modify_dn(dn, dn.partition(",")[0], delete_old_dn=True, new_superior=below)
            demand(manager, f"move {dn} below {below}")

    def _change(self, dn: str, changes: Changes) -> None:
        with self.manager() as manager:
            modify(manager, dn, changes)


def _master_key() -> bytes:
    """A made-up krbMKey: DER SEQUENCE {version 1, SEQUENCE {type 18 (aes256-cts, RFC 3962), 32 bytes}}."""
    return bytes.fromhex("302a020101 3025020112 0420") + secrets.token_bytes(32)
