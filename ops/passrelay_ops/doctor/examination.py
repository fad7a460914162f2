"""All checks of one host: each file's role brings its own, and what one of them explains is not told twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from passrelay_ops.ad import checks as ad_checks
from passrelay_ops.ad import view as ad_view
from passrelay_ops.check import Result, Row
from passrelay_ops.connection import connect
from passrelay_ops.doctor import broker, consumers, directory, keyring, producers, samba, spool, windows
from passrelay_ops.doctor.host import HostFile
from passrelay_ops.idm.login import Login
from passrelay_ops.idm.site import Site
from passrelay_ops.news import Heard
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import PassrelayError
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyUse
from passrelay_schemas.secret_file import read_secret_file
from passrelay_schemas.settings import ConsumerSettings, OpsSettings, ProducerSettings, RoleSettings
from passrelay_schemas.source_settings import HookSourceSettings
from passrelay_schemas.topology import NEWS

_OF_SERVER = ("ad.connect", "ad.certificate", "ad.bind", "ad.clock", "ad.sid", "ad.groups")
_OF_DOMAIN = ("ad.complexity", "ad.producers")


class Examination:
    """Looks at what the files name, in the order in which one thing rests on another; `rows` grows meanwhile."""

    def __init__(self, files: Sequence[HostFile], login: Login | None, progress: Callable[[str], None]) -> None:
        """`login`: whom IdM lets see its configuration; None: the service account looks, and sees less."""
        self.rows: list[Row] = []
        self.versions: dict[str, str] = {}
        """What servers say they are, by their place in a document's `servers`."""
        self._files = files
        self._login = login
        self._progress = progress
        self._stopped: dict[str, str] = {}
        """Producers of this host that a check has found not running, with its id."""
        self._seen_idm: list[tuple[IdmSettings, tuple[str | None, ...]]] = []
        self._seen_keys: set[Path] = set()

    def run(self) -> list[Row]:
        """Every row."""
        for file in self._files:
            self.rows += file.rows
        # Producers first, operators last: what is known of this host explains what is heard from it.
        order = {"producer": 0, "consumer": 1, "ops": 2}
        readable = [(file, file.settings) for file in self._files if file.settings is not None]
        for file, settings in sorted(readable, key=lambda one: order[one[0].role]):
            self._progress(f"{file.path}: looking")
            self._role(file, settings)
        self.rows = consumers.explained(self.rows, [file.path for file in self._files if file.role == "consumer"])
        return self.rows

    def _role(self, file: HostFile, settings: RoleSettings) -> None:
        broker_good = self._broker(file, settings)
        keys = Keyring.of(settings.keys) if file.good("keys") else None
        if isinstance(settings, ProducerSettings):
            if keys is not None:
                self._expiry(keys)
            self._producer(file, settings, keys, broker_good=broker_good)
            return
        heard: Heard | str = "this role does not read news"
        if isinstance(settings, OpsSettings):
            heard = self._news(settings, keys, broker_good=broker_good)
        if keys is not None:
            self._keys(keys, settings, heard)
        if isinstance(settings, OpsSettings):
            self._producers(file, settings, keys, heard)
        if isinstance(settings, ConsumerSettings | OpsSettings) and settings.idm is not None:
            self._idm(file, settings.idm, settings.domain)

    def _failed(self, check: str, subject: str) -> bool:
        return any((row.id, row.subject, row.result) == (check, subject, Result.FAIL) for row in self.rows)

    # --- broker

    def _broker(self, file: HostFile, settings: RoleSettings) -> bool:
        subject = f"{settings.broker.shown} ({file.path.name})"
        if not file.good("broker"):
            why = "config.broker failed"
            self.rows += [Row(check, subject, Result.UNKNOWN, why) for check in broker.ids(file.role)]
            return False
        view = broker.look(settings.broker, file.role)
        if view.version:
            self.versions["rabbitmq"] = view.version
        found = broker.rows(subject, file.role, view)
        self.rows += found
        # Of these two nothing else rests on; with a certificate that is refused all the others are unknown.
        alone = {broker.CONSUMERS, broker.CERTIFICATE}
        return all(row.result is Result.OK for row in found if row.id not in alone)

    # --- keys and news

    def _expiry(self, keys: Keyring) -> None:
        if keys.directory not in self._seen_keys:
            self.rows.append(keyring.expiry(str(keys.directory), keys.documents(), utc_now()))
            self._seen_keys.add(keys.directory)

    def _keys(self, keys: Keyring, settings: RoleSettings, heard: Heard | str) -> None:
        """A consumer and an operator may share a directory: each producer has one row there, of whom knows more."""
        self._expiry(keys)
        documents, subject = list(keys.documents()), str(keys.directory)
        if isinstance(settings, ConsumerSettings):
            names = sorted({name for domain in settings.domain for name in domain.producers})
        elif isinstance(settings, OpsSettings):
            names = producers.expected(settings, documents)
        else:
            names = []
        wrong = {} if isinstance(heard, str) else producers.misused(heard, utc_now())
        # Somebody without a key here who speaks all the same, where no list says who should.
        for name in sorted({*names, *(wrong if any(key.producer for key in documents) else ())}):
            row = producers.signing(keyring.signing(subject, name, documents), wrong.get(name))
            self.rows = [old for old in self.rows if (old.id, old.subject) != (row.id, row.subject)]
            self.rows.append(row)

    def _news(self, settings: OpsSettings, keys: Keyring | None, *, broker_good: bool) -> Heard | str:
        if keys is None:
            return "config.keys failed"
        if not any(True for _ in keys.documents(KeyUse.SIGNING)):
            return "no producer's signing key is enrolled here (`passrelay keys enroll`), so no news can be believed"
        if not broker_good:
            return "a check of the broker is not ok"
        try:
            with connect(settings.broker) as connection:
                return producers.hear(connection, keys, producers.expected(settings, list(keys.documents())))
        except PassrelayError as error:
            return f"the stream {NEWS} cannot be read: {error}"

    def _producers(self, file: HostFile, settings: OpsSettings, keys: Keyring | None, heard: Heard | str) -> None:
        names = producers.expected(settings, list(keys.documents()) if keys is not None else [])
        explained = {**self._stopped}
        for row in self.rows:
            if row.id == "keys.signing" and row.result is Result.FAIL:
                explained[row.subject.partition(" in ")[0]] = row.id
        self.rows += producers.alive(names, heard, explained, utc_now())
        self.rows += producers.one_key(settings, heard)
        if keys is not None and not isinstance(heard, str):
            speakers = sorted(name for name, said in heard.news.items() if said.source == "hook")
            self.rows.append(windows.hook_key(str(keys.directory), speakers, list(keys.documents())))
        self._ad(file, settings, heard, names)

    # --- hosts

    def _producer(self, file: HostFile, settings: ProducerSettings, keys: Keyring | None, *, broker_good: bool) -> None:
        subject = str(file.path)
        if settings.source.samba is not None:
            if file.good("source"):
                view = samba.look(settings, settings.source.samba)
                self.rows += samba.rows(subject, settings, settings.source.samba, view)
            else:
                self.rows += [Row(check, subject, Result.UNKNOWN, "config.source failed") for check in samba.ids()]
        if settings.source.hook is not None:
            self._windows(file, settings.source.hook, keys)
        if not file.good("spool"):
            self.rows += [Row(check, subject, Result.UNKNOWN, "config.spool failed") for check in spool.IDS]
            return
        found = spool.rows(subject, settings, spool.look(settings.spool), broker_good=broker_good, now=time.time())
        self.rows += found
        failed = [row.id for row in found if row.result is Result.FAIL]
        failed += ["config.keys"] if keys is None else []
        failed += [] if broker_good else ["the broker"]
        for key in keys.documents(KeyUse.SIGNING) if keys is not None and failed else ():
            if key.producer is not None:
                self._stopped[key.producer] = failed[0]

    def _windows(self, file: HostFile, hook: HookSourceSettings, keys: Keyring | None) -> None:
        subject = file.subject
        try:
            facts = windows.look(hook)
        except PassrelayError as error:
            what, _, repair = str(error).rpartition(": ")
            self.rows += [Row(check, subject, Result.UNKNOWN, what, repair) for check in windows.ids()]
            return
        mine = [key.producer for key in keys.documents(KeyUse.SIGNING) if keys.has_private(key)] if keys else []
        self.rows += windows.rows(subject, facts, producer=mine[-1] if mine else None)
        if file.good("source"):
            self.rows.append(windows.controller(subject, facts, hook))
        else:
            self.rows.append(Row(windows.CONTROLLER, subject, Result.UNKNOWN, "config.source failed"))

    def _idm(self, file: HostFile, idm: IdmSettings, domains: Sequence[DomainSettings]) -> None:
        seen = (idm, tuple(domain.search_base for domain in domains))
        if seen in self._seen_idm:
            return
        self._seen_idm.append(seen)
        if not file.good("idm"):
            why = "config.idm failed"
            self.rows += [Row(check, url, Result.UNKNOWN, why) for url in idm.servers for check in directory.IDS]
            return
        try:
            site = Site.of(idm, domains)
        except PassrelayError as error:
            what, _, repair = str(error).rpartition(": ")
            self.rows.append(Row("config.idm", str(file.path), Result.FAIL, what, repair))
            return
        login = self._login or Login(idm.bind_dn, read_secret_file(idm.password_file, what="[idm] password_file"))
        views = [directory.look(url, idm, site, login) for url in idm.servers]
        self.rows += directory.rows(site, views, as_service=self._login is None)

    def _ad(self, file: HostFile, settings: OpsSettings, heard: Heard | str, names: Sequence[str]) -> None:
        silent = [name for name in names if not self._alive(name)]
        for domain in settings.domain:
            if domain.ad is None:
                continue
            if not file.good("domain"):
                why = "config.domain failed"
                self.rows += [Row(check, url, Result.UNKNOWN, why) for url in domain.ad.servers for check in _OF_SERVER]
                self.rows += [Row(check, domain.name, Result.UNKNOWN, why) for check in _OF_DOMAIN]
                continue
            views = [ad_view.look(url, domain.ad) for url in domain.ad.servers]
            found = ad_checks.rows(domain, views, heard, utc_now())
            self.rows += [producers.at_controller(row, heard, silent) for row in found]

    def _alive(self, producer: str) -> bool:
        return any((row.id, row.subject, row.result) == ("producer.alive", producer, Result.OK) for row in self.rows)
