"""Every parser of bytes from outside: valid samples, how to spoil them, the call, and the errors that it may raise.

A call goes as far as the product does with what was parsed: what is accepted must also be decided, rendered and
recorded without an exception. Any error that is not named here is a finding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from passrelay_consumer.result_codes import DirectoryError
from passrelay_producer import metadata, supplemental
from passrelay_producer.sources.samba_account import UnreadableError
from passrelay_schemas.errors import (
    ConfigurationError,
    EventError,
    KeyFileError,
    MarkerError,
    SafetyError,
    UnavailableError,
)
from tests.hostile import broker_calls, event_calls, host_calls, mutations, operator_calls, samples, source_calls
from tests.hostile.setting import no_canary

Mutate = Callable[[Random, bytes], bytes]


@dataclass(frozen=True)
class Parser:
    """One parser. `call` may raise one of `errors`; the message of these may hold no canary and is of limited size."""

    name: str
    samples: tuple[bytes, ...]
    mutate: Mutate
    call: Callable[[bytes], object]
    errors: tuple[type[Exception], ...] = ()


PARSERS = {
    parser.name: parser
    for parser in (
        Parser(
            "envelope",
            (samples.ENVELOPE,),
            mutations.mutate_nested("protected", "signed", "signature"),
            broker_calls.envelope,
            (EventError,),
        ),
        Parser("event", samples.EVENTS, mutations.mutate_json, event_calls.event, (EventError,)),
        Parser("account_name", samples.MATCHES, mutations.mutate_words, event_calls.name),
        Parser("hook_record", (samples.HOOK_PART,), mutations.mutate_bytes, event_calls.hook_record, (EventError,)),
        Parser("hook_plain", (samples.HOOK_PLAIN,), mutations.mutate_bytes, event_calls.hook_plain, (EventError,)),
        Parser(
            "hook_text", (samples.HOOK_TEXT.encode(),), mutations.mutate_words, event_calls.hook_text, (EventError,)
        ),
        Parser(
            "hook_name", (b"01dc5e0e8b2f4a00-00000451-00000001.record",), mutations.mutate_words, event_calls.hook_name
        ),
        Parser("properties", samples.HEADERS, mutations.mutate_bytes, broker_calls.properties),
        Parser("dead_stream", samples.LETTERS, mutations.mutate_letter, broker_calls.dead_stream),
        Parser(
            "journal_record",
            tuple(record.encode() for record in samples.RECORDS),
            mutations.mutate_nested("envelope"),
            broker_calls.journal,
            (EventError,),
        ),
        Parser("news", (samples.NEWS,), mutations.mutate_nested("news", "signature"), broker_calls.news),
        Parser("signed_news", (samples.NEWS_DOCUMENT,), mutations.mutate_json, broker_calls.signed_news),
        Parser("note", (samples.NOTE_TEXT.encode(),), mutations.mutate_lines, broker_calls.note),
        Parser(
            "sealed_note", (str(samples.RECORDS[0].note).encode(),), mutations.mutate_words, broker_calls.sealed_note
        ),
        Parser("stdin_line", samples.LINES, mutations.mutate_json, source_calls.line, (EventError,)),
        Parser("ad_account", (samples.ACCOUNT,), mutations.mutate_lines, source_calls.account, (UnreadableError,)),
        Parser("ad_directory", (samples.ACCOUNT,), mutations.mutate_lines, source_calls.directory),
        Parser("ad_pulse", (samples.PULSE,), mutations.mutate_bytes, source_calls.pulse, (UnavailableError,)),
        Parser(
            "ad_metadata", (samples.METADATA,), mutations.mutate_bytes, source_calls.stamps, (metadata.MetadataError,)
        ),
        Parser(
            "ad_supplemental",
            (samples.SUPPLEMENTAL,),
            mutations.mutate_bytes,
            source_calls.packages,
            (supplemental.SupplementalError,),
        ),
        Parser(
            "ad_openpgp",
            (samples.OPENPGP,),
            mutations.mutate_bytes,
            source_calls.openpgp,
            (supplemental.ClearTextError,),
        ),
        Parser("ad_cursor", (samples.CURSOR,), mutations.mutate_lines, source_calls.cursor, (ConfigurationError,)),
        Parser("audit_account", (samples.ACCOUNT,), mutations.mutate_lines, operator_calls.user),
        Parser("ad_controller", (samples.CONTROLLER,), mutations.mutate_lines, operator_calls.controller),
        Parser(
            "certificate", (samples.CERTIFICATE,), mutations.mutate_bytes, operator_calls.certificate, (ValueError,)
        ),
        Parser("idm_agreement", (samples.AGREEMENT,), mutations.mutate_lines, operator_calls.agreement),
        Parser("idm_schema", samples.DEFINITIONS, mutations.mutate_words, operator_calls.definition),
        Parser(
            "hook_registry",
            (samples.HOOK_REGISTRY,),
            mutations.mutate_json,
            operator_calls.hook_registry,
            (SafetyError,),
        ),
        Parser("idm_marker", samples.MARKERS, mutations.mutate_words, host_calls.marker, (MarkerError,)),
        Parser("idm_entry", samples.IDM_ENTRIES, mutations.mutate_lines, host_calls.idm_entry, (MarkerError,)),
        Parser(
            "idm_answers",
            samples.IDM_ANSWERS,
            mutations.mutate_bytes,
            host_calls.idm_answers,
            (DirectoryError, MarkerError),
        ),
        Parser("public_key", samples.PUBLIC_KEYS, mutations.mutate_json, host_calls.public_key, (KeyFileError,)),
        Parser("private_key", samples.PRIVATE_KEYS, mutations.mutate_json, host_calls.private_key, (KeyFileError,)),
        Parser(
            "secret_file",
            (b"Kanarie7-secret\n",),
            mutations.mutate_bytes,
            host_calls.secret_file,
            (ConfigurationError,),
        ),
        Parser(
            "openpgp_key",
            (bytes(samples.SECRET_KEY),),
            mutations.mutate_bytes,
            host_calls.openpgp_key,
            (KeyFileError,),
        ),
        Parser(
            "consumer_settings",
            (samples.CONSUMER_TOML,),
            mutations.mutate_lines,
            host_calls.consumer_settings,
            (ConfigurationError,),
        ),
        Parser(
            "producer_settings",
            (samples.PRODUCER_TOML,),
            mutations.mutate_lines,
            host_calls.producer_settings,
            (ConfigurationError,),
        ),
        Parser(
            "environment",
            samples.ENVIRONMENT,
            mutations.mutate_lines,
            host_calls.environment,
            (ConfigurationError,),
        ),
        Parser("dn", samples.DNS, mutations.mutate_words, host_calls.dn, (ValueError,)),
    )
}


def run(parser: Parser, raw: bytes) -> type[Exception] | None:
    """Give it one input: the error that it named, None where it took it; any other exception goes through."""
    try:
        parser.call(raw)
    except parser.errors as error:
        no_canary(str(error))
        return type(error)
    return None
