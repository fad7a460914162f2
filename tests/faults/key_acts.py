"""What administrators do with keys, as docs/keys.md says, in the middle of everything else."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from passrelay_ops import key_enrolment
from passrelay_schemas.filetime import rfc3339, utc_now
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import private_path, public_path
from tests.faults.plan import ALL_PRODUCERS, FAR
from tests.faults.site import Site

_NEAR = "c1"
_BEFORE = timedelta(minutes=10)
"""The runbook says 72 hours, all that a spool keeps. What waits for minutes on a busy machine must be among it."""
"""What was published shortly before a revocation may not have been handled yet."""


class Key:
    """The life of the site's keys."""

    def __init__(self, site: Site, dice: random.Random) -> None:
        self._site = site
        self._dice = dice

    @contextmanager
    def signing_rotated(self, producer: str) -> Iterator[None]:
        """Known to every consumer first, then used."""
        self._new_signing_key(producer)
        yield
        self._site.keys(producer, "rotate", "signing", "--activate", "--yes")

    def _new_signing_key(self, producer: str) -> None:
        new = _key_id(self._site.keys(producer, "rotate", "signing"))
        document = public_path(self._site.enrolment.producer_keys(producer), new)
        for consumer in (_NEAR, FAR):
            self._enroll(consumer, document)

    def _enroll(self, host: str, document: Path) -> None:
        """`passrelay keys enroll --yes`, without the second that a start of Python takes on a busy machine."""
        directory = self._site.enrolment.producer_keys(host) if host in ALL_PRODUCERS else self._site.keys_of(host)
        key_enrolment.enroll(directory, key_enrolment.plan(directory, [document]))

    @contextmanager
    def signing_revoked(self, producer: str) -> Iterator[None]:
        """docs/runbooks/stolen-producer-key.md: revoked at the consumers, then everything of that time once more."""
        since = utc_now() - _BEFORE
        old = Keyring(self._site.enrolment.producer_keys(producer)).signer().document.key_id
        self._site.keys(_NEAR, "revoke", old, "--yes")
        document = public_path(self._site.keys_of(_NEAR), old)
        self._enroll(FAR, document)
        yield
        self._enroll(producer, document)
        self._new_signing_key(producer)
        self._site.keys(producer, "rotate", "signing", "--activate", "--yes")
        self._site.republish(producer, rfc3339(since))

    @contextmanager
    def recipient_rotated(self, *, late: bool) -> Iterator[None]:
        """On every consumer before any producer seals to it; or the far consumer gets it `late`."""
        near, far = self._site.keys_of(_NEAR), self._site.keys_of(FAR)
        new = _key_id(self._site.keys(_NEAR, "rotate", "recipient"))
        document = public_path(near, new)
        if not late:
            shutil.copy2(private_path(near, new), far)
            shutil.copy2(document, far)
        self._site.keys(_NEAR, "rotate", "recipient", "--activate", "--yes")
        hosts = [*ALL_PRODUCERS, *([] if late else [FAR])]
        for host in self._dice.sample(hosts, len(hosts)):
            self._enroll(host, document)
        yield
        if late:
            shutil.copy2(private_path(near, new), far)
            self._enroll(FAR, document)


def _key_id(document: dict[str, Any]) -> str:
    key_id: str = document["keys"][0]["key_id"]
    return key_id
