"""How far a domain controller's database was read, and how to notice that it is no longer that database.

A controller restored from a snapshot gives USNs a second time. With a cookie from before, the server would hide what
was written under USNs that we have read already, without an error. So the cursor keeps witnesses: the newest password
writes that were read. The writes found later must contain them, and between them nothing that was never read.
"""

from __future__ import annotations

import base64
import binascii
import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from passrelay_schemas.errors import ConfigurationError

WITNESSES = 16
"""A restore is overlooked only when all these accounts got new passwords after it and before the producer looked."""


@dataclass(frozen=True)
class Cursor:
    """A place in one database."""

    cookie: bytes
    invocation_id: UUID
    usn: int
    """Every password write up to this highestCommittedUSN was read."""
    witnesses: Mapping[UUID, int] = field(default_factory=dict)
    """The newest password writes that were read: account and local USN. None above the least of them is missing."""

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> Self:
        """The cursor of a spool; ConfigurationError when `producer init` never ran or another source wrote it."""
        try:
            cookie = base64.b64decode(values["cookie"], validate=True)
            pairs = (pair.split(":") for pair in values.get("witnesses", "").split())
            witnesses = {UUID(guid): int(usn) for guid, usn in pairs}
            return cls(cookie, UUID(values["invocation_id"]), int(values["usn"]), witnesses)
        except (KeyError, ValueError, binascii.Error):
            raise ConfigurationError(
                "the spool has no cursor of a Samba source: run `passrelay producer init --from now|all`"
            ) from None

    def mapping(self) -> dict[str, str]:
        """As the spool keeps it."""
        return {
            "cookie": base64.b64encode(self.cookie).decode(),
            "invocation_id": str(self.invocation_id),
            "usn": str(self.usn),
            "witnesses": " ".join(f"{guid}:{usn}" for guid, usn in self.witnesses.items()),
        }

    @property
    def least(self) -> int:
        """From this USN on every password write is a witness, up to `usn`."""
        return min(self.witnesses.values(), default=self.usn + 1)

    def restored(self, *, invocation_id: UUID, usn: int, writes: Mapping[UUID, int | None]) -> str | None:
        """What shows that the database is another one, or an older state of itself; None when nothing does.

        `writes` are the accounts changed since `least`: each one's newest password write, None where it has none.
        """
        if invocation_id != self.invocation_id:
            return "another invocation id"
        if usn < self.usn:
            return "a lower USN"
        for guid, known in self.witnesses.items():
            # An account that was deleted or changed since stands under a higher USN, never under a lower one.
            if guid not in writes or ((found := writes[guid]) is not None and found < known):
                return "a password write that was read is gone"
        for guid, found in writes.items():
            if found is not None and self.least <= found <= self.usn and self.witnesses.get(guid) != found:
                return "a password write under a USN that was read before"
        return None


def newest(*writes: Mapping[UUID, int]) -> dict[UUID, int]:
    """The witnesses among these writes; later mappings win."""
    merged = {guid: usn for part in writes for guid, usn in part.items()}
    return dict(heapq.nlargest(WITNESSES, merged.items(), key=lambda item: item[1]))
