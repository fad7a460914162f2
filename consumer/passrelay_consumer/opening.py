"""From bytes to an event that may be written: the first six of the twelve steps, for several deliveries at once.

1 limits and shape of the envelope      2 signer in the keyring, signature       3 domain = the signer's enrolment
4 open                                  5 parse; the SID belongs to the domain   6 deny rules
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from passrelay_consumer.hook_part import with_password
from passrelay_consumer.outcome import Delivery, Outcome
from passrelay_consumer.progress import Progress
from passrelay_schemas.deny import denied
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.enrolment import Enrolments, check_event
from passrelay_schemas.envelope import Envelope
from passrelay_schemas.errors import EventError, MalformedError, PolicyError, ProtectedError
from passrelay_schemas.event import PasswordChanged, decode
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.limits import MAX_PASSWORD_UTF8
from passrelay_schemas.secret import Secret
from passrelay_schemas.signing import verify


@dataclass(frozen=True, slots=True)
class Trusted:
    """An event that its producer may send for its domain, and that no rule forbids. Holds clear text."""

    event: PasswordChanged
    domain: DomainSettings
    progress: Progress


Opened = Trusted | Outcome
"""What came of a delivery: an event, or the outcome that refuses it."""

_Steps = Generator[None, None, Trusted]


class Opening:
    """Opens deliveries; safe for any number of threads."""

    def __init__(self, domains: Sequence[DomainSettings], keyring: Keyring) -> None:
        self._enrolments = Enrolments(domains)
        self._keyring = keyring

    def open(self, deliveries: Sequence[Delivery]) -> list[Opened]:
        """What each holds, in their order. Never raises for bad input.

        One step is done for all of them before the next: its code is in the processor's caches from the second on.
        """
        begun = [self._begun(delivery) for delivery in deliveries]
        opened: dict[int, Opened] = {}
        while len(opened) < len(begun):
            for number, (steps, progress) in enumerate(begun):
                if number not in opened and (ended := _advanced(steps, progress)) is not None:
                    opened[number] = ended
        return [opened[number] for number in range(len(begun))]

    def _begun(self, delivery: Delivery) -> tuple[_Steps, Progress]:
        counters = delivery.counters
        progress = Progress(settling=counters.settle > 0, settle_since=counters.settle_since)
        return self._steps(delivery.body, progress), progress

    def _steps(self, raw: bytes, progress: Progress) -> _Steps:
        # 1. Limits and shape.
        envelope = Envelope.parse(raw)
        header = progress.header = envelope.header
        progress.signed_at = envelope.signed_at
        yield
        # 2. The signer must be in the keyring and its signature good.
        signer = self._keyring.signing_key(envelope.signer.signing_key_id)
        verify(envelope, signer)
        progress.authentic = True
        yield
        # 3. The signer must be enrolled for the domain that the header names.
        domain = self._enrolments.domain_of(producer=header.producer, domain=header.domain)
        # 4. Open. The algorithm is the key's; a header that names another one is refused.
        opener = self._keyring.opener(header.recipient_key_id)
        if header.suite != opener.document.algorithm:
            raise MalformedError("the header names another suite than the recipient key has")
        if len(envelope.sealed) != 1:
            raise MalformedError("this version takes events of one sealed part")
        plain = opener.open(envelope.sealed[0], info=envelope.protected)
        yield
        # 5. Parse; the event must belong to the domain of its envelope.
        event = progress.event = decode(plain)
        check_event(event, domain)
        event = progress.event = with_password(event, producer=header.producer, domain=domain, keyring=self._keyring)
        # 6. Deny rules: the producer has them too, but this side counts.
        account = event.account
        why = denied(sam_account_name=account.sam_account_name, sid=account.sid)
        if why is not None:
            raise ProtectedError(why)
        _check_password(event.password)
        return Trusted(event, domain, progress)


def _advanced(steps: _Steps, progress: Progress) -> Opened | None:
    """The end of the steps; None: there are more."""
    try:
        next(steps)
    except StopIteration as end:
        trusted: Trusted = end.value
        return trusted
    except EventError as error:
        return progress.refused(error)
    return None


def _check_password(password: Secret | None) -> None:
    if password is None:
        return
    text = password.reveal()
    if "\0" in text:
        raise PolicyError("the password has a NUL character, which directories cut or misread")
    if text.upper().startswith("{CLEAR}"):
        raise PolicyError("the password begins with {CLEAR}, which IPA would cut off")
    if len(text.encode("utf-8")) > MAX_PASSWORD_UTF8:
        raise PolicyError(f"the password has more than IdM's {MAX_PASSWORD_UTF8} bytes")
