"""Where an administrator of IdM works: an ops.toml for some directory servers, and `passrelay idm` run from there."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ldap3 import BASE, SUBTREE
from typer.testing import CliRunner

from passrelay_consumer.directory import Directory as ConsumerDirectory
from passrelay_consumer.directory import ProbeResult
from passrelay_ops.cli import app
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.secret import Secret
from tests.lab.directory import Directory
from tests.lab.directory_tree import demand
from tests.lab.enrolment import DOMAIN, DOMAIN_SID, toml
from tests.lab.folder import canary_password

_OPERATIONAL = ("nsAccountLock", "aci")
_PLUGIN_DN = "cn=ipa_pwd_extop,cn=plugins,cn=config"


@dataclass
class IdmOffice:
    """One administrator and his servers; `idm` holds what his [idm] says beside the defaults."""

    folder: Path
    servers: list[Directory]
    idm: dict[str, Any] = field(default_factory=dict)
    search_base: str = ""
    output: str = ""
    """All that the last command printed."""

    @property
    def settings(self) -> dict[str, Any]:
        """[idm] as it stands in the file."""
        first = self.servers[0]
        return {
            "servers": [server.ldaps_url for server in self.servers],
            "ca_file": str(first.ca_file),
            "bind_dn": first.service_dn,
            "password_file": str(self.password_file),
            "timeout_seconds": 5,
            **self.idm,
        }

    @property
    def password_file(self) -> Path:
        """The service account's password, which setup makes."""
        return self.folder / "idm.password"

    @property
    def ops_file(self) -> Path:
        """His ops.toml, written anew."""
        domain = {"name": DOMAIN, "sid": DOMAIN_SID, "search_base": self.search_base or self.servers[0].search_base}
        path = self.folder / "ops.toml"
        path.write_text(toml({"broker": {"url": "amqp://127.0.0.1/"}, "idm": self.settings, "domain": [domain]}))
        return path

    def run(self, *arguments: str, exit_code: int = 0, login: bool = True) -> dict[str, Any]:
        """The document of `passrelay idm ...`, run as Directory Manager."""
        known = ["--bind-password-file", str(self.servers[0].manager_file)] if login else []
        result = CliRunner().invoke(app, ["idm", *arguments, *known, "--config", str(self.ops_file), "--json"])
        self.output = result.output
        assert result.exit_code == exit_code, result.output
        parsed: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        return parsed

    def complaint(self, *arguments: str, exit_code: int, login: bool = True) -> str:
        """What the command says about its failure."""
        failures = self.run(*arguments, exit_code=exit_code, login=login)["failures"]
        return "\n".join(f"{failure['subject']}: {failure['detail']}" for failure in failures)

    def not_good(self, document: dict[str, Any]) -> dict[str, str]:
        """The checks that are not ok, with their results."""
        return {row["id"]: row["result"] for row in document["checks"] if row["result"] != "ok"}

    def probe(self, server: Directory) -> ProbeResult:
        """What a consumer's probe says about a server."""
        directory = ConsumerDirectory(server.ldaps_url, IdmSettings.model_validate(self.settings))
        try:
            return directory.probe(Secret(canary_password()))
        finally:
            directory.close()


def ldif(directory: Directory, *, operational: bool = False) -> list[str]:
    """All that is in a server that setup could touch, as sorted lines: the tree, its schema, and the plugin's list.

    With `operational` also who wrote each entry and when.
    """
    wanted = ["*", *_OPERATIONAL, *(("modifyTimestamp", "modifiersName") if operational else ())]
    lines = []
    with directory.manager() as manager:
        for base, scope, attributes in (
            (directory.suffix, SUBTREE, wanted),
            ("cn=schema", BASE, ["attributeTypes", "objectClasses"]),
            (_PLUGIN_DN, BASE, ["passSyncManagersDNs", "aci"]),
        ):
            manager.search(base, "(objectClass=*)", scope, attributes=attributes)
            if base != _PLUGIN_DN:
                demand(manager, f"read {base}")
            for item in manager.response or []:
                for name, values in item["raw_attributes"].items():
                    lines += [f"{item['dn']}: {name}: {value!r}" for value in values]
    return sorted(lines)
