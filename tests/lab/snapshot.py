"""A domain controller's database as a backup of its disk has it, and three ways to put it back."""

from __future__ import annotations

import base64
import itertools
import shutil
from pathlib import Path
from uuid import uuid4

import ldap3

from passrelay_producer.sources.samba_directory import SambaDirectory
from tests.lab.changes import replace_values
from tests.lab.process import run_tool
from tests.lab.samba import DomainController


class Snapshot:
    """Taken from a running controller, which is stopped for it and runs again afterwards."""

    def __init__(self, controller: DomainController, folder: Path) -> None:
        self._controller = controller
        self._database = controller.folder / "private"
        self._copy = folder / "private"
        controller.stop()
        shutil.copytree(self._database, self._copy, ignore=shutil.ignore_patterns("ldap*"))
        controller.start()

    def restore(self, *, new_invocation_id: bool = False) -> None:
        """Put the copy back; with `new_invocation_id` as Samba's and Microsoft's own restores do it."""
        settings = self._settings_dn() if new_invocation_id else None
        self._controller.stop()
        shutil.copytree(self._copy, self._database, dirs_exist_ok=True)
        if settings is not None:
            value = base64.b64encode(uuid4().bytes_le).decode()
            ldif = f"dn: {settings}\nchangetype: modify\nreplace: invocationId\ninvocationId:: {value}\n"
            command = ["ldbmodify", "--relax", "-H", str(self._database / "sam.ldb")]
            run_tool(command, env=self._controller.env, stdin=ldif.encode())
        self._controller.start()

    def _settings_dn(self) -> str:
        with self._controller.local_connection() as connection:
            connection.search("", "(objectClass=*)", ldap3.BASE, attributes=["dsServiceName"])
            return str((connection.response or [])[0]["raw_attributes"]["dsServiceName"][0].decode())


def highest_usn(controller: DomainController) -> int:
    """The number of the last change in its database."""
    with SambaDirectory(controller.ldapi_path) as directory:
        return directory.highest_usn()


def overtake(controller: DomainController, usn: int) -> None:
    """Change something that is no password until the database has used up every number up to `usn`."""
    guest = controller.account("Guest")["dn"]
    with controller.local_connection() as connection:
        for number in itertools.count():
            if highest_usn(controller) > usn:
                return
            replace_values(connection, guest, {"description": str(number)})
