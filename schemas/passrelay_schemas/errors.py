"""The one error tree. A message names the thing, the value (never a secret) and the repair."""

from __future__ import annotations

from typing import ClassVar

from passrelay_schemas.verdict import Reason


class PassrelayError(Exception):
    """Any failure that passrelay explains itself; `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class ConfigurationError(PassrelayError):
    """A setting, file or argument is wrong and only a person can repair it."""

    exit_code = 2


class UnavailableError(PassrelayError):
    """A server cannot be reached or used now; trying again later may help."""

    exit_code = 3


class SafetyError(PassrelayError):
    """Refused, because going on could lose or expose something."""

    exit_code = 4


class KeyFileError(ConfigurationError):
    """A key file is missing, readable by others, damaged or of the wrong kind."""


class MarkerError(PassrelayError):
    """The marker attribute of an entry holds something that passrelay did not write."""


class EventError(PassrelayError):
    """This event cannot be taken as it is; `reason` is its entry in the closed list of reasons."""

    reason: ClassVar[Reason]


class MalformedError(EventError):
    """Not an envelope or event of this version: wrong shape, doubled or unknown fields, or it cannot be opened."""

    reason = Reason.MALFORMED


class TooLargeError(EventError):
    """A field or the whole is larger than its named limit."""

    reason = Reason.TOO_LARGE


class BadSignatureError(EventError):
    """The signature does not fit the bytes, though its key is known."""

    reason = Reason.BAD_SIGNATURE


class UntrustedError(EventError):
    """The signing key is not in the keyring (yet)."""

    reason = Reason.UNTRUSTED


class RevokedError(EventError):
    """The signing key was revoked."""

    reason = Reason.REVOKED


class UnknownKeyError(EventError):
    """The recipient key is not in the keyring (yet), or its private part is not on this host."""

    reason = Reason.UNKNOWN_KEY


class ForeignDomainError(EventError):
    """The signer is not enrolled for the domain, or the account does not belong to it."""

    reason = Reason.FOREIGN_DOMAIN


class EmptyPasswordError(EventError):
    """An empty password: a directory would accept it and mean an anonymous bind."""

    reason = Reason.EMPTY_PASSWORD


class PolicyError(EventError):
    """The password can never be what the user typed: the directory's policy or syntax forbids it."""

    reason = Reason.POLICY


class ProtectedError(EventError):
    """The account is of a kind that is never written (machine, krbtgt, built-in administrator)."""

    reason = Reason.PROTECTED
